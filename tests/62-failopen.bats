#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# P10: the shim never breaks a program when the daemon is absent, dead, slow or lying.  In each case
# the program with the shim must say, byte for byte, what the same program says without it.

load lib
load fork/fork

setup() {
    k42_skip_unless_fuse
    k42_scratch
    LIAR=
}
teardown() {
    stop_touch
    if [ -n "$LIAR" ]; then
        umount -l "$S/mnt" 2>/dev/null || true
        kill "$LIAR" 2>/dev/null || true
    fi
    k42_cleanup
}

run_programs() {
    local out=$1 dir=$2
    shift 2
    mkdir "$dir"
    timeout -k 5 600 "$@" "$K42_TESTS/fork/programs.sh" "$dir" >"$out" 2>&1 3>&- ||
        { echo "programs.sh: status $?" >&2; tail -n 5 "$out" >&2; return 1; }
    grep -q '^done$' "$out"
}

# start_liar LIE
start_liar() {
    timeout -k 5 1500 "$FORK/liar" "$S/src" "$S/mnt" "$1" 2>"$S/liar.log" </dev/null 3>&- &
    LIAR=$!
    local i
    for ((i = 0; i < 200; i++)); do mountpoint -q "$S/mnt" && return 0; sleep 0.05; done
    cat "$S/liar.log" >&2
    return 1
}
stop_liar() {
    timeout 20 umount "$S/mnt"
    wait "$LIAR"
    LIAR=
}

# The holder and all below it: the worker, and what that may have started.
daemon_pids() {
    local keeper=${K42_DAEMONS[0]%%:*} level
    level=$(pgrep -P "$keeper" || true)
    while [ -n "$level" ]; do
        echo "$level"
        level=$(pgrep -P "$(echo "$level" | paste -sd,)" || true)
    done
}

@test "no daemon: real programs" {
    run_programs "$S/native" "$S/src/n"
    run_programs "$S/shim" "$S/src/s" "$K42RUN" --
    same_output "$S/native" "$S/shim"
}

@test "no daemon: the shim by LD_PRELOAD alone, without k42run" {
    run_programs "$S/native" "$S/src/n"
    run_programs "$S/shim" "$S/src/s" env LD_PRELOAD="$K42SHIM"
    same_output "$S/native" "$S/shim"
    run_matrix "$S/m.native" "$S/src/m"
    run_matrix "$S/m.shim" "$S/src/m" env LD_PRELOAD="$K42SHIM"
    same_output "$S/m.native" "$S/m.shim"
}

@test "a good daemon: real programs, with and without the shim" {
    run_programs "$S/native" "$S/src/n"
    k42_mount
    run_programs "$S/plain" "$S/mnt/p"
    same_output "$S/native" "$S/plain"
    run_programs "$S/shim" "$S/mnt/s" "$K42RUN" --
    same_output "$S/native" "$S/shim"
    k42_counts_zero
}

# What a process with open descriptors sees when the holder and the worker are killed: its own errors, no signal,
# no hang.
after_the_death() {
    local name=$1 verb
    shift
    make_files 4
    mkdir -p "$S/else"
    make_files 1 "$S/else"
    k42_mount -o io=cached # reads of the class fast would go on
    start_touch "$@"
    t r open "$S/mnt" 4
    t r path "$S/else/f00000"
    t r stream 2
    child c
    t c touch 0 1
    k42_kill_daemon
    sleep 0.3
    : >"$S/$name"
    for verb in "read 0 5" "read 1 5" "getc 2 5" "read 4 6" "seek 3 7" "offset 3" "dup 1" "dup2 4 0" \
        "read 0 4" "close 1 2" "path $S/mnt/f00000" "path $S/else/f00000" "forks 5"; do
        for who in c r; do
            t "$who" $verb 2>/dev/null && echo "$who $verb: ok $T" >>"$S/$name" ||
                echo "$who $verb: $T" >>"$S/$name"
        done
    done
    t c exec
    t c read 3 5 2>/dev/null && echo "exec: ok $T" >>"$S/$name" || echo "exec: $T" >>"$S/$name"
    t c read 4 2 && echo "exec: ok $T" >>"$S/$name"
    gone c r
    t r exit
    wait "$TOUCH_JOB"
    umount -l "$S/mnt"
    K42_STATE_STAYS=1
}

@test "the daemon is killed: descriptors answer ENOTCONN, with the shim as without" {
    k42_expect_log '.*'
    after_the_death plain env
    local first=${K42_DAEMONS[0]%%:*}
    wait "$first" 2>/dev/null || true
    rm -rf "$S/state"
    K42_DAEMONS=()
    after_the_death shim "$K42RUN" --
    sed -i "s/=[0-9]*//" "$S/plain" "$S/shim"
    same_output "$S/plain" "$S/shim"
    grep -q 'c read 1 5: no ENOTCONN' "$S/plain"
    grep -q 'c read 4 6: ok f00000' "$S/plain"
}

@test "the daemon is killed while the matrix runs elsewhere: that goes on" {
    k42_expect_log '.*'
    make_files 4
    run_matrix "$S/native" "$S/src/m"
    mkdir "$S/elsewhere"
    k42_mount
    # the matrix inherits descriptors of the mount that will die
    run_matrix "$S/shim" "$S/elsewhere" "$K42RUN" -- sh -c 'exec "$@"' sh \
        8<"$S/mnt/f00000" 9<"$S/mnt" &
    local job=$!
    sleep 0.3
    k42_kill_daemon
    wait "$job"
    same_output "$S/native" "$S/shim"
    umount -l "$S/mnt"
    K42_STATE_STAYS=1
}

@test "the daemon is stopped for two seconds: everything waits, then all is right" {
    run_matrix "$S/native" "$S/src/m"
    k42_mount
    run_matrix "$S/shim" "$S/mnt/m" "$K42RUN" -- &
    local job=$! pids
    sleep 1
    pids=$(daemon_pids)
    # shellcheck disable=SC2086
    {
        kill -STOP $pids
        sleep 2
        kill -CONT $pids
    }
    wait "$job"
    same_output "$S/native" "$S/shim"
    k42_counts_zero
}

@test "the daemon is stopped while a child touches" {
    make_files 3
    k42_mount
    start_touch
    t r open "$S/mnt" 3
    child c
    local pids
    pids=$(daemon_pids)
    # shellcheck disable=SC2086
    kill -STOP $pids
    (
        sleep 2
        # shellcheck disable=SC2086
        kill -CONT $pids
    ) 3>&- &
    t c touch 0 3
    t c read 0 4
    [ "$T" = 0000 ]
    k42_check
    gone c r
    t r exit
    k42_counts_zero
}

# each LIE…: a child that forks and touches in 27 ways says what it says without the shim.
each() {
    local lie
    mkdir "$S/src/m"
    timeout 600 "$FORK/matrix" --only fork/ "$S/src/m" >"$S/native" 2>/dev/null
    for lie in "$@"; do
        start_liar "$lie"
        [ -e "$S/plain" ] || timeout 600 "$FORK/matrix" --only fork/ "$S/mnt/m" >"$S/plain" 2>/dev/null
        same_output "$S/native" "$S/plain"
        timeout 600 "$K42RUN" -- "$FORK/matrix" --only fork/ "$S/mnt/m" >"$S/$lie" 2>/dev/null ||
            { echo "$lie: status $?"; return 1; }
        same_output "$S/plain" "$S/$lie"
        stop_liar
    done
}

@test "a liar: errors" {
    each EIO EPERM ENOSPC ENOTTY ENOSYS EINTR EAGAIN ENOMEM EBADF EACCES EPROTONOSUPPORT
}

@test "a liar: versions, lengths, tokens, noise" { each truth echo zero version length huge random; }

@test "a liar: short answers, no answer, a result that is none" { each short header empty result; }

@test "a liar: a second late, then always late" { each delay; }

@test "a liar: the whole matrix" {
    run_matrix "$S/native" "$S/src/m"
    for lie in random ${K42_SOAK:+EIO}; do # EIO is among the errors above, with fork alone
        start_liar "$lie"
        run_matrix "$S/$lie" "$S/mnt/m" "$K42RUN" --
        same_output "$S/native" "$S/$lie"
        stop_liar
    done
}

@test "a liar: real programs" {
    run_programs "$S/native" "$S/src/n"
    for lie in huge ENOSPC short; do
        start_liar "$lie"
        rm -rf "$S/src/n" "$S/src/s"
        run_programs "$S/plain" "$S/mnt/n"
        run_programs "$S/shim" "$S/mnt/s" "$K42RUN" --
        same_output "$S/native" "$S/plain"
        same_output "$S/plain" "$S/shim"
        stop_liar
    done
}
