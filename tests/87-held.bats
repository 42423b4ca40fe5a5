#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What was taken stays taken: over private mode, ways through the daemon, its death and its upgrade.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    echo contents >"$S/src/f"
}
teardown() {
    exec 7>&- 8>&-
    [ -z "${VICTIM:-}" ] || kill "$VICTIM" 2>/dev/null || true
    k42_cleanup
}

ctl() { timeout 60 "$K42CTL" "$@"; }

@test "REOPEN_BY_DAEMON is no way to more rights than were left, nor to what was revoked" {
    need_root "an ordinary user's daemon has no such socket"
    k42_mount -o io=counted
    timeout 120 python3 "$K42_TESTS/private/reopen_refused.py" "$S/state/reopen" "$S/mnt/f" "$K42CTL" "$S/mnt"
    k42_counts_zero
}

# A handle of private mode derives from one on another description.
@test "revoke --tree HANDLE finds the grandchild whose parent, in private mode, has ended" {
    k42_mount -o io=counted
    timeout 120 "$K42RUN" --fork=private python3 "$K42_TESTS/revoke/private_tree.py" "$S/mnt/f" "$K42CTL" \
        "$S/mnt"
    k42_counts_zero
}

@test "--block and allow over upgrades and a killed worker" {
    k42_mount -o io=counted
    k42_expect_log 'another program has taken over' # at an upgrade
    sleep 1000 &
    VICTIM=$!
    exec 7>>"$S/mnt/f"
    ctl revoke --block "$S/mnt/f"
    ctl revoke --block "$VICTIM" "$S/mnt"
    ctl upgrade "$S/mnt"
    run ! cat "$S/mnt/f"
    k42_find_worker
    k42_kill_worker
    run ! cat "$S/mnt/f"
    ctl allow "$S/mnt/f"
    ctl allow "$VICTIM" "$S/mnt"
    cat "$S/mnt/f"
    ctl upgrade "$S/mnt"
    cat "$S/mnt/f"
    run ctl allow "$VICTIM" "$S/mnt"
    [ "$status" = 1 ]
    # revoked is not blocked: that stays
    run ! sh -c 'printf x >&7'
    [ "$(cat "$S/src/f")" = contents ]
}

@test "p9: rights only shrink in random trees, while the worker is killed" {
    local seed=${K42_SEED:-$((RANDOM * 32768 + RANDOM))} kills=2 steps=100 i
    [ -z "${K42_SOAK:-}" ] || { kills=40; steps=1000; }
    k42_mount -o io=counted
    timeout 600 "$K42_BUILD/tests/revoke/shrink" "$S/mnt/s" "$S/mnt" $steps "$seed" "$K42CTL" 3>&- &
    VICTIM=$!
    for ((i = 0; i < kills; i++)); do
        sleep 0.1
        k42_find_worker
        k42_kill_worker
    done
    wait "$VICTIM"
    VICTIM=
}
