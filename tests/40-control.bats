#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The administrator's side on a real mount: every verb, every way to call it wrongly, other users, bad
# peers, dead and hanging mounts, and the state directory.

load lib
load see

HANDLE_KEYS="handle parent pid ppid uid comm exe path type flags rights class sharing opened reads read_bytes writes write_bytes
mappings mapped_bytes counted_by"

setup() {
    k42_skip_unless_fuse
    k42_scratch
    HOLDERS=()
}

teardown() {
    end_holders
    k42_cleanup
}

@test "list --json has the keys of the contract, and the view's content" {
    echo hello >"$S/src/a"
    k42_mount
    hold "$S/mnt/a"
    ctl list --json "$S/mnt" | K="$HANDLE_KEYS" P=$HOLDER json '
import os
assert len(v) == 1, v
assert list(v[0]) == os.environ["K"].split(), list(v[0])
assert v[0]["pid"] == int(os.environ["P"])
assert v[0]["path"] == "/a" and v[0]["type"] == "FILE" and v[0]["parent"] is None
assert v[0]["comm"] == "python3" and v[0]["uid"] == os.getuid()
assert isinstance(v[0]["opened"], float) and v[0]["rights"].startswith("r")'
}

@test "list as a table: columns, headings, escaped names" {
    printf x >"$S/src/$(printf 'new\nline\033[31m')"
    k42_mount
    hold "$S/mnt/$(printf 'new\nline\033[31m')"
    run -0 ctl list "$S/mnt"
    [ "${#lines[@]}" = 2 ]
    [[ ${lines[0]} == HANDLE* ]]
    [[ ${lines[1]} == *'/new\u000aline\u001b[31m' ]]
    run -0 ctl list -o pid,path --no-headings "$S/mnt"
    [ "${lines[0]}" = "$HOLDER  /new\\u000aline\\u001b[31m" ]
    run -2 ctl list -o pid,nonsense "$S/mnt"
    [[ $output == *nonsense* ]]
    run -2 ctl history -o tree_reads "$S/mnt"
    [[ $output == *"not one of this verb"* ]]
}

@test "an empty mount lists nothing and stays empty: k42ctl leaves no handle and no request" {
    k42_mount
    sleep 0.3
    before=$(ctl stats --json "$S/mnt")
    run -0 ctl list --json "$S/mnt"
    [ "$output" = "[]" ]
    ctl tree "$S/mnt"
    ctl status "$S/mnt" >/dev/null
    after=$(ctl stats --json "$S/mnt")
    python3 - "$before" "$after" <<'PY'
import json, sys
a, b = map(json.loads, sys.argv[1:])
assert a["handles"] == b["handles"] == 0, (a, b)
assert a["requests"] == b["requests"], (a["requests"], b["requests"])
PY
}

@test "any path on the mount will do" {
    mkdir -p "$S/src/d/e"
    echo x >"$S/src/d/e/f"
    k42_mount
    for p in "$S/mnt" "$S/mnt/" "$S/mnt/d" "$S/mnt/d/e/f"; do
        ctl status --json "$p" | M="$S/mnt" json 'import os; assert v["mountpoint"] == os.environ["M"]'
    done
}

@test "stats and status have the keys of the contract" {
    k42_mount
    ls -R "$S/mnt"
    ctl stats --json "$S/mnt" | json '
want = "requests lazy_reopens lazy_gives objects handles descriptions clients fds node_fds parked foreign_events invalidations invalidated_all journal_pending store_rows uptime"
assert list(v) == want.split(), list(v)
assert v["requests"]["opendir"] >= 1 and v["requests"]["other"] >= 0
assert all(n > 0 for k, n in v["requests"].items() if k != "other")
assert v["fds"] > 3 and v["objects"] >= 1'
    ctl status --json "$S/mnt" | S="$S" P="$K42_PID" H="$K42_HOLDER" json '
import os
want = "mountpoint source class state_dir holder_pid worker_pid restarts last_death features version started threads device upgrades downgrades waiting_pid"
assert list(v) == want.split(), list(v)
s = os.environ["S"]
assert (v["mountpoint"], v["source"], v["state_dir"]) == (s + "/mnt", s + "/src", s + "/state"), v
assert v["worker_pid"] == int(os.environ["P"]) and v["restarts"] == 0
assert v["holder_pid"] == int(os.environ["H"]) and v["last_death"] is None
st = os.stat(s + "/mnt").st_dev
assert v["device"] == "%d:%d" % (os.major(st), os.minor(st))'
    ctl stats "$S/mnt" | grep -q '^handles: '
    ctl status "$S/mnt" | grep -q "^mountpoint: $S/mnt\$"
}

@test "the daemon's count of descriptors is that of /proc" {
    k42_mount
    n=$(k42_stat fds)
    m=$(ls "/proc/$K42_WORKER/fd" | wc -l)
    # the connection that asked is one of them
    [ "$n" -ge "$m" ] && [ "$n" -le $((m + 2)) ]
}

@test "show: a handle, its children and ancestors; and handles that are not" {
    echo x >"$S/src/a"
    k42_mount
    hold "$S/mnt/a"
    h=$(ctl list -o handle --no-headings "$S/mnt")
    ctl show --json "$h" "$S/mnt" | H=$h json '
import os
assert v["handle"] == os.environ["H"] and v["children"] == [] and v["ancestors"] == []'
    ctl show "$h" "$S/mnt" | grep -q '^path: /a$'
    run -1 ctl show 99999.7 "$S/mnt"
    [[ $output == *"no such handle"* ]]
    run -1 ctl show nonsense "$S/mnt"
    [[ $output == *INDEX.GENERATION* ]]
    run -1 ctl show '1.1","x":"' "$S/mnt"
    run -2 ctl show
}

# Python: touch(fd) gives the calling process a handle of its own, as the shim does.
TOUCH='
import fcntl, os, struct, sys, time
def touch(fd):
    message = struct.pack("=HHIQQIIQQQQ", 1, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    fcntl.ioctl(fd, 0xC0404BA0, message)
'

# started: waits until a process in the background has written "ready" to $S/ready.
started() {
    local i
    for ((i = 0; i < 200; i++)); do [ -s "$S/ready" ] && return 0; sleep 0.05; done
    return 1
}

@test "lineage: a touched child stands below its parent in tree and show" {
    echo hello >"$S/src/a"
    k42_mount
    python3 -c "$TOUCH"'
fd = os.open(sys.argv[1], os.O_RDONLY)
if os.fork() == 0:
    touch(fd)
    print("ready", flush=True)
time.sleep(600)' "$S/mnt/a" >"$S/ready" 3>&- &
    HOLDERS+=("$!")
    parent=$!
    started
    HOLDERS+=("$(pgrep -P "$parent")")
    run -0 ctl tree "$S/mnt"
    echo "$output"
    [ "${#lines[@]}" = 3 ]
    [[ ${lines[2]} == [\`└]* ]]
    LC_ALL=C ctl tree "$S/mnt" | grep -q '^`- '
    ctl tree --json "$S/mnt" | P=$parent json '
import os
assert len(v) == 1 and v[0]["pid"] == int(os.environ["P"]), v
assert len(v[0]["children"]) == 1 and v[0]["children"][0]["parent"] == v[0]["handle"]'
    child=$(ctl list --json "$S/mnt" | json 'print([r["handle"] for r in v if r["parent"]][0])')
    ctl show --json "$child" "$S/mnt" | json 'assert len(v["ancestors"]) == 1 and "pid" in v["ancestors"][0]'
    ctl show "$child" "$S/mnt" | grep -q "^  .* $parent "
    k42_check
    # the parent goes: its handle is known by its number only
    release "$parent"
    for ((i = 0; i < 100; i++)); do [ "$(k42_stat handles)" = 1 ] && break; sleep 0.05; done
    ctl show --json "$child" "$S/mnt" | json 'assert list(v["ancestors"][0]) == ["handle"], v'
    k42_check
}

@test "check finds what reconciling cannot decide: one of two like descriptions closed" {
    echo hello >"$S/src/a"
    k42_mount
    python3 -c "$TOUCH"'
a = os.open(sys.argv[1], os.O_RDONLY)
b = os.open(sys.argv[1], os.O_RDONLY)
if os.fork() == 0:
    touch(a)
    touch(b)
    os.close(b)
    print("ready", flush=True)
time.sleep(600)' "$S/mnt/a" >"$S/ready" 3>&- &
    HOLDERS+=("$!")
    parent=$!
    started
    child=$(pgrep -P "$parent")
    HOLDERS+=("$child")
    run -1 ctl check "$S/mnt"
    [[ ${lines[0]} == "handle "*" of process $child (python3) on /a: "* ]] || { echo "$output"; false; }
    [[ $output == *": 1 differences" ]]
    run -1 ctl check --json "$S/mnt"
    json 'assert v["equal"] is False and len(v["differences"]) == 1, v' <<<"$output"
}

# gone PID…: a process that has ended can be a zombie until its parent looks.
gone() {
    local pid i
    for pid; do
        for ((i = 0; i < 40; i++)); do [ -d "/proc/$pid" ] || continue 2; sleep 0.05; done
        echo "still there: $pid, $(ps -o stat=,args= -p "$pid")"
        return 1
    done
}

@test "sync and umount: the daemon ends, the mount and everything else is gone" {
    k42_mount
    run -0 ctl umount "$S/mnt"
    [ -z "$output" ]
    run ! mountpoint -q "$S/mnt"
    [ ! -e "$S/state" ]
    gone "$K42_HOLDER" "$K42_WORKER"
    run -1 ctl status "$S/mnt"
    [[ $output == *"not on a k42fs mount"* ]]
    run -1 ctl umount "$S/mnt"
}

@test "umount by --state" {
    k42_mount
    run -0 ctl umount --state "$S/state" --json
    run ! mountpoint -q "$S/mnt"
}

@test "wrong calls: one line, exit status 2" {
    local words
    for words in "" "nonsense" "list --nonsense" "stats a b" "show" "show 1.1 a b" "umount" "stats --columns=pid" \
        "status --timeout=0" "status --timeout=x" "--json list" "help nonsense" "list --json --raw" "list -o ," "list -Q pid==" "graph --json" "list -p x"; do
        # shellcheck disable=SC2086
        run -2 ctl $words
        [ "${#lines[@]}" = 1 ] || { echo "for '$words': $output"; false; }
        [[ $output == "k42ctl: "*"k42ctl help"* ]]
    done
}

@test "help and --version" {
    run -0 ctl --version
    [[ $output == "k42ctl "* ]]
    run -0 ctl help
    for v in list tree top history graph show stats status check umount upgrade; do
        [[ $output == *"$v"* ]]
        ctl help "$v" | grep -q "^Usage: k42ctl $v"
        ctl "$v" --help | grep -q "^Usage: k42ctl $v"
    done
}

@test "output that cannot be written is a failure" {
    k42_mount
    run -1 bash -c '"$K42CTL" status "$S/mnt" >/dev/full'
    [[ $output == *"cannot write"* ]]
}

@test "not a k42fs mount, no such path, a device node" {
    run -1 ctl status "$S"
    [[ $output == "k42ctl: $S: is not on a k42fs mount" ]]
    run -1 ctl status "$S/nothing"
    [[ $output == *"No such file"* ]]
    run -1 ctl status /dev/null
    [[ $output == *"not on a k42fs mount"* ]]
    run -1 ctl status --state "$S/nothing"
}

@test "a dead mount: says so and how to clear it" {
    K42_STATE_STAYS=1
    k42_mount
    k42_kill_daemon
    for p in "$S/mnt" "$S/mnt/a"; do
        run -1 ctl status "$p"
        [[ $output == *dead*umount* ]] || { echo "$output"; false; }
        [ "${#lines[@]}" = 1 ]
    done
    timeout 10 umount -l "$S/mnt"
    # the state directory that it left can be used again
    k42_mount
    ctl status "$S/mnt" >/dev/null
    k42_umount
    # the dead one could not remove its link
    find -L /run/k42fs "${XDG_RUNTIME_DIR:-/nonexistent}/k42fs" -lname "$S/state" -delete 2>/dev/null || true
}

@test "a daemon that hangs: k42ctl says so in time" {
    k42_mount
    kill -STOP "$K42_PID"
    SECONDS=0
    run -1 ctl status --timeout=1 "$S/mnt"
    [[ $output == *"does not answer"* ]]
    run -1 ctl status --timeout=1 "$S/mnt/some/path"
    [[ $output == *"does not answer"* ]]
    [ "$SECONDS" -lt 10 ]
    kill -CONT "$K42_PID"
    ctl status "$S/mnt" >/dev/null
}

@test "several mounts: list has them all, others ask which" {
    mkdir "$S/src2" "$S/mnt2"
    echo x >"$S/src/a"
    echo x >"$S/src2/b"
    k42_mount
    k42_mount "$S/src2" "$S/mnt2" "$S/state2"
    hold "$S/mnt/a" "$S/mnt2/b"
    ctl list --json | S="$S" json '
import os
s = os.environ["S"]
got = sorted((r["mountpoint"], r["path"]) for r in v if r["mountpoint"].startswith(s))
assert got == [(s + "/mnt", "/a"), (s + "/mnt2", "/b")], got'
    run -2 ctl stats
    [[ $output == *"$S/mnt"*"$S/mnt2"* ]]
    ctl list --json "$S/mnt" | json 'assert "mountpoint" not in v[0]'
    release "$HOLDER"
    k42_umount "$S/mnt2"
    [ ! -e "$S/state2" ]
}

@test "another user sees his own handles only and may not end the mount" {
    [ "$(id -u)" = 0 ] || skip "needs root to become another user"
    echo x >"$S/src/a"
    chmod 644 "$S/src/a"
    k42_mount
    hold "$S/mnt/a"
    setpriv --reuid=65534 --clear-groups bash -c 'exec 9<"$1"; echo ready; exec sleep 600' _ \
        "$S/mnt/a" >"$S/ready" 3>&- &
    HOLDERS+=("$!")
    started
    # the build tree may be where others cannot go
    cp "$K42CTL" "$S/k42ctl"
    chmod 755 "$S/k42ctl"
    as_nobody() { timeout 30 setpriv --reuid=65534 --clear-groups "$S/k42ctl" "$@"; }
    [ "$(ctl list --json "$S/mnt" | json 'print(len(v))')" = 2 ]
    as_nobody list --json "$S/mnt" | json 'assert [r["uid"] for r in v] == [65534], v'
    as_nobody tree --json "$S/mnt" | json 'assert len(v) == 1, v'
    as_nobody stats --json "$S/mnt" | json 'assert v["handles"] == 2, v'
    as_nobody status "$S/mnt" >/dev/null
    as_nobody check "$S/mnt"
    h=$(ctl list --json "$S/mnt" | json 'print([r["handle"] for r in v if r["uid"] == 0][0])')
    run -1 as_nobody show "$h" "$S/mnt"
    run -1 as_nobody umount "$S/mnt"
    [[ $output == *"not permitted"* ]]
    mountpoint -q "$S/mnt"
}

@test "bad peers: garbage, silence, floods and leaving early hurt nobody" {
    k42_mount
    python3 "$K42_TESTS/control/bad_peers.py" "$S/state/control"
    ctl status "$S/mnt" >/dev/null
    k42_check
}

@test "list while files are opened and closed all the time" {
    for i in {1..20}; do echo "$i" >"$S/src/$i"; done
    k42_mount
    python3 -c '
import os, sys, time
end = time.time() + 5
while time.time() < end:
    for i in range(1, 21):
        fd = os.open("%s/%d" % (sys.argv[1], i), os.O_RDONLY)
        os.read(fd, 10)
        os.close(fd)' "$S/mnt" 3>&- &
    HOLDERS+=("$!")
    load=$!
    while kill -0 "$load" 2>/dev/null; do
        ctl list --json "$S/mnt" | json '
# a handle that ended while its row was written has no path to tell
assert all(r["path"] is None or r["path"][1:].isdigit() for r in v), v'
        ctl tree "$S/mnt" >/dev/null
    done
    k42_check
    k42_counts_zero
}

@test "check: equal with open, duplicated, mapped and inherited descriptors" {
    echo hello >"$S/src/a"
    k42_mount
    python3 -c '
import mmap, os, sys, time
a = sys.argv[1]
fd = os.open(a, os.O_RDONLY)
os.dup(fd)
os.open(a, os.O_RDONLY)
os.open(os.path.dirname(a), os.O_RDONLY | os.O_DIRECTORY)
os.open(a, os.O_PATH)
m = os.open(a, os.O_RDONLY)
mapping = mmap.mmap(m, 5, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
os.close(m)
if os.fork() == 0:
    time.sleep(600)
print("ready", flush=True)
time.sleep(600)' "$S/mnt/a" >"$S/ready" 3>&- &
    HOLDERS+=("$!")
    parent=$!
    started
    HOLDERS+=("$(pgrep -P "$parent")")
    run -0 ctl check "$S/mnt"
    [[ $output == *"4 handles, "*": equal" ]] || { echo "$output"; false; }
    ctl check --json "$S/mnt" | json '
assert v["equal"] and v["differences"] == [] and v["handles"] == 4, v
assert v["inexact"] == 0 and v["untouched"] >= 3, v'
    # the parent goes: what the child did not touch is nobody'"'"'s
    release "$parent"
    for ((i = 0; i < 100; i++)); do [ "$(k42_stat handles)" = 0 ] && break; sleep 0.05; done
    ctl check --json "$S/mnt" | json 'assert v["equal"] and v["handles"] == 0, v'
}

@test "reconciling: the opener closes its copy, the child keeps one" {
    echo hello >"$S/src/a"
    k42_mount
    python3 -c '
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
if os.fork() == 0:
    print("ready", flush=True)
    time.sleep(600)
os.close(fd)
time.sleep(600)' "$S/mnt/a" >"$S/ready" 3>&- &
    HOLDERS+=("$!")
    parent=$!
    started
    HOLDERS+=("$(pgrep -P "$parent")")
    sleep 0.2
    run -0 ctl list --json "$S/mnt"
    [ "$output" = "[]" ]
    ctl stats --json "$S/mnt" | json 'assert v["handles"] == 0 and v["descriptions"] == 1, v'
    k42_check
}

@test "state directory: unusable ones are refused with one line, and nothing is left" {
    local bad
    echo x >"$S/file"
    mkdir "$S/real" "$S/open" "$S/diary"
    ln -s real "$S/link"
    chmod 777 "$S/open"
    echo "dear" >"$S/diary/journal"
    for bad in "$S/file" "$S/link" "$S/open" "$S/diary" "$S/no/parent" /proc/k42state "$S/$(printf 'n%.0s' {1..250})/$(printf 'n%.0s' {1..250})"; do
        run timeout 20 "$K42FS" -f -o "state=$bad" "$S/src" "$S/mnt"
        [ "$status" = 1 ] || { echo "$bad: $status $output"; false; }
        [ "${#lines[@]}" = 1 ]
        [[ $output == "k42fs: $bad"* ]]
        run ! mountpoint -q "$S/mnt"
    done
    [ "$(cat "$S/file")" = x ]
    [ "$(cat "$S/diary/journal")" = dear ]
    [ -z "$(ls -A "$S/real" "$S/open" | grep -v '^/\|^$')" ]
}

@test "state directory: one in use is refused, a long path works, one that was there stays" {
    k42_mount
    mkdir "$S/mnt2"
    run timeout 20 "$K42FS" -f -o "state=$S/state" "$S/src" "$S/mnt2"
    [ "$status" = 1 ]
    [[ $output == "k42fs: $S/state: "*busy* ]]
    ctl status "$S/mnt" >/dev/null
    ctl umount "$S/mnt"

    long=$S/$(printf 'n%.0s' {1..200})
    k42_mount "$S/src" "$S/mnt" "$long"
    [ -S "$long/control" ]
    ctl status --json "$S/mnt" | L="$long" json 'import os; assert v["state_dir"] == os.environ["L"]'
    ctl status --state "$long" >/dev/null
    ctl umount "$S/mnt"
    [ ! -e "$long" ]

    mkdir -m 750 "$S/kept"
    echo mine >"$S/kept/mine"
    k42_mount "$S/src" "$S/mnt" "$S/kept"
    ctl umount "$S/mnt"
    [ "$(ls -A "$S/kept")" = mine ]
    [ "$(stat -c %a "$S/kept")" = 750 ]
}

@test "state directory: the default place, found without asking the mount" {
    [ "$(id -u)" = 0 ] || skip "looks into /run/k42fs"
    timeout 60 "$K42FS" -f "$S/src" "$S/mnt" 2>"$S/log.own" 3>&- &
    keeper=$!
    for ((i = 0; i < 200; i++)); do ctl status "$S/mnt" >/dev/null 2>&1 && break; sleep 0.05; done
    dir=$(ctl status --json "$S/mnt" | json 'print(v["state_dir"])')
    [[ $dir == /run/k42fs/* ]]
    [ "$(stat -c %a "$dir")" = 711 ]
    [ "$(stat -c %a "$dir/control")" = 666 ]
    [ "$(stat -c %a "$dir/state.db")" = 600 ]
    link=/run/k42fs/@$(ctl status --json "$S/mnt" | json 'print(v["device"])')
    [ "$(readlink "$link")" = "$dir" ]
    ctl umount "$S/mnt"
    wait "$keeper"
    [ ! -s "$S/log.own" ]
    [ ! -e "$dir" ]
    [ "$(readlink "$link")" != "$dir" ] # another mount may have got the device number
}
