#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# P7: what k42ctl says of a handle is what the system calls of its process returned.  Longer with K42_SOAK.

load lib

LEDGER=$K42_BUILD/tests/account/ledger

setup() {
    k42_skip_unless_fuse
    k42_scratch
    local i
    for i in $(seq -f %03g 0 199); do head -c 65536 /dev/zero >"$S/src/$i"; done
}
teardown() {
    [ -z "${JOB:-}" ] || kill "$JOB" 2>/dev/null || true
    k42_cleanup
}

# compare: the ledger against what is open and what was.
compare() {
    k42_counts_zero
    "$LEDGER" show "$S/ledger" >"$S/lines"
    timeout 60 "$K42CTL" list --json "$S/mnt" >"$S/list"
    timeout 60 "$K42CTL" history --json "$S/mnt" >"$S/history"
    python3 "$K42_TESTS/account/compare.py" "$S/lines" "$S/list" "$S/history"
}

# property IO WORKERS_KILLED [COMMAND…]: one random tree of processes, under COMMAND.
property() {
    local io=$1 kills=$2 seed=${SEED:-$RANDOM$RANDOM} status=0
    shift 2
    echo "SEED=$seed, io=$io${1:+, with the shim}"
    k42_mount -o "io=$io,history=100000"
    timeout 120 "$@" "$LEDGER" run "$S/ledger" "$S/mnt" "$seed" 250 3>&- &
    JOB=$!
    while ((kills-- > 0)); do
        sleep 0.2
        k42_kill_worker
    done
    wait "$JOB" || status=$?
    JOB=
    [ "$status" = 0 ]
    compare
    k42_umount
    rm "$S/ledger"
}

# rounds FUNCTION…
rounds() {
    local i
    for ((i = 0; i < ${K42_SOAK:+30} + 1; i++)); do property "$@"; done
}

@test "P7: counted, no shim: every byte by its caller" { rounds counted 0; }
@test "P7: counted, no shim, the worker is killed" { rounds counted 3; }

with_shim() { LEDGER_SENDS=1 rounds "$@" "$K42RUN" --; }

@test "P7: counted, with the shim" { with_shim counted 2; }
@test "P7: cached, with the shim, the worker is killed" {
    need_root "an account can only be seen by root"
    with_shim cached 3
}
@test "P7: fast, with the shim, the worker is killed" {
    need_root "an account can only be seen by root"
    with_shim auto 3
}

@test "no shim: a child's own handle derives from its parent's, with its bytes" {
    k42_mount -o io=counted,history=100
    python3 - "$S/mnt/000" <<'E'
import os, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR)
os.pread(fd, 100, 0)
if os.fork() == 0:
    os.pread(fd, 11, 0)
    thread = threading.Thread(target=os.pread, args=(fd, 22, 0))
    thread.start()
    thread.join()
    os.pwrite(fd, b"x" * 7, 0)
    os._exit(0)
assert os.wait()[1] == 0
E
    k42_counts_zero
    timeout 20 "$K42CTL" history --json "$S/mnt" | python3 -c '
import json, sys
parent, child = sorted((h for h in json.load(sys.stdin) if h["type"] == "FILE"), key=lambda h: h["opened"])
assert parent["read_bytes"] == 100 and parent["reads"] == 1 and parent["write_bytes"] == 0, parent
assert child["read_bytes"] == 33 and child["reads"] == 2 and child["write_bytes"] == 7, child
assert child["parent"] == parent["handle"] and child["pid"] != parent["pid"]'
}

@test "a hostile account: nothing but its own counters, and the daemon lives" {
    need_root "an account can only be seen by root"
    local before
    k42_mount -o io=cached,history=1000
    before=$K42_WORKER
    exec 8<"$S/mnt/001"
    timeout 60 "$K42_BUILD/tests/account/hostile-account" "$S/mnt/000" 8<&-
    exec 8<&-
    k42_counts_zero
    timeout 20 "$K42CTL" history --json "$S/mnt" | python3 -c '
import json, sys
rows = json.load(sys.stdin)
assert all(0 <= h[c] < 1 << 63 for h in rows for c in ("reads", "read_bytes", "writes", "write_bytes")), rows
assert [h["read_bytes"] for h in rows if h["flags"] == "O_RDONLY"] == [0], rows'
    k42_find_worker
    [ "$K42_WORKER" = "$before" ]
}
