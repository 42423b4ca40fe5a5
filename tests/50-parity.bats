#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Promise P1, call by call: tests/posix/parity makes the same system calls in the backing directory and on the
# mount.  What may differ is in tests/posix/known_differences.txt, with reasons; an entry that does not
# differ any more fails.

load lib

setup() {
    PARITY=$K42_BUILD/tests/posix/parity
    k42_scratch
}
teardown() { k42_cleanup; }

# parity_says STATUS ARGUMENTS…: its output is shown when the status is another one.
parity_says() {
    local want=$1 got=0
    shift
    timeout -k 5 "${K42_PARITY_TIMEOUT:-500}" "$PARITY" "$@" >"$S/parity.out" 2>&1 || got=$?
    tail -n 1 "$S/parity.out"
    [ "$got" = "$want" ] && return 0
    head -n 40 "$S/parity.out"
    echo "parity ended with $got, not $want"
    return 1
}

# $S/copy: the program where an ordinary user can run it, and a backing directory of his own.
for_nobody() {
    [ "$(id -u)" = 0 ] || skip "only root can become another user"
    command -v setpriv >/dev/null || skip "no setpriv"
    cp "$PARITY" "$S/parity"
    cp "$K42_TESTS/posix/known_differences.txt" "$S/known"
    PARITY=$S/parity
    chown $NOBODY:$NOBODY "$S/src" "$S/mnt"
}

@test "two directories of one file system do not differ" {
    mkdir "$S/other"
    for _ in 1 ${K42_SOAK:+2 3}; do parity_says 0 "$S/src" "$S/other" --known none; done
    [ "$(sed -n 's/ steps.*//p' "$S/parity.out")" -ge 10000 ]
}

@test "nor for an ordinary user" {
    for_nobody
    mkdir "$S/other"
    for _ in 1 ${K42_SOAK:+2 3}; do parity_says 0 "$S/src" "$S/other" --known none --user $NOBODY:$NOBODY; done
}

@test "directories of different file systems do differ" {
    [ "$(stat -f -c %T "$S")" != tmpfs ] || skip "the scratch directory is a tmpfs, too"
    [ "$(stat -f -c %T /dev/shm)" = tmpfs ] || skip "/dev/shm is no tmpfs"
    local other
    other=$(mktemp -d /dev/shm/k42test.XXXXXX)
    parity_says 1 "$S/src" "$other" --known none || { rm -rf "$other"; false; }
    rmdir "$other" # nothing is left there
    [ "$(grep -c ': backing: ' "$S/parity.out")" -ge 100 ]
    grep -q '^rename_types/' "$S/parity.out"
    grep -q '^fallocate/COLLAPSE_RANGE' "$S/parity.out"
}

@test "a known difference that does not differ is reported" {
    mkdir "$S/other"
    printf 'read/open\t*\tbecause\n' >"$S/known"
    parity_says 1 "$S/src" "$S/other" --known "$S/known" --only read
    grep -q 'known difference read/open: it does not differ any more' "$S/parity.out"
    printf 'read/no such\t*\tbecause\n' >"$S/known"
    parity_says 1 "$S/src" "$S/other" --known "$S/known" --only read
    grep -q 'known difference read/no such: no such step' "$S/parity.out"
    # not for another kind of run, and not without a reason
    printf 'read/open\tcounted\tbecause\n' >"$S/known"
    parity_says 0 "$S/src" "$S/other" --known "$S/known" --only read
    parity_says 1 "$S/src" "$S/other" --known "$S/known" --only read --tag counted
    printf 'read/open\t*\t\n' >"$S/known"
    parity_says 2 "$S/src" "$S/other" --known "$S/known" --only read
}

# root_mount IO [PARITY ARGUMENTS…]
root_mount() {
    local io=$1
    shift
    k42_skip_unless_fuse
    [ "$(id -u)" = 0 ] || skip "not root"
    k42_mount -o "io=$io"
    chmod 777 "$S/src"
    parity_says 0 "$S/src" "$S/mnt" --tag "$io" --tag rootdaemon "$@"
    [ -z "$(ls -A "$S/src")" ]
    k42_counts_zero
    k42_umount
}

# Every class is met by root or by a user each time; both in each by soak.
soak_only() { [ -n "${K42_SOAK:-}" ] || skip "only in ./test soak"; }

@test "root on root's mount, io=auto" { root_mount auto; }
@test "an ordinary user on root's mount, io=auto" { for_nobody; root_mount auto --user $NOBODY:$NOBODY; }
@test "root on root's mount, io=cached" { root_mount cached; }
@test "root on root's mount, io=counted" { soak_only; root_mount counted; }
@test "root on root's mount, io=fast" { root_mount fast; }
@test "an ordinary user on root's mount, io=fast" { soak_only; for_nobody; root_mount fast --user $NOBODY:$NOBODY; }
@test "an ordinary user on root's mount, io=cached" { soak_only; for_nobody; root_mount cached --user $NOBODY:$NOBODY; }
@test "an ordinary user on root's mount, io=counted" { for_nobody; root_mount counted --user $NOBODY:$NOBODY; }

# A daemon that an ordinary user runs, mounted by fusermount3; only he can look into it.
in_namespace() {
    k42_nobody_mount "io=$1"
    as_nobody timeout -k 5 500 "$PARITY" "$S/src" "$S/mnt" --known "$S/known" --tag "$1" --tag userdaemon \
        >"$S/parity.out" 2>&1
    echo $? >"$S/parity.status"
    as_nobody fusermount3 -u "$S/mnt"
    wait "$K42_KEEPER"
    echo $? >"$S/daemon.status"
}

user_mount() {
    k42_skip_unless_fuse
    for_nobody
    k42_skip_unless_nobody_mounts
    export PARITY
    k42_in_namespace 700 in_namespace "$1"
    tail -n 1 "$S/parity.out"
    cat "$S/log.user"
    [ ! -s "$S/log.user" ]
    [ "$(cat "$S/parity.status")" = 0 ] || { head -n 40 "$S/parity.out"; return 1; }
    [ "$(cat "$S/daemon.status")" = 0 ]
    [ ! -e "$S/run/state" ]
    [ -z "$(ls -A "$S/src")" ]
}

@test "an ordinary user on his own mount, io=cached" { user_mount cached; }
@test "an ordinary user on his own mount, io=counted" { user_mount counted; }
