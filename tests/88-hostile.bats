#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a program without the shim, that means no good, can do and cannot do in each class: to keep what was taken
# from it, to others by the shim's messages, and to the daemon through its sockets.  86-revoke.bats has more of the
# first, 65-account.bats has the accounts.

load lib
load see

setup() {
    k42_skip_unless_fuse
    k42_scratch
    HOSTILE=$K42_BUILD/tests/hostile
    HOLDERS=()
    LIAR=
    echo contents >"$S/src/f"
    chmod 666 "$S/src/f"
}

teardown() {
    exec 7>&- 8>&-
    end_holders
    if [ -n "$LIAR" ]; then
        kill -CONT "$LIAR" 2>/dev/null || true
        timeout 20 umount -l "$S/liar" 2>/dev/null || true
        kill "$LIAR" 2>/dev/null || true
    fi
    k42_cleanup
}

# is_class CLASS: SKIPs where the machine has no such mount.
is_class() {
    [ "$(ctl status --json "$S/mnt" | json 'print(v["class"])')" = "$1" ] || skip "no class $1 here"
}

# expected COLUMN: what attempts.table says, as `attempts` prints it.
expected() {
    awk -F ' *[|] *' -v column="$1" '
        /^#/ { next }
        !at { for (i = 2; i <= NF; i++) if ($i == column) at = i; if (!at) exit 1; next }
        $1 == "the file at the end" { print $at; next }
        { print $1 ": " $at }' "$K42_TESTS/hostile/attempts.table"
}

# attempts COLUMN STATUS VERB…: on the mount that is there, with "FILE" for the file.
attempts() {
    local column=$1 status=$2 file=$S/mnt/$1
    shift 2
    timeout 60 "$HOSTILE/attempts" "$file" "$status" "$K42CTL" "${@/#FILE/$file}" >"$S/got" 3>&-
    expected "$column" >"$S/want"
    if grep -q ': skipped$' "$S/got"; then
        echo "# SKIP, $column: not on this machine: $(sed -n 's/: skipped$//p' "$S/got" | paste -sd,)" >&3
        sed -i 's/: skipped$//' "$S/got"
        awk -F': ' 'NR == FNR { if (NF == 1) bare[$1]; next } $1 in bare { print $1; next } { print }' \
            "$S/got" "$S/want" >"$S/want.bare"
        mv "$S/want.bare" "$S/want"
    fi
    diff "$S/want" "$S/got"
}

# ---- to keep what was taken ----

@test "fast: nothing is taken, k42ctl says so, and everything goes on" {
    k42_mount -o io=fast
    is_class fast
    attempts fast 1 revoke FILE
    k42_counts_zero
}

@test "cached: a revoked or blocked file, and rights that are held but for mappings" {
    k42_mount -o io=cached
    attempts cached 0 revoke FILE
    attempts cached-block 0 revoke --block FILE
    attempts cached-restrict 0 restrict PID rd "$S/mnt"
    k42_counts_zero
}

@test "counted: a revoked or blocked file" {
    k42_mount -o io=counted
    attempts counted 0 revoke FILE
    attempts counted-block 0 revoke --block FILE
    k42_counts_zero
}

@test "counted: a revoked or blocked tree of processes, and rights" {
    k42_mount -o io=counted
    attempts counted-tree 0 revoke --tree PID "$S/mnt"
    attempts counted-block-tree 0 revoke --tree --block PID "$S/mnt"
    attempts counted-restrict 0 restrict PID rd "$S/mnt"
    k42_counts_zero
}

@test "a revoked file cannot be run by a descriptor from before, in both classes that revoke" {
    local io
    cp /bin/true "$S/src/program"
    for io in cached counted; do
        k42_mount -o "io=$io"
        timeout 30 python3 - "$S/mnt/program" "$K42CTL" "$io" <<'PY'
import errno, os, subprocess, sys
path, k42ctl = sys.argv[1:3]
fd = os.open(path, os.O_RDONLY)

def run():
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(fd, ["true"], {})
        except OSError as e:
            os._exit(e.errno)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert run() == 0
subprocess.run([k42ctl, "revoke", path], check=True)
assert run() == errno.ESTALE, run()
assert subprocess.run([path]).returncode == 0
if sys.argv[3] == "counted":
    fd = os.open(path, os.O_RDONLY)
    subprocess.run([k42ctl, "revoke", str(os.getpid()), os.path.dirname(path)], check=True)
    try:
        os.read(fd, 1)
        assert False, "it was read"
    except OSError as e:
        assert e.errno == errno.EBADF
    assert run() == 0 # to run it is to open it anew
subprocess.run([k42ctl, "revoke", "--block", path], check=True)
assert run() in (errno.EACCES, errno.ESTALE), run()
try:
    subprocess.run([path])
    assert False, "it ran"
except PermissionError:
    pass
PY
        k42_umount
    done
}

@test "k42run --rights: what a child without the shim opens through /proc is an open, and truncate(2) too" {
    k42_mount -o io=counted
    exec 7<>"$S/mnt/f"
    timeout 20 "$K42RUN" --rights=rd env -i PATH="$PATH" python3 - "$S/mnt/f" <<'PY' 3>&-
import errno, mmap, os, sys
path = sys.argv[1]

def child(fn):
    pid = os.fork()
    if pid == 0:
        try:
            fn()
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

def store():
    mmap.mmap(7, 4)[0:1] = b"X"

for fn, wanted in (
    (lambda: os.pread(7, 1, 0), 0),
    (lambda: os.pwrite(7, b"X", 0), errno.EBADF),
    (lambda: os.ftruncate(7, 0), errno.EBADF),
    (lambda: os.posix_fallocate(7, 0, 100), errno.EBADF),
    (store, -7),
    # rights are about descriptors, not about files: semantics(7)
    (lambda: os.open("/proc/self/fd/7", os.O_RDWR), 0),
    (lambda: os.open(path, os.O_RDWR), 0),
):
    assert child(fn) == wanted, (wanted, child(fn))
PY
    [ "$(cat "$S/src/f")" = contents ]
}

# ---- to others, by messages ----

@test "messages: noise, boundaries and lies get a clear error, and change nobody's handle" {
    local io seed=${K42_SEED:-$((RANDOM * 32768 + RANDOM))} count=3000 before
    [ -z "${K42_SOAK:-}" ] || count=300000
    echo "# seed $seed" >&3
    for io in cached counted; do
        k42_mount -o "io=$io"
        before=$K42_WORKER
        # a child cannot take its parent's description for its own
        timeout 20 "$HOSTILE/messages" theft "$S/mnt/f"
        # who has a parent cannot choose another one, to be out of its tree
        timeout 20 "$HOSTILE/messages" lineage "$S/mnt/f"
        timeout 600 "$HOSTILE/messages" fuzz "$S/mnt/f" "$seed" "$count" 3>&-
        k42_find_worker
        [ "$K42_WORKER" = "$before" ]
        k42_counts_zero
        k42_umount
    done
}

@test "messages: who works beside a flood of them goes on; 2,000 children that touch leave nothing" {
    local done longest
    k42_mount -o io=counted
    read -r done longest < <(timeout 30 "$HOSTILE/messages" flood "$S/mnt/f" 12 2 3>&-)
    echo "# beside 12 processes: $done turns in 2 s, the longest $longest s" >&3
    [ "$done" -ge 20 ]
    timeout 60 "$HOSTILE/messages" forks "$S/mnt/f" 2000
    k42_counts_zero
    [ "$(k42_stat clients)" -le 2 ]
}

# ---- to the daemon, by its sockets ----

@test "control: an ordinary user sees nothing of others, and takes nothing from them" {
    need_root "to become another user"
    k42_mount -o io=counted,history=10
    cat "$S/mnt/f" >/dev/null
    exec 7<>"$S/mnt/f"
    printf c >&7
    local mine
    mine=$(ctl list --json "$S/mnt" | json 'print([r["handle"] for r in v if r["type"] == "FILE"][0])')
    chmod 755 "$S/state" 2>/dev/null || true # the way there is not what keeps him out
    cp "$K42_TESTS/hostile/control_user.py" "$S/control_user.py"
    as_nobody timeout 60 python3 "$S/control_user.py" "$S/state/control" $$ "$mine"
    printf o >&7
    [ "$(cat "$S/src/f")" = contents ]
    mountpoint -q "$S/mnt"
}

@test "control: what a setuid program has open is not its starter's to take" {
    need_root "to become another user"
    findmnt -no OPTIONS -T "$S" | grep -qw nosuid && skip "setuid programs have no effect in $S"
    local handle i
    k42_mount -o io=counted
    echo secret >"$S/src/secret"
    chmod 600 "$S/src/secret"
    cp /usr/bin/tail "$S/tail"
    chmod 4755 "$S/tail"
    cp "$K42CTL" "$S/k42ctl"
    chmod 755 "$S/k42ctl"
    # known to the daemon as the ordinary user's before it becomes root's
    (exec setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups -- sh -c \
        'exec 9<"$1"; read -r a <&9; exec "$2" -f "$3"' sh "$S/mnt/f" "$S/tail" "$S/mnt/secret") >"$S/said" 3>&- &
    HOLDERS+=($!)
    for ((i = 0; i < 200; i++)); do grep -q secret "$S/said" && break; sleep 0.05; done
    handle=$(ctl list --json "$S/mnt" | json 'print([r["handle"] for r in v if r["path"] == "/secret"][0])')
    run -1 as_nobody timeout 20 "$S/k42ctl" restrict "$handle" - "$S/mnt"
    [[ $output == *"not yours"* ]]
    run -1 as_nobody timeout 20 "$S/k42ctl" revoke "$handle" "$S/mnt"
    [[ $output == *"not yours"* ]]
    [ "$(ctl show --json "$handle" "$S/mnt" | json 'print(v["rights"])')" = rdc ]
}

@test "control: a descriptor that lingers is not taken, and others are answered" {
    k42_mount
    PYTHONPATH=$K42_TESTS/hostile PYTHONDONTWRITEBYTECODE=1 \
        run timeout 30 python3 - "$S/state/control" "$K42CTL" "$S/mnt" <<'PY'
import array, errno, os, socket, struct, subprocess, sys
from lingering import lingering
where, k42ctl, mnt = sys.argv[1:]
if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (6, 16):
    sys.exit(77)
lingers, kept = lingering()
c = socket.socket(socket.AF_UNIX)
c.connect(where)
refused = None
try:
    c.sendmsg([b"{"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [lingers.fileno()]))])
except OSError as e:
    refused = e.errno
    lingers.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0)) # its last close is ours
lingers.close()
subprocess.run([k42ctl, "status", mnt], check=True, timeout=10, stdout=subprocess.DEVNULL)
assert refused == errno.EPERM, refused
PY
    echo "$output"
    [ "$status" != 77 ] || skip "Linux before 6.16 cannot refuse descriptors"
    [ "$status" = 0 ]
}

# peers_say WORD: waits for it.
peers_say() {
    local i
    for ((i = 0; i < 1000; i++)); do
        grep -qx "$1" "$S/said" && return
        kill -0 "$peers" || break
        sleep 0.05
    done
    cat "$S/said"
    return 1
}

@test "reopen: whatever is sent there, and descriptors that nobody answers for, keep nobody from being served" {
    need_root "an ordinary user's daemon has no such socket"
    local i
    mkdir "$S/liar.src" "$S/liar"
    echo x >"$S/liar.src/stuck"
    k42_mount
    timeout -k 5 100 "$K42_BUILD/tests/fork/liar" "$S/liar.src" "$S/liar" flush 2>"$S/liar.log" </dev/null 3>&- &
    for ((i = 0; i < 200; i++)); do mountpoint -q "$S/liar" && break; sleep 0.05; done
    LIAR=$(pgrep -P $!)
    mkfifo "$S/go"
    timeout 80 python3 "$K42_TESTS/hostile/reopen_peers.py" "$S/state/reopen" "$S/mnt/f" "$S/liar/stuck" \
        <"$S/go" >"$S/said" 3>&- &
    local peers=$!
    exec 8>"$S/go"
    peers_say ready
    kill -STOP "$LIAR"
    echo >&8
    peers_say served
    # nor do they keep the daemon from its end, of either kind
    k42_kill_worker
    k42_counts_zero
    k42_umount
    kill -CONT "$LIAR"
    echo >&8
    wait "$peers"
}

# ---- by the environment ----

@test "K42_* in the environment: whatever it says, a program does what it does without it" {
    local value
    k42_mount -o io=counted
    for value in "" x private,shared "$(printf '%5000s' x)" $'private\nshared' 0; do
        [ "$(K42_FORK=$value K42_FAILPOINT=message,open K42_RIGHTS=rwdc K42_STATE=/nowhere \
            timeout 20 "$K42RUN" sh -c '(read -r a; echo "$a") <"$1"; (cat) <"$1"' sh "$S/mnt/f")" = $'contents\ncontents' ]
    done
    # what was withheld is not given back by a variable
    exec 7<>"$S/mnt/f"
    run timeout 20 "$K42RUN" --rights=rd env K42_FORK=private K42_RIGHTS=rwdc LD_PRELOAD= sh -c '(printf X >&7)'
    [ "$status" != 0 ]
    [ "$(cat "$S/src/f")" = contents ]
}
