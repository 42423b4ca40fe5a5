# SPDX-License-Identifier: LGPL-2.1-or-later
# What the bats files 60 to 63 share, beyond lib.bash.

FORK=$K42_BUILD/tests/fork
COUNTS=$K42_TESTS/fork/counts.py

# make_files COUNT [DIR]: f00000 …, each with "0123456789" 100 times and its own name first.
make_files() {
    python3 - "$1" "${2:-$S/src}" <<'PY'
import sys
for i in range(int(sys.argv[1])):
    with open("%s/f%05d" % (sys.argv[2], i), "w") as f:
        f.write("f%05d" % i + "0123456789" * 100)
PY
}

# start_touch [COMMAND…]: starts the process "r" under COMMAND (k42run, if nothing is said); its pid is
# $R.  It and its children are a process group of their own, for stop_touch.
start_touch() {
    C=$S/ctl
    mkdir -p "$C"
    [ $# -gt 0 ] || set -- "$K42RUN" --
    ulimit -n "$(ulimit -Hn)"
    setsid "$@" "$FORK/touch" "$C" r </dev/null >"$C/stdout" 2>"$C/stderr" 3>&- &
    TOUCH_JOB=$!
    local i
    for ((i = 0; i < 200; i++)); do [ -p "$C/r.out" ] && break; sleep 0.05; done
    hear r
    R=$T
}

# stop_touch: for teardown(): ends whatever is left of them when a test has failed.
stop_touch() {
    [ -z "${TOUCH_JOB:-}" ] || kill -KILL -- "-$TOUCH_JOB" 2>/dev/null || true
}

# hear NAME: waits for a line of the process NAME; what follows "ok" is in $T.
hear() {
    local answer=
    IFS= read -r -t 120 answer <>"$C/$1.out" || { echo "no answer from $1: $(cat "$C/stderr")" >&2; return 1; }
    T=${answer#ok}
    T=${T# }
    [[ $answer == ok* ]] || { echo "$1 answers: $answer" >&2; return 1; }
}

# t NAME COMMAND…: has the process NAME do something; see touch.c.  The answer's FIFO is held open
# meanwhile: the last words of a process that ends would be lost with the last one who has it open.
t() {
    local who=$1
    shift
    [ -p "$C/$who.in" ] || { echo "there is no $who" >&2; return 1; }
    { echo "$*" >&7; hear "$who"; } 7<>"$C/$who.in" 8<>"$C/$who.out"
}

# child NAME [OF]: forks; the child's pid is in $T.
child() { t "${2:-r}" fork "$1"; }

# gone NAME OF: has NAME end and OF reap it.
gone() { t "$1" exit && t "$2" reap; }

# stats_now FILE: the daemon's stats, without a request on the mount.
stats_now() { timeout 30 "$COUNTS" stats "$S/state" >"$1"; }

# stat_now NAME: one number of them, or one of requests.NAME.
stat_now() {
    stats_now "$S/stat.one" && python3 -c '
import json, sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."):
    v = v.get(k, 0)
print(v)' "$S/stat.one" "$1"
}

# mark, then reopens_are N: that many handles were made by lazy_reopen since the mark; messages_are N:
# that many ioctls came; messages_at_most N.
mark() {
    MARK_REOPENS=$(stat_now lazy_reopens)
    MARK_MESSAGES=$(stat_now requests.ioctl)
}
reopens_are() {
    local now
    now=$(($(stat_now lazy_reopens) - MARK_REOPENS))
    [ "$now" = "$1" ] || { echo "lazy_reopens: $now, expected $1 ($(caller))" >&2; return 1; }
}
messages_are() {
    local now
    now=$(($(stat_now requests.ioctl) - MARK_MESSAGES))
    [ "$now" = "$1" ] || { echo "requests.ioctl: $now, expected $1 ($(caller))" >&2; return 1; }
}
messages_at_most() {
    local now
    now=$(($(stat_now requests.ioctl) - MARK_MESSAGES))
    [ "$now" -le "$1" ] || { echo "requests.ioctl: $now, expected at most $1 ($(caller))" >&2; return 1; }
}

# check: k42_check in the middle of a test that counts: its own messages do not count.
check() {
    local before
    before=$(stat_now requests.ioctl)
    k42_check || return 1
    MARK_MESSAGES=$((${MARK_MESSAGES:-0} + $(stat_now requests.ioctl) - before))
}

# list: `k42ctl list --json` into $S/list.  rows …: see counts.py.
list() { timeout 60 "$K42CTL" list --json "$S/mnt" >"$S/list"; }
rows() { "$COUNTS" rows "$S/list" "$@"; }

# same_output EXPECTED GOT: byte for byte; shows the first differences.
same_output() {
    cmp -s "$1" "$2" && return 0
    echo "$(basename "$2") is not $(basename "$1"):" >&2
    diff "$1" "$2" | head -n "${3:-20}" >&2
    echo "($(diff "$1" "$2" | grep -c '^>') lines differ)" >&2
    return 1
}

# run_matrix OUT DIR COMMAND…: the matrix in DIR (made and removed), under COMMAND if there is one.
run_matrix() {
    local out=$1 dir=$2
    shift 2
    mkdir -p "$dir"
    timeout -k 5 "${MATRIX_SECONDS:-600}" "$@" "$FORK/matrix" "$dir" >"$out" 2>"$out.progress" 3>&- ||
        { echo "matrix: status $? in $dir" >&2; tail -n 3 "$out.progress" >&2; return 1; }
    rmdir "$dir"
}
