#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Private mode: a forked child has its own offset in what it inherits.
#
# The hazard is shown first: the same program fails on the mirrored directory and on the mount, and not
# with --fork=private.  K42_SOAK repeats what depends on timing 20 times, with more reads.

load lib
load fork/fork

PRIVATE=$K42_BUILD/tests/private
POOL=$K42_TESTS/private/pool.py

setup() {
    k42_skip_unless_fuse
    k42_scratch
    unset K42_FORK
    RUNS=1 READS=500
    [ -z "${K42_SOAK:-}" ] || { RUNS=20; READS=2000; K42_DAEMON_TIMEOUT=4900; }
}
teardown() {
    stop_touch
    k42_cleanup
}

# python_with MODULE: sets $PYTHON to one that has it, or skips.
python_with() {
    for PYTHON in python3 /usr/bin/python3; do
        "$PYTHON" -c "import $1" 2>/dev/null && return 0
    done
    skip "no python3 with $1"
}

# private COMMAND…
private() { timeout 120 "$K42RUN" --fork=private -- "$@"; }

# in_mode native|shared|private COMMAND…: natively, without us; on the mount in the two modes.  @AT@ in
# the command is the directory.
in_mode() {
    local mode=$1 at=$S/mnt
    shift
    case $mode in
    native) timeout 120 "${@//@AT@/$S/src}" ;;
    shared) timeout 120 "$K42RUN" --fork=shared -- "${@//@AT@/$at}" ;;
    private) private "${@//@AT@/$at}" ;;
    esac
}

# figures WHAT MODE RUNS COMMAND…: COMMAND prints how many of its reads went wrong, and of how many.  Sets
# $WRONG, the runs in which some did, and $FAILED and $TOTAL, of all runs.  The soak form says it.
figures() {
    local what=$1 mode=$2 runs=$3 i failed total
    shift 3
    WRONG=0 FAILED=0 TOTAL=0
    for ((i = 0; i < runs; i++)); do
        read -r failed total < <(in_mode "$mode" "$@" 2>/dev/null)
        [ "$total" -gt 0 ] || return 1
        FAILED=$((FAILED + failed)) TOTAL=$((TOTAL + total))
        [ "$failed" = 0 ] || WRONG=$((WRONG + 1))
    done
    echo "$what, $mode: $FAILED of $TOTAL went wrong, in $WRONG of $runs runs"
    [ -z "${K42_SOAK:-}" ] || echo "# $what, $mode: $FAILED of $TOTAL went wrong, in $WRONG of $runs runs" >&3
}

# hazard WHAT COMMAND…: wrong natively and on the mount in shared mode, right in private mode.  The first
# two are a race, so that the short form has several attempts; the long one has as many runs of each.
hazard() {
    local mode i
    for mode in native shared; do
        for i in 1 2 3 4 5; do
            figures "$1" $mode "$RUNS" "${@:2}" || return 1
            [ "$FAILED" = 0 ] || break
        done
        [ "$FAILED" != 0 ] || return 1
    done
    figures "$1" private "$RUNS" "${@:2}" && [ "$FAILED" = 0 ]
}

# pool KIND MODULE
pool() {
    python_with "$2"
    "$PYTHON" "$POOL" make "$1" "$S/src/f"
    k42_mount
    hazard "$1" "$PYTHON" "$POOL" run "$1" @AT@/f 4 "$READS"
    k42_counts_zero
    k42_check
}

@test "a zipfile that forked workers share: wrong without private mode, right with it" { pool zip zipfile; }

@test "an npz that forked workers share: wrong without private mode, right with it" { pool npz numpy; }

@test "h5py on a Python file object: wrong without private mode, right with it" { pool h5 h5py; }

@test "a tar that parent and child stream: wrong without private mode, right with it" { pool tar tarfile; }

@test "blobs from sqlite, which reads by pread: right in both modes" {
    local mode
    python_with sqlite3
    "$PYTHON" "$POOL" make sqlite "$S/src/f"
    k42_mount
    for mode in native shared private; do
        figures sqlite $mode "$RUNS" "$PYTHON" "$POOL" run sqlite @AT@/f 4 "$READS"
        [ "$FAILED" = 0 ]
    done
}

@test "perl reads, forks, and a child reads a line and exits: the parent's input is wrong, and not in private mode" {
    seq 20000 >"$S/src/f"
    k42_mount
    cat >"$S/lines.pl" <<'EOP'
# Each line is its own number: how many are not the next one, of those that there are.
open(my $f, "<", $ARGV[0]) or die;
my ($n, $wrong) = (0, 0);
while (<$f>) {
    last if ++$n > 60000;
    $wrong++ if $_ != $n;
    if ($n % 2000 == 0) { my $pid = fork; if ($pid == 0) { <$f>; exit; } waitpid $pid, 0; }
}
$wrong++ if $n != 20000;
print "$wrong $n\n";
EOP
    hazard perl perl "$S/lines.pl" @AT@/f
}

@test "a C program reads, forks, and a child exits: likewise" {
    k42_mount
    hazard "C stdio" bash -c 'if "$1" stdio-loop "$2" >&2; then echo 0 1; else echo 1 1; fi' - \
        "$PRIVATE/cases" @AT@
}

# all_cases [OPTION…]: each case on the mount as it is now.
all_cases() {
    local name status bad=0
    for name in $("$PRIVATE/cases" list); do
        [[ " ${NOT:-} " != *" $name "* ]] || continue
        status=0
        timeout 60 "$K42RUN" "$@" -- "$PRIVATE/cases" "$name" "$S/mnt" || status=$?
        case $status in
        0) ;;
        77) echo "$name: cannot be tried here" ;;
        *) echo "$name: $status"; bad=1 ;;
        esac
    done
    return $bad
}

@test "what private mode promises, case by case" {
    k42_mount
    all_cases --fork=private
    K42_FORK=private all_cases
    k42_counts_zero
    k42_check
}

@test "the same where the daemon sees all data, and where the page cache does" {
    local io
    for io in counted cached; do
        k42_mount -o io=$io
        all_cases --fork=private
        k42_counts_zero
        k42_umount
    done
}

@test "fork=private: of the mount: the same, for files that match and for no others" {
    k42_mount -o 'fork=private:case-*:d/*.zip'
    NOT=tmpfile all_cases # which has no name
    grep -q " $S/mnt fuse.k42fs " /proc/mounts
    mkdir "$S/src/d" && echo text >"$S/src/d/a.zip" && echo text >"$S/src/d/a.tar"
    cat >"$S/at.py" <<'EOP'
import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
if os.fork() == 0:
    os.read(f, 2)
    os._exit(0)
os.wait()
print(os.lseek(f, 0, os.SEEK_CUR))
EOP
    run -0 "$K42RUN" python3 "$S/at.py" "$S/mnt/d/a.zip"
    [ "$output" = 0 ]
    run -0 "$K42RUN" python3 "$S/at.py" "$S/mnt/d/a.tar"
    [ "$output" = 2 ]
    # k42run's word counts more, either way
    run -0 "$K42RUN" --fork=shared python3 "$S/at.py" "$S/mnt/d/a.zip"
    [ "$output" = 2 ]
    run -0 "$K42RUN" --fork=private python3 "$S/at.py" "$S/mnt/d/a.tar"
    [ "$output" = 0 ]
    # and without the library it is any file
    run -0 python3 "$S/at.py" "$S/mnt/d/a.zip"
    [ "$output" = 2 ]
}

@test "fork=: bad values are refused, and nothing is left" {
    local value
    for value in fork fork= fork=x fork=private fork=private: fork=private:/a fork=private:a::b; do
        run --separate-stderr -2 timeout 10 "$K42FS" -o "state=$S/state,$value" "$S/src" "$S/mnt"
        [[ $stderr == "k42fs: -o $value: "* ]]
    done
    [ ! -e "$S/state" ]
}

@test "P3: random trees of processes, compared with a model" {
    local seed=${K42_SEED:-$RANDOM$RANDOM} trees=30 i
    [ -z "${K42_SOAK:-}" ] || trees=400
    echo "K42_SEED=$seed"
    k42_mount
    # it can fail: the same trees without private mode
    run -1 timeout 60 "$K42RUN" --fork=shared -- "$PRIVATE/trees" "$S/mnt" "$seed" 30
    [[ $output == *"seed $seed: "* ]]
    private "$PRIVATE/trees" "$S/mnt" "$seed" "$trees"
    # all descriptors on one file
    private "$PRIVATE/trees" "$S/mnt" "$seed" "$trees" 1
    k42_counts_zero
    k42_check
}

# sum_of_requests BEFORE AFTER
sum_of_requests() {
    python3 - "$@" <<'EOP'
import json, sys
a, b = (json.load(open(p))["requests"] for p in sys.argv[1:])
print(sum(b.get(k, 0) - a.get(k, 0) for k in b if "forget" not in k))
EOP
}

@test "P4: the first touch costs three requests, the next none, and what is not touched none" {
    make_files 500
    k42_mount
    start_touch "$K42RUN" --fork=private --
    t r open "$S/mnt" 500
    stats_now "$S/before"
    child c
    child g c
    t g exit
    t c reap
    sleep 0.3
    stats_now "$S/after"
    run "$COUNTS" diff "$S/before" "$S/after" forget batch_forget
    echo "$output"
    [ "$status" = 0 ] && [ -z "$output" ]
    mark
    t c touch 7 1
    stats_now "$S/after"
    [ "$(sum_of_requests "$S/before" "$S/after")" -le 3 ]
    reopens_are 1
    t c touch 7 1 50
    stats_now "$S/again"
    [ "$(sum_of_requests "$S/after" "$S/again")" = 0 ]
    t c touch 100 100
    stats_now "$S/after"
    [ "$(sum_of_requests "$S/again" "$S/after")" -le 300 ]
    gone c r
    t r exit
    k42_counts_zero
}

@test "a handle of the child's own: its row, its parent, its counters; the shared one's ends" {
    make_files 2
    k42_mount -o io=counted
    start_touch "$K42RUN" --fork=private --
    t r open "$S/mnt" 2
    t r read 0 100
    list
    local parent
    parent=$(rows pid="$R" path=/f00000 -- handle)
    child c
    local c=$T
    t c read 0 30
    t c read 0 30
    list
    [ "$(rows)" = 3 ]
    [ "$(rows pid="$c" -- path parent sharing reads read_bytes)" = "/f00000 $parent non_shared 2 60" ]
    [ "$(rows pid="$R" path=/f00000 -- reads read_bytes)" = "1 100" ]
    k42_check
    child g c
    local g=$T
    t g read 0 5
    list
    [ "$(rows pid="$g" -- parent reads read_bytes)" = "$(rows pid="$c" -- handle) 1 5" ]
    k42_check
    gone g c
    gone c r
    t r exit
    k42_counts_zero
}

# What shells and loggers rely on is on 0, 1, 2 or appends.
@test "programs that rely on the shared offset, in private mode and in shared mode" {
    local how
    k42_mount
    mkdir "$S/src/native" "$S/src/private" "$S/src/shared"
    cat >"$S/programs" <<'EOS'
(echo a; (echo b; sh -c 'echo c'); echo d) >list
seq 100 | while read -r n; do echo "$n"; done >numbers
while read -r n; do [ "$n" != 50 ] || { head -n 1; }; echo "$n"; done <numbers >loop
{ for i in 1 2 3 4 5 6; do (echo "log $i" >&5) & done; wait; } 5>>log; sort log >log.sorted; rm log
printf 'all: a b c d\na b c d:\n\t@echo $@; sh -c "echo $@."\n' >Makefile
make -s -j 4 -O >made; sort made >made.sorted; rm made
python3 - <<'EOP'
import logging, os
logging.basicConfig(filename="pylog", format="%(message)s")
pids = []
for i in range(8):
    pids.append(os.fork())
    if pids[-1] == 0:
        for n in range(50): logging.warning("%d %d", i, n)
        os._exit(0)
for p in pids: os.waitpid(p, 0)
EOP
sort pylog >pylog.sorted; rm pylog
exec 6>script; (echo child >&6); echo parent >&6; (sh -c 'echo program' >&6); exec 6>&-
EOS
    (cd "$S/src/native" && bash "$S/programs" 3>&-)
    (cd "$S/mnt/private" && private bash "$S/programs" 3>&-)
    (cd "$S/mnt/shared" && timeout 60 "$K42RUN" --fork=shared bash "$S/programs" 3>&-)
    diff -r "$S/src/native" "$S/src/shared"
    diff -r "$S/src/native" "$S/src/private"
}

@test "a file of another file system, and a daemon that is gone" {
    k42_mount
    run -0 private "$PRIVATE/cases" append "$S" # not on the mount: as ever
    run -1 private "$PRIVATE/cases" offset "$S"
    cat >"$S/gone.py" <<'EOP'
import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
if os.fork() == 0:
    os.system("umount -f '%s' 2>&1 | grep -v busy" % os.path.dirname(sys.argv[1])) # ends the connection
    for call in (lambda: os.read(f, 1), lambda: os.lseek(f, 0, 1)):
        try:
            call()
            os._exit(1)
        except OSError as e:
            if e.errno not in (107, 103, 5): raise
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
EOP
    [ "$(id -u)" = 0 ] || skip "not root: cannot abort a connection"
    echo text >"$S/src/f"
    run -0 private python3 "$S/gone.py" "$S/mnt/f"
    for ((i = 0; i < 200; i++)); do mountpoint -q "$S/mnt" || break; sleep 0.05; done
    run ! mountpoint -q "$S/mnt"
}

# What goes to the socket for processes that have dropped their privileges.
@test "REOPEN_BY_DAEMON: what is no request is not answered, and a descriptor from elsewhere is not opened" {
    [ "$(id -u)" = 0 ] || skip "not root: an ordinary user's daemon has no such socket"
    k42_mount
    echo text >"$S/src/f"
    timeout 60 python3 "$K42_TESTS/private/reopen_socket.py" "$S/state/reopen" "$S/mnt/f" "$S/src/f"
    kill -0 "$K42_PID"
    k42_counts_zero
    k42_check
}
