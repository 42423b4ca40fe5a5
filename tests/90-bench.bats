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

teardown() {
    # Only after a failure is there one.
    local mnt
    for mnt in $(awk -v s="$S/" 'index($5, s) == 1 { print $5 }' /proc/self/mountinfo | tac); do
        umount -l "$mnt" || fusermount3 -uz "$mnt"
    done
    k42_cleanup
}

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
    # passthrough_ll has a descriptor for each inode; the 600 files that find walks are too many.
    [ -e /usr/share/doc/libfuse3-dev/examples/passthrough_ll.c ] || skip "no source of passthrough_ll"
    (ulimit -n 450 && bench --tiny --rounds 1 --peer passthrough_ll k42fs-cached --workload footprint \
        >"$S/said" 2>&1) || { cat "$S/said"; false; }
    python3 - "$S/out/results.json" <<'EOF'
import json, sys
rows = {row["key"]: row for row in json.load(open(sys.argv[1]))["rows"]}
assert "Too many open files" in rows["rss"]["failed"]["passthrough_ll"], rows["rss"]
assert rows["rss"]["rounds"]["passthrough_ll"] == [None]
assert rows["rss"]["rounds"]["k42fs-cached"][0] > 0 and "k42fs-cached" not in rows["rss"]["failed"]
assert 0 < rows["fds"]["rounds"]["k42fs-cached"][0] <= 450
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

@test "the report: ratios are of one round, the best peer is one with the same caching, goals by both" {
    # In each round k42fs takes two thirds of bindfs's time, while the rounds differ by ten times.  slow
    # and day must not be taken for the best peer, nor may failed rounds.
    mkdir "$S/in"
    python3 - "$S/in/results.json" <<'EOF'
import json, sys
def column(caching, k42fs=False):
    return {"version": "1", "options": "", "caching": caching, "k42fs": k42fs, "note": ""}
def row(key, title, group, better, rounds, failed={}):
    return {"key": key, "title": title, "unit": "µs", "better": better, "group": group,
            "relative": True, "rounds": rounds, "failed": failed}
json.dump({
    "version": 1,
    "machine": {"system": "x", "kernel": "1", "libfuse": "3", "cpus": 1, "cpu": "x", "memory_gib": 1,
                "filesystem": "ext4", "load_at_start": 0, "load_at_end": 0, "commit": "x"},
    "settings": {"rounds": 3, "rounds_done": 3, "seed": 1, "sizes": "full", "file_limit": 1024,
                 "nice": 0},
    "columns": {"native": column("–"), "bindfs": column("1 s"), "slow": column("1 s"),
                "day": column("1 day"), "k42fs-fast": column("1 s", True)},
    "skipped": {},
    "rows": [
        row("open_close", "open + close", "metadata", "lower",
            {"native": [1, 10, 100], "bindfs": [3, 30, 300], "slow": [9, 90, 900],
             "day": [1, 1, 1], "k42fs-fast": [2, 20, 200]}),
        row("rename", "rename", "metadata", "lower",
            {"native": [1, 1, 1], "bindfs": [2, 2, None], "k42fs-fast": [4, 8, 1]},
            {"bindfs": "no more"}),
        row("randwrite", "randwrite", "data", "higher",
            {"native": [100, 200, 400], "k42fs-fast": [90, 180, 300]}),
        row("fork_exit_1000", "fork + exit", "processes", "lower",
            {"native": [100, 100, 100], "k42fs-fast": [120, 109, 108]})],
}, open(sys.argv[1], "w"))
EOF
    timeout 20 "$K42_TOP/bench/run" --report "$S/in/results.json" --output "$S/out" >"$S/said"
    grep -q '^| open + close | bindfs | 1.50 | 1.50–1.50 |' "$S/said"
    # rename: 2/4 and 2/8; the third round has no bindfs.
    grep -q '^| rename | bindfs | 0.375 | 0.250–0.500 |' "$S/said"
    grep -q '| k42fs-fast | 1 of 2 rows; worst: rename 0.375 | ≥ 1 | \*\*missed\*\* (below the floor: rename)' "$S/said"
    grep -q '4k random write.*| 0.900 (0.750–0.900) | ≥ 0.85 | met |' "$S/said"
    grep -q 'fork + exit with 1,000.*| 1.09 (1.08–1.20) | ≤ 1.1 | met |' "$S/said"
    grep -q '^- rename, bindfs: failed: no more' "$S/said"
    [ -s "$S/out/results.json" ]
}

@test "--publish writes between the marks only, and refuses a page without them" {
    bench --tiny --rounds 1 --workload rename --peer k42fs-cached >"$S/said" 2>&1
    cp -r "$K42_TOP/bench" "$S/bench"
    mkdir "$S/doc"
    sed 's/^<!-- begin figures/before\n&/; s/^<!-- end figures.*/&\nafter/' \
        "$K42_TOP/doc/performance.md" >"$S/doc/performance.md"
    timeout 20 "$S/bench/run" --report "$S/out/results.json" --output "$S/out" --publish >"$S/said"
    grep -q '^| rename, µs ↓ |' "$S/doc/performance.md"
    [ "$(sed -n '/^<!-- end figures/{n;p}' "$S/doc/performance.md")" = after ]
    [ "$(sed -n '/^<!-- begin figures/{x;p};h' "$S/doc/performance.md")" = before ]
    cmp <(sed '/^<!-- begin figures/,$d' "$K42_TOP/doc/performance.md") \
        <(sed '/^before$/,$d' "$S/doc/performance.md")
    grep -q '^<!-- begin requests' "$S/doc/performance.md"
    echo nothing >"$S/doc/performance.md"
    run timeout 20 "$S/bench/run" --report "$S/out/results.json" --output "$S/out" --publish
    [ "$status" != 0 ]
    [ "$(cat "$S/doc/performance.md")" = nothing ]
}

@test "the profile counts the requests of an operation" {
    run timeout 60 "$K42_TOP/bench/profile" --build "$K42_BUILD" --scratch "$S" open rename
    echo "$output"
    [ "$status" = 0 ]
    # One OPEN and one RELEASE, no FLUSH, nothing else.
    [[ $output =~ open\ \+\ close\ +k42fs\ +2\.00\ a\ pair\ +open\ 1\.00,\ release\ 1\.00($|$'\n') ||
       $output =~ open\ \+\ close\ +k42fs\ +2\.00\ a\ pair\ +release\ 1\.00,\ open\ 1\.00($|$'\n') ]]
    [[ $output == *"rename "*" rename 1.00"* ]]
    [ -z "$(find "$S" -maxdepth 1 -name 'k42profile.*')" ]
    ! grep -q " $S/k42profile" /proc/mounts
}
