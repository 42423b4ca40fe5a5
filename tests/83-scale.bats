#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# A large state: how long the next worker takes until it serves, with many nodes known and many files open.
# With K42_SOAK it is 200,000 nodes and 10,000 open files; else a quarter of that.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    # 200,000 files are made and removed in a second there, and on a busy disk in minutes
    [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] || skip "no tmpfs at /dev/shm"
    SOURCE=$(mktemp -d /dev/shm/k42source.XXXXXX)
}
teardown() {
    k42_cleanup || LEFT=1
    [ -z "${SOURCE:-}" ] || rm -rf --one-file-system "$SOURCE"
    [ -z "${LEFT:-}" ]
}

# resumed CLASS: the goal is a second of the worker's own time, because the clock on the wall is also other
# programs' on a machine that does something else.  A sanitizer's build does the same work, at its own speed.
resumed() {
    local files=50000 handles=2500 goal=1000 node_count
    [ -z "${K42_SOAK:-}" ] || files=200000 handles=10000
    [[ $K42_BUILD != *-?san ]] || goal=20000
    [ "$(ulimit -Hn)" -ge $((handles + 1000)) ] || skip "no more than $(ulimit -Hn) descriptors"
    k42_mount -o "io=$1,entry_timeout=3600,attr_timeout=3600" "$SOURCE"
    k42_expect_log 'the worker was killed by signal 9'
    run timeout 300 "$K42_BUILD/tests/survive/scale" "$files" "$handles" 5 "$goal" "$SOURCE" "$S/mnt" "$K42_HOLDER"
    echo "# $BATS_TEST_DESCRIPTION" >&3
    printf '#   %s\n' "${lines[@]}" >&3
    [ "$status" = 0 ]
    # none was lost, and asked for again by name: the directories and the root are nodes, too
    node_count=$(k42_stat objects)
    echo "objects: $node_count"
    [ "$node_count" -ge $((files + files / 1000 + 1)) ]
    [ "$(timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"restarts" *: *\([0-9]*\).*/\1/p')" = 5 ]
    k42_counts_zero
    k42_umount
    [ ! -e "$S/state" ]
}

@test "many nodes and open files: the next worker serves in less than a second, fast" { resumed fast; }
@test "many nodes and open files: the next worker serves in less than a second, counted" {
    [ -n "${K42_SOAK:-}" ] || skip "only with K42_SOAK"
    resumed counted
}
