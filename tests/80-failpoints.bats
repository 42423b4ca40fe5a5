#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The daemon dies between any two steps, and every operation is made exactly once all the same.
# tests/once/once.c makes the operations and compares; a failpoint that nothing died in is a failure.
#
# K42_SOAK: every operation with every failpoint that it passes, in all classes; and again while the next daemon
# resumes: some 6,000 places in each.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    k42_state_in_memory
    [ -z "${K42_SOAK:-}" ] || K42_DAEMON_TIMEOUT=40000
    k42_expect_log 'the worker was killed by signal 9'
    "$K42FS" --list-failpoints >"$S/points.all"
    # what only happens without the right to open every file, see the test of an ordinary user
    grep -v '^make-again$' "$S/points.all" >"$S/points"
}
teardown() { k42_cleanup; }

once() { timeout "$([ -n "${K42_SOAK:-}" ] && echo 40000 || echo 540)" "$K42_BUILD/tests/once/once" "$S/mnt" "$S/src" "$STATE" "$@"; }

# What there was before is all that there is afterwards: nodes whose count is in doubt go after a while.
nothing_is_left() {
    local i
    k42_counts_zero || return 1
    for ((i = 0; i < 60; i++)); do
        [ "$(k42_stat objects)" = 1 ] && [ "$(k42_stat fds)" -le "$1" ] && return 0
        ls "$S/mnt" >/dev/null
        sleep 0.5
    done
    echo "$1 descriptors at the beginning; and now:"
    "$K42CTL" stats "$S/mnt"
    return 1
}

@test "each operation is made exactly once, wherever the daemon dies" {
    k42_mount -o io=counted
    local fds=$(($(k42_stat fds) + 4))
    run -0 once "$S/points" "$([ -n "${K42_SOAK:-}" ] && echo all || echo fast)"
    nothing_is_left $fds
    k42_umount
}

in_class() {
    [ -n "${K42_SOAK:-}" ] || skip "only with K42_SOAK"
    k42_mount -o "io=$1"
    local fds=$(($(k42_stat fds) + 4))
    # no operation on data gets to the daemon in the class fast
    grep -v -e '^write-' -e '^count' "$S/points" >"$S/points.$1"
    run -0 once "$S/points.$1" all
    nothing_is_left $fds
    k42_umount
}
@test "the same with the page cache" { in_class cached; }
@test "the same with the kernel's own reads and writes" { in_class fast; }

@test "who is killed in an open that the daemon died in leaves no doubt how the file is open" {
    need_root "for the class fast"
    k42_mount -o io=fast
    [ "$(timeout 20 "$K42CTL" status "$S/mnt" | sed -n 's/^class: //p')" = fast ] || skip "no class fast here"
    local fds=$(($(k42_stat fds) + 4)) point
    for point in describing described; do
        run -0 once "$S/points" killed-open "$point,resent,replay-init,replay-init"
        [ "${lines[0]}" = died ]
    done
    nothing_is_left $fds
    k42_umount
}

# On nobody's own mount.  Operations and where to die come on stdin.
once_as_nobody() {
    local operation spec
    k42_nobody_mount
    while read -r operation spec; do
        as_nobody timeout 60 "$K42_BUILD/tests/once/once" "$S/mnt" "$S/src" "$S/run/state" "$S/points.all" \
            "$operation" "$spec" >"$S/out" || { cat "$S/out"; echo "FAILED: $operation $spec"; }
        grep -qx died "$S/out" || echo "no death: $operation $spec"
    done
    as_nobody timeout 20 fusermount3 -u "$S/mnt"
    wait
}

@test "an ordinary user's mount" {
    k42_skip_unless_nobody_mounts
    run -0 k42_in_namespace 300 once_as_nobody <<EOF
create-readonly create-done,open-made
create-readonly create-called,make-again
create-excl create-called
unlink-open remove-called
rename-over-open rename-called
tmpfile link-called
append-only write-called
write reply
EOF
    echo "$output"
    [ -z "$output" ]
    [ ! -e "$S/run/state" ]
    [ -z "$(ls -A "$S/src")" ]
}

@test "a kernel that cannot send requests again" {
    export K42_WITHOUT_RESEND=1
    k42_mount -o io=counted
    [ "$("$K42CTL" status "$S/mnt" | sed -n 's/^ *resend: //p')" = no ]
    local fds=$(($(k42_stat fds) + 4)) operation spec
    if [ -n "${K42_SOAK:-}" ]; then
        # what is only done with requests that are sent again, or not
        grep -v -x -e serve-gone -e found-orphan -e doubted "$S/points" >"$S/points.without"
        run -0 once "$S/points.without" all
    fi
    while read -r operation spec; do
        run -0 once "$S/points" "$operation" "$spec"
        [ "${lines[0]}" = died ]
    done <<EOF
create-excl create-called
create-excl reply
create replying
mkdir mkdir-called,resend
setxattr setxattr-called
tmpfile serve
append write-called
rename-over-open rename-called
readdir replied:3
forget serve:3
EOF
    nothing_is_left $fds
    k42_umount
}

# arm POINTS: over the control socket.
arm() {
    python3 - "$STATE/control" "$1" <<'EOP'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(json.dumps({"verb": "failpoint", "args": {"points": sys.argv[2]}}).encode() + b"\n")
assert json.loads(s.makefile().readline())["ok"]
EOP
}

@test "a request that crashes three daemons is answered with EIO, and the mount goes on" {
    k42_expect_log 'EIO'
    k42_expect_log 'the worker was killed by signal 6'
    k42_mount
    # twice it is begun again, and the daemon crashes before the call
    arm '!mkdir-before,!mkdir-before,!mkdir-before'
    run -1 timeout 30 mkdir "$S/mnt/poison"
    [[ $output == *"Input/output error"* ]]
    [ ! -e "$S/src/poison" ]
    timeout 10 mkdir "$S/mnt/other"
    [ -d "$S/src/other" ]
    k42_umount
}

@test "a request that was under way in twelve daemons that somebody killed works all the same" {
    k42_mount
    arm "$(printf 'mkdir-before%.0s,' {1..11})mkdir-before"
    timeout 60 mkdir "$S/mnt/made"
    [ -d "$S/src/made" ]
    [ "$(timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"restarts" *: *\([0-9]*\).*/\1/p')" = 12 ]
    k42_umount
}
