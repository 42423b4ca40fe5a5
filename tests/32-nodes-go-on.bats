#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Nodes and open files when the daemon is killed: they go on under their ids, what has no name any more
# included; what is not the same file any more is never taken for it; and nothing is left behind.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
}

teardown() {
    [ -z "${S:-}" ] || umount -l "$S/src" 2>/dev/null || true # where a test has put a file system
    k42_cleanup
}

# [IO] as in -o io=: everything that can be open goes on.
goes_on() {
    k42_mount -o "io=$1"
    k42_expect_log 'the worker was killed by signal 9'
    timeout 60 python3 "$K42_TESTS/fusefs/goes_on.py" "$S/mnt" "$K42CTL" "$2"
    k42_check
}

# Parked are: gone, replaced, nameless, path-gone, cwd.
@test "what is open goes on when the daemon is killed" { goes_on auto 5; }
@test "the same, through the page cache" { goes_on cached 5; }
@test "the same, counted" { goes_on counted 5; }

# There are no file handles for an ordinary user: every open file's descriptor is parked, 13 more.
in_namespace() {
    k42_nobody_mount
    as_nobody timeout 60 /usr/bin/python3 "$K42_TESTS/fusefs/goes_on.py" "$S/mnt" "$K42CTL" 18
    echo $? >"$S/status"
    as_nobody fusermount3 -u "$S/mnt"
    wait "$K42_KEEPER"
}

@test "the same for an ordinary user, who has no file handles" {
    [ -x /usr/bin/python3 ] || skip "no python3 for an ordinary user"
    k42_skip_unless_nobody_mounts
    run k42_in_namespace 120 in_namespace
    echo "$output"
    cat "$S/log.user"
    [ "$status" = 0 ]
    [ "$(grep -vc 'the worker was killed by signal 9' "$S/log.user")" = 0 ]
    [ "$(cat "$S/status")" = 0 ]
    [ ! -e "$S/run/state" ]
}

# COMMAND…: runs it while nobody serves the mount.
while_dead() {
    k42_find_worker
    k42_expect_log 'the worker was killed by signal 9'
    local old=$K42_WORKER i
    kill -STOP "$K42_HOLDER"
    kill -KILL "$old"
    for ((i = 0; i < 100; i++)); do
        ps -o stat= -p "$old" | grep -qv '^Z' || break
        sleep 0.02
    done
    "$@"
    kill -CONT "$K42_HOLDER"
    for ((i = 0; i < 100; i++)); do
        k42_find_worker && [ "$K42_WORKER" != "$old" ] && return 0
        sleep 0.05
    done
    return 1
}

others_change() {
    echo new >"$S/src/new"
    mv "$S/src/new" "$S/src/replaced"
    mv "$S/src/moved" "$S/src/there"
    echo longer >>"$S/src/grown"
    rm "$S/src/removed"
    mv "$S/src/dir" "$S/src/newdir"
}

@test "what others change while the daemon is dead is seen at once" {
    local opts=""
    [ "$(id -u)" = 0 ] && opts=entry_timeout=3600,attr_timeout=3600,coherent
    mkdir "$S/src/dir"
    for f in replaced moved grown removed dir/file; do echo old >"$S/src/$f"; done
    k42_mount ${opts:+-o $opts}
    cat "$S"/mnt/{replaced,moved,grown,removed,dir/file} >/dev/null
    ls -lR "$S/mnt" >/dev/null
    exec 5<"$S/mnt/replaced"
    while_dead others_change
    timeout 10 bash -c "until [ \"\$(cat $S/mnt/replaced)\" = new ]; do sleep 0.1; done"
    [ "$(cat "$S/mnt/there")" = old ]
    [ "$(stat -c %s "$S/mnt/grown")" = 11 ]
    [ ! -e "$S/mnt/removed" ]
    [ ! -e "$S/mnt/moved" ]
    [ "$(cat "$S/mnt/newdir/file")" = old ]
    # It was replaced, and nobody could park it: never another file's data.
    run -0 bash -c 'timeout 5 cat <&5 2>&1 || true'
    [[ $output == *Stale* || $output == old ]]
    exec 5<&-
    k42_counts_zero
}

@test "lookup counts stay exact when the daemon is killed" {
    need_root "to have the kernel drop what it has cached"
    mkdir -p "$S/src/t"/{1..20}
    for d in {1..20}; do touch "$S/src/t/$d"/f{1..20}; done
    k42_mount
    for i in 1 2 3; do
        ls -lR "$S/mnt" >/dev/null
        k42_kill_worker
        ls -lR "$S/mnt" >/dev/null
        mv "$S/mnt/t/1/f$i" "$S/mnt/t/2/g$i"
        rm "$S/mnt/t/3/f$i"
    done
    [ "$(k42_stat objects)" -gt 400 ]
    k42_kill_worker
    for ((i = 0; i < 50; i++)); do
        k42_forget
        [ "$(k42_stat objects)" = 1 ] && break
        sleep 0.2
    done
    [ "$(k42_stat objects)" = 1 ]
}

@test "what is removed frees its blocks, though the daemon was killed while it was open" {
    need_root "for a file system of its own"
    mount -t tmpfs -o size=64m,mode=755 k42test "$S/src" || skip "cannot mount a tmpfs"
    k42_mount
    local before i
    before=$(stat -f -c %f "$S/src")
    head -c 10000000 /dev/urandom | tee "$S/src/a" "$S/src/b" >"$S/src/c"
    exec 5<"$S/mnt/a" 6<"$S/mnt/b"
    cat "$S/mnt/c" >/dev/null # kept ready for another open, for a moment
    k42_kill_worker
    rm "$S/mnt/a" "$S/mnt/c"
    k42_kill_worker
    [ "$(head -c 100 <&5 | wc -c)" = 100 ]
    k42_kill_worker
    rm "$S/mnt/b"
    exec 5<&- 6<&-
    for ((i = 0; i < 100; i++)); do
        [ "$(stat -f -c %f "$S/src")" = "$before" ] && break
        sleep 0.05
    done
    [ "$(stat -f -c %f "$S/src")" = "$before" ]
    [ "$(k42_stat parked)" = 0 ]
    k42_umount
    umount "$S/src"
}
