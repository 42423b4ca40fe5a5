#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Promise P1 and P2, program by program: tests/posix/programs.sh does a job in an ordinary directory, on the
# mount, and on the mount with the shim; the three outputs must be the same.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    mkdir "$S/native"
}
teardown() { k42_cleanup; }

job() { # WHERE NAME DIR: runs it, its output in $S/out.WHERE
    local where=$1 status=0
    shift
    local -a with=()
    [ "$where" != shim ] || with=("$K42RUN" --)
    timeout -k 5 "${K42_JOB_TIMEOUT:-300}" "${with[@]}" /bin/bash "$K42_TESTS/posix/programs.sh" "$@" \
        >"$S/out.$where" 2>"$S/err.$where" 3>&- || status=$?
    if [ $status = 77 ]; then skip "$(sed -n 's/^SKIP: //p' "$S/out.$where")"; fi
    if [ $status != 0 ]; then
        echo "$where: status $status"
        tail -n 30 "$S/out.$where" "$S/err.$where"
        return 1
    fi
}

same() { # NAME
    job native "$1" "$S/native/job"
    [ -s "$S/out.native" ]
    k42_mount
    job mount "$1" "$S/mnt/job"
    diff "$S/out.native" "$S/out.mount"
    job shim "$1" "$S/mnt/shim"
    diff "$S/out.native" "$S/out.shim"
    # names of the scratch directory apart, nobody complained more than natively
    diff <(sed "s|$S/native/job|DIR|g" "$S/err.native") <(sed "s|$S/mnt/shim|DIR|g" "$S/err.shim")
    timeout 60 rm -rf "$S/mnt/job" "$S/mnt/shim"
    [ -z "$(ls -A "$S/src")" ]
    k42_counts_zero
    k42_check
    k42_umount
}

@test "git: clone, commit, merge, gc, fsck" { same git; }
@test "tar there and back" { same tar; }
@test "meson and ninja build this project" { K42_JOB_TIMEOUT=900 same build; }
@test "sqlite3: 1,000 transactions in four journal modes, and four writers" { same sqlite; }
@test "python3: zipfile, shutil, tempfile, mailbox, mmap, shelve, pool, locks" { same python; }
@test "cp -a, links, sparse files, to another file system and back" { same cp; }
@test "rsync -aHAX: the second run transfers nothing" { same rsync; }
@test "find with many predicates, du, ls" { same find; }
@test "perl's file tests and modules" { same perl; }
@test "make rebuilds what is out of date" { same make; }
@test "sort, sed -i, grep, awk, split, tail -f, inherited offsets" { same text; }
@test "dd: notrunc, append, seek, sparse, excl; fallocate" { same dd; }
@test "four processes fill a shared mapping" { same mmap; }
@test "8 processes append 1,000 lines each" { same append; }
@test "flock keeps a counter right" { same flock; }

@test "rm -rf of a large tree by two at once leaves nothing" {
    k42_mount
    timeout 120 bash -c 'mkdir "$1"/t && cd "$1"/t &&
        for i in $(seq 40); do mkdir d$i && (cd d$i && touch $(seq 100)); done' - "$S/mnt"
    timeout 60 rm -rf "$S/mnt/t" 2>"$S/err" &
    timeout 60 rm -rf "$S/mnt/t" 2>"$S/err2" || true
    wait $! || true
    # each may stumble over what the other removed, over nothing else
    run ! grep -v 'No such file or directory' "$S/err" "$S/err2"
    timeout 60 rm -rf "$S/mnt/t"
    [ -z "$(ls -A "$S/src")" ]
}
