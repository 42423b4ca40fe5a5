# SPDX-License-Identifier: LGPL-2.1-or-later
# What the bats files share.  Load it with `load lib` (or `load ../lib`).
#
#   K42_BUILD      the build tree to test (default: ./build beside this folder)
#   K42_IO         io class for the mounts, if a test does not say (default: auto)
#
# A test calls k42_scratch in setup() and k42_cleanup in teardown(); everything else is in between.
# k42_cleanup fails the test when something is left: a mount, a process, a state directory, or a line
# in a daemon's log that the test did not announce with k42_expect_log.

bats_require_minimum_version 1.5.0

# Debian's programs, not what somebody has put before them (a wrapper of python3 costs more than most tests).
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH

K42_TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
K42_TOP=$(dirname "$K42_TESTS")
K42_BUILD=$(cd "${K42_BUILD:-$K42_TOP/build}" && pwd)
K42FS=$K42_BUILD/fusefs/k42fs
K42CTL=$K42_BUILD/ctl/k42ctl
K42RUN=$K42_BUILD/ctl/k42run
K42SHIM=$K42_BUILD/shim/libk42shim.so
export K42_TESTS K42_TOP K42_BUILD K42FS K42CTL K42RUN K42SHIM

# Makes $S, a scratch directory on a real file system, with $S/src (the backing directory), $S/mnt,
# and $S/state (not made yet: the daemon makes it).
k42_scratch() {
    S=$(mktemp -d "${K42_SCRATCH:-/var/tmp}/k42test.XXXXXX")
    chmod 755 "$S"
    mkdir "$S/src" "$S/mnt"
    K42_DAEMONS=()
    K42_EXPECTED_LOG=()
    STATE=$S/state
    export S STATE
}

# k42_state_in_memory: the state directory will be in memory, as /run is, where the file `requests` has a name.
k42_state_in_memory() {
    [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] || skip "no tmpfs at /dev/shm"
    STATE=$(mktemp -u /dev/shm/k42test.XXXXXX)
}

# k42_skip_unless_fuse: SKIPs, and says why, on a machine that cannot mount.
k42_skip_unless_fuse() {
    [ -c /dev/fuse ] || skip "no /dev/fuse on this machine"
    [ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || skip "no fusermount3 and not root"
}

# need_root WHAT_FOR: SKIPs without.
need_root() { [ "$(id -u)" = 0 ] || skip "needs root: $1"; }

# The ordinary user that tests become.
NOBODY=65534

# as_nobody COMMAND…: only root can.
as_nobody() { setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups -- "$@"; }

# k42_skip_unless_nobody_mounts: SKIPs where nobody cannot have a mount of his own.  Else $S/src and $S/mnt are
# his, and $S/run is made for his state directory.
k42_skip_unless_nobody_mounts() {
    need_root "to become another user"
    command -v setpriv >/dev/null || skip "no setpriv"
    [ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not setuid root"
    as_nobody test -x "$K42FS" || skip "an ordinary user cannot run the build tree's k42fs"
    unshare -m true 2>/dev/null || skip "cannot make a mount namespace"
    mkdir "$S/run"
    chown -R $NOBODY:$NOBODY "$S/src" "$S/mnt" "$S/run"
}

# k42_give_back_mounts: a new mount namespace has copies of everybody's mounts, and would keep them, and their daemons,
# alive after their ends.  Nothing here asks a mount anything: its daemon may be stopped.
k42_give_back_mounts() {
    local at
    awk '$3 ~ /^fuse\./ { print $2 }' /proc/mounts | while read -r at; do
        timeout 5 umount -l -i -c "$(printf '%b' "${at//\\/\\0}")" 2>/dev/null || true
    done
}

# k42_in_namespace SECONDS FUNCTION [ARGUMENT…]: runs it in a mount namespace of its own, for that long at most.
k42_in_namespace() {
    export NOBODY K42_NAMESPACE_SECONDS=$1
    export -f as_nobody k42_nobody_mount k42_give_back_mounts "$2"
    timeout -k 5 "$1" unshare -m --propagation private bash -c 'k42_give_back_mounts; "$@"' namespace "${@:2}" 3>&-
}

# k42_nobody_mount [OPTIONS]: in such a namespace, nobody's own mount of $S/src at $S/mnt, with its state in
# $S/run/state and its log in $S/log.user.  The daemon is a child, $K42_KEEPER.  He gets a /dev/fuse that he may
# open where the machine's is only for root.
k42_nobody_mount() {
    local i
    if ! as_nobody test -w /dev/fuse; then
        mknod "$S/fuse" c 10 229
        chmod 666 "$S/fuse"
        mount --bind "$S/fuse" /dev/fuse
    fi
    as_nobody timeout -k 5 "$K42_NAMESPACE_SECONDS" "$K42FS" -f -o "state=$S/run/state${1:+,$1}" "$S/src" \
        "$S/mnt" 2>"$S/log.user" </dev/null &
    K42_KEEPER=$!
    for ((i = 0; i < 200; i++)); do
        grep -q " $S/mnt fuse" /proc/mounts && as_nobody timeout 5 "$K42CTL" status "$S/mnt" >/dev/null 2>&1 && return
        kill -0 "$K42_KEEPER" 2>/dev/null || break
        sleep 0.05
    done
    echo "nobody's daemon did not come up" >&2
    cat "$S/log.user" >&2
    return 1
}

# k42_mount [-o OPTIONS] [SOURCE [MOUNTPOINT [STATE]]]: starts a daemon in the foreground with its log in
# $S/log.N, and returns when the mount answers.  The process that owns the mount is in $K42_HOLDER, the one
# that serves it in $K42_WORKER and in $K42_PID; another worker comes when that one dies.
k42_mount() {
    local opts="" n=${#K42_DAEMONS[@]}
    if [ "${1:-}" = -o ]; then opts=,$2; shift 2; fi
    local src=${1:-$S/src} mnt=${2:-$S/mnt} state=${3:-$STATE}
    [ -n "${K42_IO:-}" ] && [[ $opts != *,io=* ]] && opts+=,io=$K42_IO
    timeout -k 5 "${K42_DAEMON_TIMEOUT:-900}" "$K42FS" -f -o "state=$state$opts" "$src" "$mnt" \
        2>"$S/log.$n" </dev/null 3>&- &
    local keeper=$! i
    K42_DAEMONS+=("$keeper:$mnt:$S/log.$n")
    for ((i = 0; i < 400; i++)); do
        if mountpoint -q "$mnt" && timeout 5 "$K42CTL" status "$mnt" >/dev/null 2>&1; then
            K42_HOLDER=$(pgrep -P "$keeper" | head -n 1)
            k42_find_worker "$mnt"
            export K42_HOLDER
            return 0
        fi
        kill -0 "$keeper" 2>/dev/null || break
        sleep 0.05
    done
    echo "the daemon did not come up:" >&2
    cat "$S/log.$n" >&2
    return 1
}

# k42_find_worker [MOUNTPOINT]: sets K42_WORKER and K42_PID to the worker that answers now.
k42_find_worker() {
    K42_WORKER=$(timeout 20 "$K42CTL" status --json "${1:-$S/mnt}" |
        sed -n 's/.*"worker_pid" *: *\([0-9]*\).*/\1/p')
    K42_PID=$K42_WORKER
    export K42_WORKER K42_PID
    [ -n "$K42_WORKER" ]
}

# k42_kill_worker [MOUNTPOINT]: kills the worker; the next one serves when it returns (see k42_find_worker).
k42_kill_worker() {
    local old=$K42_WORKER i
    k42_expect_log 'the worker was killed by signal 9'
    kill -KILL "$old" || return 1
    for ((i = 0; i < 200; i++)); do
        k42_find_worker "$@" && [ "$K42_WORKER" != "$old" ] && return 0
        sleep 0.05
    done
    echo "no other worker came" >&2
    return 1
}

# k42_kill_daemon: kills the holder and the worker of the last k42_mount, so that the mount is dead.
k42_kill_daemon() {
    # The holder is stopped so that it starts no other worker.  The worker dies first: it would end the mount when
    # the holder dies, even if it is stopped, because the kernel continues a process group that is orphaned then.
    kill -STOP "$K42_HOLDER"
    kill -KILL "$K42_WORKER" "$K42_HOLDER"
    local i
    for ((i = 0; i < 200; i++)); do
        ps -o stat= -p "$K42_HOLDER,$K42_WORKER" | grep -qv '^Z' || return 0 # a zombie is dead
        sleep 0.05
    done
    return 1
}

# k42_umount [MOUNTPOINT]: unmounts and waits until that daemon has ended.
k42_umount() {
    local mnt=${1:-$S/mnt} d m keeper i
    timeout 20 umount "$mnt" 2>/dev/null || timeout 20 fusermount3 -u "$mnt" || return 1
    for d in "${K42_DAEMONS[@]}"; do
        IFS=: read -r keeper m _ <<<"$d"
        [ "$m" = "$mnt" ] || continue # an earlier daemon of the same mount point has ended already
        for ((i = 0; i < 400; i++)); do
            kill -0 "$keeper" 2>/dev/null || continue 2
            sleep 0.05
        done
        echo "the daemon of $mnt did not end" >&2
        return 1
    done
}

# k42_expect_log REGEX: lines of the daemon's log that match are expected by this test.
k42_expect_log() { K42_EXPECTED_LOG+=("$1"); }

# k42_stat NAME [MOUNTPOINT]: one number of `k42ctl stats --json`, e.g. k42_stat lazy_reopens or
# k42_stat requests.ioctl.  Absent request kinds are 0.
k42_stat() {
    timeout 20 "$K42CTL" stats --json "${2:-$S/mnt}" | python3 -c '
import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."):
    v = v.get(k, 0)
print(v)' "$1"
}

# k42_counts_zero [MOUNTPOINT]: waits until nobody holds anything any more (the exit of a process and
# RELEASE are asynchronous); fails with the stats if that does not come.
k42_counts_zero() {
    local i
    for ((i = 0; i < 100; i++)); do
        if [ "$(k42_stat handles "$@")" = 0 ] && [ "$(k42_stat descriptions "$@")" = 0 ]; then
            return 0
        fi
        sleep 0.1
    done
    "$K42CTL" stats "${1:-$S/mnt}" >&2
    "$K42CTL" list "${1:-$S/mnt}" >&2
    return 1
}

# k42_forget [MOUNTPOINT]: the kernel drops what it has cached of this mount and nobody uses, as a remount does for
# any file system; /proc/sys/vm/drop_caches would take it from the tests that run beside this one, too.
k42_forget() { timeout 60 mount -i -o remount "${1:-$S/mnt}"; }

# k42_objects_are_one: the kernel forgets what it has cached; then only the root is left at the daemon.
k42_objects_are_one() {
    local i
    for ((i = 0; i < 50; i++)); do
        k42_forget
        [ "$(k42_stat objects)" = 1 ] && return 0
        sleep 0.2
    done
    echo "objects: $(k42_stat objects)" >&2
    return 1
}

# k42_check [MOUNTPOINT]: P6, `k42ctl check` finds no difference.
k42_check() { timeout 60 "$K42CTL" check "${1:-$S/mnt}"; }

# k42_abort MINOR: ends a connection of which somebody is left whom no signal reaches.
k42_abort() {
    local at
    at=$(mktemp -d)
    if mount -t fusectl fusectl "$at" 2>/dev/null; then
        [ ! -e "$at/$1" ] || echo 1 >"$at/$1/abort"
        umount "$at"
    fi
    rmdir "$at"
}

# Ends and checks everything; call it in teardown().
k42_cleanup() {
    local d keeper mnt log i bad=0 line re known holder minor
    cd /
    for d in "${K42_DAEMONS[@]}"; do
        IFS=: read -r keeper mnt log <<<"$d"
        if kill -0 "$keeper" 2>/dev/null; then
            minor=$(awk -v at="$mnt" '$5 == at { split($3, n, ":"); print n[2] }' /proc/self/mountinfo | tail -n 1)
            timeout 10 umount "$mnt" 2>/dev/null || timeout 10 fusermount3 -u "$mnt" 2>/dev/null ||
                { umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt"; }
            for ((i = 0; i < 200; i++)); do kill -0 "$keeper" 2>/dev/null || break; sleep 0.05; done
            if kill -0 "$keeper" 2>/dev/null; then
                echo "LEFT: the daemon of $mnt did not end after umount" >&2
                for holder in $(pgrep -P "$keeper"); do
                    kill -KILL "$holder" $(pgrep -P "$holder") 2>/dev/null
                done
                kill -KILL "$keeper" 2>/dev/null; bad=1
                [ -z "$minor" ] || k42_abort "$minor"
            fi
        fi
        wait "$keeper" 2>/dev/null
        # Twice, because a look at /proc/mounts while others mount and unmount is no snapshot.
        if grep -qs " $mnt fuse" /proc/mounts && sleep 0.2 && grep -qs " $mnt fuse" /proc/mounts; then
            echo "LEFT: $mnt is still mounted" >&2; bad=1
            umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt"
        fi
        while IFS= read -r line; do
            known=
            for re in "${K42_EXPECTED_LOG[@]}"; do [[ $line =~ $re ]] && known=1; done
            [ -n "$known" ] || { echo "UNEXPECTED in the daemon's log: $line" >&2; bad=1; }
        done <"$log"
    done
    if [ -e "$STATE" ] && [ -z "${K42_STATE_STAYS:-}" ]; then
        echo "LEFT: the state directory: $(ls -A "$STATE" | tr '\n' ' ')" >&2; bad=1
    fi
    [ "$STATE" = "$S/state" ] || rm -rf --one-file-system "$STATE"
    rm -rf --one-file-system "$S"
    return $bad
}
