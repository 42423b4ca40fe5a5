#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the next daemon needs is broken while there is none.  It goes on with what it can verify, answers
# ESTALE for the rest, says so in a line, and never gives anybody another file's data; at the end nothing
# is left.
# tests/broken/broken.py holds files, directories and locks, and has the steps.  K42_SOAK: all of them, in all
# classes, and many more rounds.  K42_SEED repeats a run.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    k42_state_in_memory
    k42_expect_log 'the worker was killed by signal 9'
    k42_expect_log 'files that are open in a way that is not known any more: [0-9]+;'
    SEED=${K42_SEED:-$RANDOM}
}
teardown() { k42_cleanup; [ -z "${TMPFS:-}" ] || umount -l "$TMPFS"; }

# broken STEP…: in class $IO.
broken() {
    echo "seed $SEED, class $IO"
    timeout 600 python3 "$K42_TESTS/broken/broken.py" "$S/mnt" "$S/src" "$STATE" "$K42CTL" "$@"
}

# classes STEP…: in each class that there is time for, with a mount of its own.
classes() {
    local IO
    for IO in counted ${K42_SOAK:+cached fast}; do
        k42_mount -o "io=$IO"
        broken "$@"
        k42_umount
        [ ! -e "$STATE" ]
    done
}

# said N REGEX: so many lines of the daemon's log match.
said() {
    [ "$(grep -c "$2" "$S/log.0")" = "$1" ] || { cat "$S/log.0"; return 1; }
}

@test "damaged files in the state directory" {
    k42_expect_log '(keep|requests): is made anew'
    k42_expect_log 'damaged parts are not used'
    k42_expect_log 'records of .* dropped'
    k42_expect_log '(journal|state.db): .* (not used|made again)'
    k42_expect_log 'a counter of ids is damaged'
    classes keep:garbage requests:garbage "all journal:garbage" "all state.db:garbage" \
        ${K42_SOAK:+keep:zeros keep:empty keep:short requests:zeros requests:empty requests:short \
        requests:head keep:head "all journal:empty" "all journal:newer" "all journal:short" \
        "all state.db:empty" "all state.db:locked"}
    [ -n "${K42_SOAK:-}" ] && return
    said 1 'keep: is made anew, and what was open is stale: it is damaged$'
    said 1 'requests: is made anew, and what was under way may fail: it is damaged$'
    said 1 'journal: what an earlier daemon wrote here is not used: it is damaged$'
    said 1 'state.db: is not used any more and was moved'
}

@test "files of the state directory are gone, or others, and then the directory: all goes on" {
    k42_expect_log '(journal|state.db|reopen|.mount.).*: No such file or directory'
    k42_expect_log 'state.db: was removed, and made again'
    # when the directory was removed there is no file of that name
    classes "all keep:replaced" ${K42_SOAK:+"all requests:replaced"} "all state:removed"
}

@test "the same, by name" {
    [ -n "${K42_SOAK:-}" ] || skip "only with K42_SOAK"
    k42_expect_log 'journal: .*: No such file or directory'
    k42_expect_log 'state.db: was removed, and made again'
    classes "all state.db:missing" "all journal:missing" "all keep:missing" "all requests:missing"
}

@test "no room in the state directory" {
    need_root "for a small file system"
    k42_expect_log 'journal: .*(No space left|No such file)'
    k42_expect_log 'no room for what should survive'
    k42_expect_log 'state.db: .*(disk is full|No space left|kept in memory)'
    local IO
    for IO in counted ${K42_SOAK:+cached fast}; do
        STATE=$S/state
        mkdir "$S/state"
        mount -t tmpfs -o size=60m,mode=700 k42test "$S/state" || skip "cannot mount a tmpfs"
        TMPFS=$S/state
        k42_mount -o "io=$IO"
        broken "all state:full"
        k42_umount
        [ -z "$(ls -A "$S/state")" ]
        umount "$S/state"
        TMPFS=
        rmdir "$S/state"
    done
}

@test "file handles that are wrong, of files that are what they were: found by name" {
    need_root "an ordinary user has no file handles"
    classes keep:handles
}

@test "what is open is not known any more: found by name, in all classes" {
    k42_expect_log 'records of open files could not be used again'
    local IO
    for IO in counted cached fast; do
        k42_mount -o "io=$IO"
        broken keep:descriptions
        k42_umount
        [ ! -e "$STATE" ]
    done
}

@test "a state directory where nothing can be written any more: all goes on" {
    need_root "to make a directory read-only for root"
    STATE=$S/state
    touch "$S/immutable"
    chattr +i "$S/immutable" 2>/dev/null || skip "this file system has no immutable files"
    chattr -i "$S/immutable"
    k42_expect_log '(journal|state.db|mount|reopen).*: (Operation not permitted|Read-only file system)'
    k42_expect_log 'keep: cannot be written to any more: it goes on in memory$'
    classes "all state:readonly"
}

@test "SOURCE is moved and another directory is there: the mount goes on with what it had" {
    local IO
    for IO in counted cached fast; do
        k42_mount -o "io=$IO"
        broken "all source:replaced"
        k42_umount
        rm -r "$S/src"
        mv "$S/src.moved" "$S/src"
    done
}

@test "a few bytes are changed, anywhere" {
    k42_expect_log '(keep|requests): (is made anew|[0-9]+ damaged parts)'
    k42_expect_log '(keep|requests): (what it has of a request|a counter of ids)'
    k42_expect_log 'records of .* dropped'
    k42_expect_log '(journal|state.db): .* (not used|made again)'
    k42_expect_log 'EIO$'
    classes "random:$SEED:${K42_SOAK:+20}5"
}

@test "others change SOURCE behind everybody's back" {
    classes "source:$SEED:${K42_SOAK:+10}4"
}
