#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# ./bench/run itself: that it measures, that its answer has the shape that others read, that it ends
# with an error when it should, and that nothing stays behind.  Not how fast anything is.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    # Packages are not this test's business: it does not ask for one that ./test does not need.
    export K42_BENCH_NO_INSTALL=1
}

teardown() { k42_cleanup; }

bench() { timeout 120 "$K42_TOP/bench/run" --build "$K42_BUILD" --scratch "$S" --output "$S/out" "$@"; }

nothing_left() {
    ! grep -q " $S/k42bench" /proc/mounts
    [ -z "$(find "$S" -maxdepth 1 -name 'k42bench.*')" ]
}

@test "two workloads, one round, natively and on k42fs: the JSON has every figure" {
    bench --tiny --rounds 1 --peer k42fs-cached --workload stat rename >"$S/said" 2>&1 ||
        { cat "$S/said"; false; }
    python3 - "$S/out/results.json" <<'EOF'
import json, sys
v = json.load(open(sys.argv[1]))
assert v["version"] == 1
assert set(v["columns"]) == {"native", "k42fs-cached"}, v["columns"]
assert v["columns"]["k42fs-cached"]["caching"] == "1 s"
assert v["settings"]["rounds_done"] == 1
assert v["machine"]["kernel"]
rows = {row["key"]: row for row in v["rows"]}
assert set(rows) == {"stat_cold", "stat_warm", "rename"}, set(rows)
for row in rows.values():
    assert not row["failed"], row
    assert row["better"] == "lower" and row["unit"] == "µs"
    for column in v["columns"]:
        (figure,) = row["rounds"][column]
        assert 0 < figure < 1e6, (row, column)
goals = {goal["text"]: goal for goal in v["goals"]}
assert len(goals) > 8 and all(g["state"] in ("met", "missed", "not measured") for g in goals.values())
EOF
    grep -q '^| stat, cold, µs ↓ |' "$S/out/results.md"
    grep -q '^### Goals' "$S/said"
    nothing_left
}

@test "a peer that cannot do the work is a failed cell, and the others go on" {
    # Descriptors for the tree that find walks do not suffice: passthrough_ll has one for each inode.
    [ -e /usr/share/doc/libfuse3-dev/examples/passthrough_ll.c ] || skip "no source of passthrough_ll"
    (ulimit -n 150 && bench --tiny --rounds 1 --peer passthrough_ll k42fs-cached --workload stat \
        >"$S/said" 2>&1) || { cat "$S/said"; false; }
    python3 - "$S/out/results.json" <<'EOF'
import json, sys
(cold, warm) = json.load(open(sys.argv[1]))["rows"]
assert "Too many open files" in cold["failed"]["passthrough_ll"], cold
assert cold["rounds"]["passthrough_ll"] == [None]
assert cold["rounds"]["native"][0] > 0 and not cold["failed"].get("native"), cold
EOF
    grep -q 'passthrough_ll: failed: .*Too many open files' "$S/out/results.md"
    nothing_left
}

@test "interrupted in the middle: no mount, no daemon and no scratch stay" {
    bench --tiny --rounds 1000 --peer k42fs-cached --workload stat >"$S/said" 2>&1 &
    local pid=$! child i
    for ((i = 0; i < 300; i++)); do grep -q 'k42fs-cached: ' "$S/said" && break; sleep 0.1; done
    child=$(pgrep -P "$pid" -f bench/run)
    kill -TERM "$child"
    for ((i = 0; i < 300; i++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    run ! kill -0 "$pid"
    nothing_left
    # What had been measured is there.
    [ -s "$S/out/results.json" ]
    ! pgrep -f "k42fs .*$S" >/dev/null
}

@test "what it is asked wrongly it refuses, and says what there is" {
    run bench --tiny --workload nonsense
    [ "$status" = 2 ]
    [[ $output == *"no workload “nonsense”"*stat* ]]
    run bench --tiny --workload stat --peer nonsense
    [ "$status" = 2 ]
    [[ $output == *"no column “nonsense”"*bindfs* ]]
    nothing_left
}
