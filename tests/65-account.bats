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
    MAPPINGS=${MAPPINGS:-} python3 "$K42_TESTS/account/compare.py" "$S/lines" "$S/list" "$S/history"
}

# property IO WORKERS_KILLED [COMMAND…]: one random tree of processes, under COMMAND.
property() {
    local io=$1 kills=$2 seed=${K42_SEED:-$RANDOM$RANDOM} status=0
    shift 2
    echo "K42_SEED=$seed, io=$io${1:+, with the shim}"
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

# With the shim the mappings are counted, too; but not those of a file that was revoked
# before the process first used it: they are nothing but SIGBUS, and it gets no handle any more.
with_shim() { MAPPINGS=$([ -n "${LEDGER_TAKES:-}" ] || echo 1) LEDGER_SENDS=1 rounds "$@" "$K42RUN" --; }

@test "P7: counted, with the shim" { with_shim counted 2; }
@test "P7: cached, with the shim, the worker is killed" {
    with_shim cached 3
}
@test "P7: fast, with the shim, the worker is killed" {
    with_shim auto 3
}

@test "P7: counted, no shim, rights and files are taken at random, the worker is killed" {
    LEDGER_TAKES=file,process,restrict rounds counted 2
}
@test "P7: counted, with the shim, rights and files are taken at random" {
    LEDGER_TAKES=file,process,restrict with_shim counted 0
}
@test "P7: cached, with the shim, files are taken at random, the worker is killed" {
    LEDGER_TAKES=file with_shim cached 2
}

# On nobody's own mount, where the daemon has to ask for an account.  What is not counted exactly is said.
as_owner() {
    local seed=$1 io=$2 i job
    k42_nobody_mount "io=$io,history=100000"
    LEDGER_SENDS=1 as_nobody timeout 120 "$K42RUN" -- "$LEDGER" run "$S/run/ledger" "$S/mnt" "$seed" 250 &
    job=$!
    sleep 0.2
    kill -KILL "$(as_nobody "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"worker_pid" *: *\([0-9]*\).*/\1/p')"
    wait "$job" || echo "ledger: $?"
    for ((i = 0; i < 100; i++)); do
        [ "$(as_nobody "$K42CTL" list --no-headings "$S/mnt" | wc -l)" = 0 ] && break
        sleep 0.1
    done
    "$LEDGER" show "$S/run/ledger" >"$S/lines"
    as_nobody "$K42CTL" list --json "$S/mnt" >"$S/list"
    as_nobody "$K42CTL" history --json "$S/mnt" >"$S/history"
    MAPPINGS=1 python3 "$K42_TESTS/account/compare.py" "$S/lines" "$S/list" "$S/history"
    as_nobody timeout 20 fusermount3 -u "$S/mnt"
    wait
    rm "$S/run/ledger"
}

ordinary() {
    k42_skip_unless_nobody_mounts
    export LEDGER
    echo "K42_SEED=${K42_SEED:=$RANDOM$RANDOM}"
    run k42_in_namespace 150 as_owner "$K42_SEED" "$1"
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *" bytes, 0 wrong" && ${#lines[@]} = 1 ]]
    cat "$S/log.user"
    [ "$(grep -cv 'the worker was killed by signal 9' "$S/log.user")" = 0 ]
}

@test "P7: an ordinary user's mount, cached, with the shim, the worker is killed" { ordinary cached; }
@test "P7: an ordinary user's mount, counted, with the shim, the worker is killed" { ordinary counted; }

# threads IO: more threads than there are lanes, that come and go; each counts what it did.
threads() {
    k42_mount -o "io=$1,history=100000"
    timeout 100 "$K42RUN" -- "$K42_BUILD/tests/account/threads" "$S/mnt" >"$S/lines" &
    JOB=$!
    k42_kill_worker
    wait "$JOB"
    JOB=
    k42_counts_zero
    timeout 20 "$K42CTL" list --json "$S/mnt" >"$S/list"
    timeout 20 "$K42CTL" history --json "$S/mnt" >"$S/history"
    python3 "$K42_TESTS/account/compare.py" "$S/lines" "$S/list" "$S/history"
    k42_umount
}
@test "P7: many threads that use the same descriptors at once, and come and go" {
    threads cached
    threads auto
}

@test "who counts, and mappings: daemon, program, both or nobody" {
    local io run expected
    while read -r io run expected; do
        k42_mount -o "io=$io,history=10"
        ${run/k42run/"$K42RUN"} python3 - "$S/mnt/003" "$K42CTL" <<'E' >"$S/list"
import mmap, os, subprocess, sys
fd = os.open(sys.argv[1], os.O_RDWR)
mmap.mmap(fd, 8192).close()
mmap.mmap(fd, 4096).close()
subprocess.run([sys.argv[2], "list", "--no-headings", "-Q", 'type == "FILE" and pid == %d' % os.getpid(),
                "-o", "counted_by,mappings,mapped_bytes", os.path.dirname(sys.argv[1])], check=True,
               env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}) # it can be a sanitizer's build
E
        echo "$io $run: $(cat "$S/list"), $expected"
        [ "$(tr -s ' ' <"$S/list")" = "${expected//,/ }" ]
        k42_counts_zero
        timeout 20 "$K42CTL" history --no-headings -b -Q 'path == "/003"' -o counted_by,mappings,mapped_bytes "$S/mnt" >"$S/list"
        echo "history: $(cat "$S/list")"
        [ "$(tr -s ' ' <"$S/list")" = "${expected//,/ }" ]
        timeout 20 "$K42CTL" tree --json "$S/mnt" >/dev/null
        k42_umount
    done <<'E'
counted env daemon,0,0
counted k42run both,2,12288
cached env nobody,0,0
cached k42run program,2,12288
auto k42run program,2,12288
E
}

@test "the history knows whose a handle was that a process had for a moment after the worker was killed" {
    local i
    k42_mount -o io=counted,history=1000
    for ((i = 0; i < 3; i++)); do
        rm -f "$S/go" "$S/pid"
        timeout 60 python3 - "$S" "$i" <<'E' 3>&- &
import os, sys, time
top, i = sys.argv[1:]
os.close(os.open(top + "/mnt/00" + i, os.O_RDONLY))
open(top + "/pid", "w").write(str(os.getpid()))
while not os.path.exists(top + "/go"):
    time.sleep(0.01)
os.close(os.open(top + "/mnt/01" + i, os.O_RDONLY))
os._exit(0)
E
        JOB=$!
        while [ ! -s "$S/pid" ]; do sleep 0.02; done
        sleep 0.5
        k42_kill_worker
        k42_counts_zero
        : >"$S/go"
        wait "$JOB"
        JOB=
        timeout 20 "$K42CTL" history --json "$S/mnt" | python3 -c '
import json, sys
pid, i = int(open(sys.argv[1]).read()), sys.argv[2]
rows = [(h["pid"], h["path"]) for h in json.load(sys.stdin) if h["type"] == "FILE"]
assert (pid, "/00" + i) in rows and (pid, "/01" + i) in rows, rows' "$S/pid" "$i"
    done
}

@test "the history knows name, program and path of a process that was gone at once" {
    k42_mount -o io=counted,history=1000
    timeout 60 sh -c 'for i in 0 1 2 3 4 5 6 7 8 9; do for j in 0 1 2 3 4 5 6 7 8 9; do
        cat "$1/0$i$j" >/dev/null; done; done' sh "$S/mnt"
    k42_counts_zero
    timeout 20 "$K42CTL" history --json "$S/mnt" | python3 -c '
import json, sys
rows = [h for h in json.load(sys.stdin) if h["type"] == "FILE"]
assert len(rows) == 100, len(rows)
bad = [h for h in rows if h["comm"] != "cat" or not h["exe"] or not h["path"] or h["pid"] in (None, 0)]
assert not bad, (len(bad), bad[:3])
assert sorted(h["path"] for h in rows) == ["/%03d" % i for i in range(100)]'
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

hostile_as_owner() {
    local before i
    k42_nobody_mount io=cached,history=1000
    worker() { as_nobody timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"worker_pid" *: *\([0-9]*\).*/\1/p'; }
    before=$(worker)
    as_nobody timeout 60 "$K42_BUILD/tests/account/hostile-account" "$S/mnt/000" || echo "status $?"
    [ "$(worker)" = "$before" ] || echo "the worker is another"
    for ((i = 0; i < 100; i++)); do
        [ "$(as_nobody timeout 20 "$K42CTL" list --no-headings "$S/mnt" | wc -l)" = 0 ] && break
        sleep 0.1
    done
    as_nobody timeout 20 "$K42CTL" history --json "$S/mnt" | python3 -c '
import json, sys
rows = json.load(sys.stdin)
assert rows and all(0 <= h[c] < 1 << 63 for h in rows for c in ("reads", "read_bytes", "writes", "write_bytes")), rows'
    as_nobody timeout 20 fusermount3 -u "$S/mnt"
    wait
}

@test "a hostile account that is offered to an ordinary user's daemon" {
    k42_skip_unless_nobody_mounts
    run -0 k42_in_namespace 90 hostile_as_owner
    echo "$output"
    [ -z "$output" ]
    cat "$S/log.user"
    [ ! -s "$S/log.user" ]
}

@test "who keeps the daemon looking into his processes keeps nobody else from being counted" {
    local status=0
    k42_mount -o io=cached,history=1000
    mkfifo "$S/end"
    sleep 60 >"$S/end" 3>&- &
    JOB=$!
    timeout 60 "$K42_BUILD/tests/account/hold-looks" "$S/mnt/000" 6 $NOBODY <"$S/end" >"$S/held" 2>"$S/err" 3>&- &
    local holds=$! i
    for ((i = 0; i < 200; i++)); do
        [ ! -s "$S/held" ] && kill -0 "$holds" 2>/dev/null || break
        sleep 0.05
    done
    [ "$(cat "$S/held")" = "held 4" ] || status=1
    timeout 20 "$K42RUN" -- head -c 1234 "$S/mnt/001" >/dev/null || status=2
    kill "$JOB"
    JOB=
    wait "$holds" || status=$?
    [ "$status" != 77 ] || skip "$(cat "$S/err")"
    echo "status $status: $(cat "$S/held" "$S/err")"
    [ "$status" = 0 ]
    k42_counts_zero
    timeout 20 "$K42CTL" history --json "$S/mnt" | python3 -c '
import json, sys
rows = [h for h in json.load(sys.stdin) if h["path"] == "/001"]
assert [(h["counted_by"], h["read_bytes"]) for h in rows] == [("program", 1234)], rows'
}
