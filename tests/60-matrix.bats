#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# P2: with and without the shim, a program that makes children in any way and hands them descriptors in
# any way cannot tell the mount from its backing directory.  The oracle is the same program
# (fork/matrix.c) on the backing directory, without anything of ours.

load lib
load fork/fork

# The oracle is asked once.  It is on the file system where the backing directories are made: entries come in the
# same order there.
setup_file() {
    export ORACLE=$BATS_FILE_TMPDIR/native
    k42_scratch
    run_matrix "$ORACLE" "$S/src/native"
    k42_cleanup
}
setup() {
    k42_skip_unless_fuse
    k42_scratch
}
teardown() { k42_cleanup; }

on_the_mount() {
    local io=$1
    k42_mount -o "io=$io"
    run_matrix "$S/$io-plain" "$S/mnt/plain"
    same_output "$ORACLE" "$S/$io-plain"
    run_matrix "$S/$io-shim" "$S/mnt/shim" "$K42RUN" --
    same_output "$ORACLE" "$S/$io-shim"
    k42_counts_zero
}

# a_child_each DIR [COMMAND…]: a child that makes its one call says what it says as one of many.  Of two ways to
# make children, one with the parent's image and one with a new one; soak takes them all.
a_child_each() {
    local dir=$1 only
    local -a ways=(fork/ posix_spawn/)
    shift
    [ -z "${K42_SOAK:-}" ] || ways=("")
    mkdir "$dir"
    for only in "${ways[@]}"; do
        timeout -k 5 600 "$@" "$FORK/matrix" --alone ${only:+--only "$only"} "$dir" >"$S/alone" 2>/dev/null
        same_output <(grep "^${only:-.*/}[^:]*: " "$ORACLE" | grep -v ': end ' | sort) \
            <(grep "^${only:-.*/}[^:]*: " "$S/alone" | grep -v ': end ' | sort)
        [ "$(grep -c ' child ' "$S/alone")" -ge 500 ]
    done
    rmdir "$dir"
}

@test "matrix: the oracle says the same twice, and with a child for each cell" {
    run_matrix "$S/again" "$S/src/again"
    same_output "$ORACLE" "$S/again"
    a_child_each "$S/src/alone"
    # it did what it says: every group, every child ended well, and it has something to say
    [ "$(grep -c ': end 0$' "$ORACLE")" = 243 ]
    [ "$(grep -c ': end ' "$ORACLE")" = 243 ]
    run ! grep 'child nothing' "$ORACLE"
    tail -n 1 "$ORACLE" | grep -q '^270 groups of 35 operations$'
}

@test "matrix: it notices what a bad shim would do" {
    mkdir "$S/src/bad"
    for how in private offset close leak flags bad; do
        timeout -k 5 600 env SPOIL="$how" LD_PRELOAD="$FORK/libspoiler.so" \
            "$FORK/matrix" --only fork/ "$S/src/bad" >"$S/bad" 2>/dev/null
        grep '^fork/[^:]*: ' "$ORACLE" >"$S/good"
        grep '^fork/[^:]*: ' "$S/bad" >"$S/bad.fork"
        diff "$S/good" "$S/bad.fork" | grep '^>' >"$S/seen" || { echo "$how: not noticed"; return 1; }
        # in a child that goes on, and in a new image; not in one that the shim does not get into
        for after in no-exec exec; do
            grep -q "^> fork/$after/" "$S/seen" || { echo "$how: not noticed in fork/$after"; return 1; }
        done
        run ! grep '^> fork/exec-cleared/' "$S/seen"
    done
}

@test "matrix: natively, the shim changes nothing" {
    run_matrix "$S/shim" "$S/src/shim" "$K42RUN" --
    same_output "$ORACLE" "$S/shim"
}

@test "matrix: io=cached is the backing directory, with and without the shim" { on_the_mount cached; }

@test "matrix: io=counted is the backing directory, with and without the shim" { on_the_mount counted; }

@test "matrix: io=fast is the backing directory, with and without the shim" { on_the_mount fast; }

@test "matrix: a child for each cell, on the mount with the shim" {
    k42_mount
    a_child_each "$S/mnt/alone" "$K42RUN" --
    k42_counts_zero
}

@test "matrix: an ordinary user on a mount that root made" {
    [ "$(id -u)" = 0 ] || skip "we are an ordinary user in all the other tests"
    local user="setpriv --reuid=65534 --regid=65534 --clear-groups"
    $user "$FORK/matrix" >/dev/null 2>&1 || [ $? = 2 ] || skip "an ordinary user cannot run $FORK/matrix"
    mkdir -m 777 "$S/src/plain" "$S/src/shim"
    k42_mount
    # shellcheck disable=SC2086
    {
        timeout 600 $user "$FORK/matrix" "$S/mnt/plain" >"$S/plain" 2>/dev/null
        timeout 600 $user "$K42RUN" -- "$FORK/matrix" "$S/mnt/shim" >"$S/shim" 2>/dev/null
    }
    same_output "$ORACLE" "$S/plain"
    same_output "$ORACLE" "$S/shim"
    k42_counts_zero
}

@test "matrix: an ordinary user on a mount of its own" {
    [ "$(id -u)" = 0 ] || skip "we are an ordinary user in all the other tests"
    local user="setpriv --reuid=65534 --regid=65534 --clear-groups" job i
    command -v fusermount3 >/dev/null || skip "no fusermount3"
    [ -r /dev/fuse ] && $user test -w /dev/fuse || skip "/dev/fuse is not for ordinary users here"
    chown -R 65534:65534 "$S"
    $user mkdir "$S/src/shim" "$S/src/plain"
    # shellcheck disable=SC2086
    timeout -k 5 1500 $user "$K42FS" -f -o "state=$S/state" "$S/src" "$S/mnt" 2>"$S/log.user" 3>&- &
    job=$!
    K42_DAEMONS+=("$job:$S/mnt:$S/log.user")
    for ((i = 0; i < 200; i++)); do $user mountpoint -q "$S/mnt" && break; sleep 0.05; done
    # shellcheck disable=SC2086
    {
        timeout 600 $user "$FORK/matrix" "$S/mnt/plain" >"$S/plain" 2>/dev/null
        timeout 600 $user "$K42RUN" -- "$FORK/matrix" "$S/mnt/shim" >"$S/shim" 2>/dev/null
    }
    same_output "$ORACLE" "$S/plain"
    same_output "$ORACLE" "$S/shim"
    $user fusermount3 -u "$S/mnt"
}
