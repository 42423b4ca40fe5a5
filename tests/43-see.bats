#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Seeing: who has what open, with columns and filters; lineage with sums; live; closed handles; a picture.

load lib
load see

setup() {
    k42_skip_unless_fuse
    k42_scratch
    HOLDERS=()
}

teardown() {
    end_holders
    k42_cleanup
}

# forget_links STATE: a daemon that was killed could not remove its link.
forget_links() {
    find -L /run/k42fs "${XDG_RUNTIME_DIR:-/nonexistent}/k42fs" -lname "$1" -delete 2>/dev/null || true
}

@test "a dead mount does not hide the others from list and tree" {
    K42_STATE_STAYS=1
    mkdir "$S/src2" "$S/mnt2"
    echo x >"$S/src/a"
    k42_mount
    k42_mount "$S/src2" "$S/mnt2" "$S/state2"
    hold "$S/mnt/a"
    k42_kill_daemon # the last one
    for format in --json --jsonl --raw --no-headings; do
        run -1 --separate-stderr ctl list "$format"
        [[ $output == *"$S/mnt"*/a* || $output == *"/a"*"$S/mnt"* ]] || { echo "$format: $output"; false; }
        [ "$(grep -c "$S/mnt2.*dead" <<<"$stderr")" = 1 ] || { echo "$format: $stderr"; false; }
    done
    { ctl list --json 2>/dev/null || true; } | S="$S" json '
import os
assert [r["path"] for r in v if r["mountpoint"] == os.environ["S"] + "/mnt"] == ["/a"], v'
    run -1 --separate-stderr ctl list -o path --no-headings "$S/mnt2" "$S/mnt"
    [ "$output" = /a ]
    [ "$(wc -l <<<"$stderr")" = 1 ]
    run -1 --separate-stderr ctl tree
    [[ $output == *"/a"* && $stderr == *dead* ]]
    # only the dead one: no half document
    run -1 --separate-stderr ctl list --json "$S/mnt2"
    [ -z "$output" ]
    timeout 10 umount -l "$S/mnt2"
    forget_links "$S/state2"
}

# Python: touch(fd) gives the calling process a handle of its own, as the shim does.
TOUCH='
import fcntl, os, struct, sys, time
def touch(fd):
    message = struct.pack("=HHIQQIIQQQQ", 1, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    fcntl.ioctl(fd, 0xC0404BA0, message)
'

# family FILE: opens it and reads 1000 bytes; a child touches it and reads 2000, its child 4000.
family() {
    background "$TOUCH"'
fd = os.open(sys.argv[1], os.O_RDONLY)
os.pread(fd, 1000, 0)
for n in (2000, 4000):
    if os.fork() != 0:
        time.sleep(600)
    touch(fd)
    os.pread(fd, n, 0)
print("ready", flush=True)
time.sleep(600)' "$1"
    local child
    child=$(pgrep -P "$HOLDER")
    HOLDERS+=("$child" "$(pgrep -P "$child")")
}

@test "list: columns beside the defaults, in JSON, and those that are derived" {
    echo x >"$S/src/a"
    k42_mount
    hold "$S/mnt/a"
    run -0 ctl list -o +INODE,description,uid,mountpoint "$S/mnt"
    [[ ${lines[0]} == HANDLE*PATH*INODE*DESCRIPTION*UID*MOUNTPOINT ]]
    [[ ${lines[1]} == *" $(stat -c %i "$S/mnt/a") "*" $(id -u)  $S/mnt" ]]
    ctl list --json -o pid,age,ops,pid "$S/mnt" | P=$HOLDER json '
import os
assert [list(r) for r in v] == [["pid", "age", "ops"]], v
assert v[0]["pid"] == int(os.environ["P"]) and 0 <= v[0]["age"] < 60 and v[0]["ops"] == 0'
    ctl list --help | grep -q '^  read_bytes  *number '
    run ! bash -c '"$K42CTL" list --help | grep -q tree_reads'
    [[ $(ctl list -H -o age --no-headings "$S/mnt") == *s ]]
    run -2 ctl list -o path,nonsense "$S/mnt"
    [[ $output == "k42ctl: list: unknown column 'nonsense'"* ]]
}

@test "list: filters and processes" {
    echo x >"$S/src/a"
    echo x >"$S/src/b.npz"
    mkdir "$S/src/d"
    k42_mount
    hold "$S/mnt/a" "$S/mnt/b.npz"
    one=$HOLDER
    hold "$S/mnt/b.npz" "$S/mnt/d"
    paths() { ctl list -o path --no-headings "$@" "$S/mnt" | sort | tr '\n' ' '; }
    [ "$(paths -Q "pid == $one")" = "/a /b.npz " ]
    [ "$(paths -p "$one")" = "/a /b.npz " ]
    [ "$(paths -p "$one,$HOLDER" -p 1)" = "/a /b.npz /b.npz /d " ]
    [ "$(paths -Q 'path =~ "\.npz$"')" = "/b.npz /b.npz " ]
    [ "$(paths -Q 'type == "DIR" or path == "/a"')" = "/a /d " ]
    [ "$(paths -Q 'not (type == "DIR" or path == "/a") and comm == "python3"')" = "/b.npz /b.npz " ]
    [ "$(paths -Q 'type == "FILE"' -Q "pid == $HOLDER")" = "/b.npz " ]
    [ "$(paths -Q "inode == $(stat -c %i "$S/mnt/d")")" = "/d " ]
    [ "$(paths -Q 'reads > 1K')" = "" ]
    ctl list --json -Q 'pid == 0' "$S/mnt" | json 'assert v == []'
    run -2 ctl list -Q 'pid == 5 and comm =~ "("' "$S/mnt"
    [[ $output == "k42ctl: list: the filter, at character 19: the regular expression is wrong"* ]]
    [ "${#lines[@]}" = 1 ]
    run -2 ctl list -Q 'read_bytes > lots' "$S/mnt"
    [[ $output == *"at character 14: unknown column 'lots'"* ]]
}

@test "names that are hostile: no byte of them reaches a terminal, and JSON stays JSON" {
    local name
    name=$(printf 'a "b"\\N\n\033[2J&lt;\377{}|<x> \302\233')
    echo x >"$S/src/$name"
    k42_mount
    hold "$S/mnt/$name"
    local i=0 words
    for words in list "list --raw" tree "top --batch -n 1" graph; do
        # shellcheck disable=SC2086
        ctl $words "$S/mnt" >"$S/text.$((i++))"
    done
    # one row is one line, and a blank divides columns only
    [ "$(ctl list --raw -o pid,path --no-headings "$S/mnt" | awk '{ print NF, NR }')" = "2 1" ]
    ctl list --json "$S/mnt" >"$S/json"
    ctl list --jsonl "$S/mnt" >"$S/jsonl"
    python3 - "$S" <<'PY'
import glob, json, sys
s = sys.argv[1]
texts = glob.glob(s + "/text.*")
assert len(texts) == 5
for name in texts:
    # nothing but printing characters and ends of lines
    text = open(name, "rb").read().decode()
    assert "\\u001b[2J" in text and all(c.isprintable() or c == "\n" for c in text), (name, text)
v = json.loads(open(s + "/json", "rb").read().decode("utf-8", "strict"))
assert v[0]["path"] == "/a \"b\"\\N\n\x1b[2J&lt;\ufffd{}|<x> \u009b", ascii(v)
assert json.load(open(s + "/jsonl")) == v[0]
PY
    command -v dot >/dev/null || skip "no Graphviz: its opinion was not asked"
    ctl graph --svg "$S/mnt" >"$S/svg"
    # the file is shown by its name, entities and all
    grep -q 'a &quot;b&quot;.*&amp;lt;' "$S/svg"
    [ "$(grep -c 'class="node"' "$S/svg")" = 3 ]
}

@test "tree: sums of what came from a handle, beside its own" {
    head -c 10000 /dev/zero >"$S/src/a"
    k42_mount -o io=counted
    family "$S/mnt/a"
    run -0 ctl tree -b "$S/mnt"
    echo "$output"
    [[ ${lines[0]} == HANDLE*TREE_READ_BYTES* ]]
    [ "$(awk 'NR > 1 { print $(NF-4), $(NF-3) }' <<<"$output" | tr '\n' ',')" = "1000 7000,2000 6000,4000 4000," ]
    [[ $(ctl tree --no-headings "$S/mnt" | head -n 1) == *" 1000 "*" 6.8K "*/a ]]
    ctl tree --json "$S/mnt" | json '
a = v[0]; b = a["children"][0]; c = b["children"][0]
assert [x["tree_read_bytes"] for x in (a, b, c)] == [7000, 6000, 4000], v
assert c["children"] == [] and a["tree_reads"] == 3 and a["tree_writes"] == 0'
    # a filter keeps the ancestors
    run -0 ctl tree --no-headings -Q 'read_bytes == 2000' "$S/mnt"
    [ "${#lines[@]}" = 2 ]
    run -0 ctl tree --no-headings -Q 'tree_read_bytes > 6000' "$S/mnt"
    [ "${#lines[@]}" = 1 ]
    # the same as a picture
    ctl graph "$S/mnt" >"$S/dot"
    [ "$(grep -c 'color=blue' "$S/dot")" = 2 ]
    [ "$(grep -c 'shape=ellipse' "$S/dot")" = 3 ]
    ctl graph -Q 'read_bytes == 2000' "$S/mnt" >"$S/dot"
    [ "$(grep -c 'shape=ellipse' "$S/dot")" = 1 ]
}

@test "graph: what is wrong with it is one line" {
    k42_mount
    run -0 ctl graph "$S/mnt"
    [ "${lines[0]}" = "digraph k42fs {" ]
    mkdir "$S/empty"
    run -1 env PATH="$S/empty" "$K42CTL" graph --svg "$S/mnt"
    [[ $output == "k42ctl: graph: dot(1) is not installed"* ]]
    [ "${#lines[@]}" = 1 ]
    run -2 ctl graph -T 'svg -o/etc/passwd' "$S/mnt"
    run -2 ctl graph -T png --svg "$S/mnt"
    command -v dot >/dev/null || skip "no Graphviz"
    run -1 --separate-stderr ctl graph -T nonsense "$S/mnt"
    [[ $stderr == *"k42ctl: graph: dot(1) has failed"* ]]
}

@test "history: what was closed, with the same columns and filters; and that none is kept" {
    echo hello >"$S/src/a"
    k42_mount
    run -1 ctl history "$S/mnt"
    [[ $output == "k42ctl: $S/mnt: no history is kept: mount with -o history=N" ]]
    k42_umount
    k42_mount -o history=5,io=counted
    ctl history --json "$S/mnt" | json 'assert v == []'
    python3 -c '
import os, sys, time
for i in range(7):
    fd = os.open(sys.argv[1], os.O_RDONLY)
    os.pread(fd, i, 0)
    if i == 6:
        time.sleep(0.3)
    os.close(fd)
    time.sleep(0.02)  # the kernel does not wait until the daemon knows' "$S/mnt/a"
    for ((i = 0; i < 100; i++)); do
        [ "$(ctl list --json "$S/mnt")" = "[]" ] && break
        sleep 0.05
    done
    ctl history --json "$S/mnt" | json '
assert [r["read_bytes"] for r in v] == [2, 3, 4, 5, 6], v
assert all(r["closed"] >= r["opened"] and r["type"] == "FILE" for r in v), v
assert 0.3 <= v[4]["duration"] < 5 and v[4]["path"] == "/a", v
assert [r["closed"] for r in v] == sorted(r["closed"] for r in v)'
    [ "$(ctl history --no-headings -o read_bytes -Q 'duration > 0.2' "$S/mnt")" = 6 ]
    [[ $(ctl history "$S/mnt" | head -n 1) == *CLOSED*DURATION*HANDLE* ]]
    ctl history --help | grep -q '^  closed '
    k42_umount
}

@test "top: rates, as text" {
    head -c 100000 /dev/zero >"$S/src/a"
    k42_mount -o io=counted
    background '
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
other = os.open(sys.argv[1], os.O_RDONLY)
print("ready", flush=True)
while True:
    os.pread(fd, 1000, 0)
    time.sleep(0.01)' "$S/mnt/a"
    run -0 ctl top --batch -n 2 -d 0.5 -b -o read_rate,op_rate,path "$S/mnt"
    echo "$output"
    [ "$(grep -c '^k42ctl top ' <<<"$output")" = 2 ]
    # the first look has no rates; in the second the busy one comes first
    [[ ${lines[2]} == *-*-*/a ]]
    tail -n 2 <<<"$output" | awk 'NR == 1 { busy = $1 } END { exit !(busy > 1000 && busy < 110000 && $1 == 0) }'
    # not a terminal is --batch
    [ "$(ctl top -n 1 --no-headings -s pid -R "$S/mnt" | wc -l)" = 3 ]
    run -2 ctl top -d 0 "$S/mnt"
    run -2 ctl top --sort nonsense "$S/mnt"
    # a daemon that is gone: said to, and it goes on
    K42_STATE_STAYS=1
    k42_kill_daemon
    run -1 --separate-stderr ctl top --batch -n 2 -d 0.1 "$S/mnt"
    [ "$(grep -c dead <<<"$stderr")" = 2 ]
    [ "$(grep -c '^k42ctl top .* handles 0' <<<"$output")" = 2 ]
    timeout 10 umount -l "$S/mnt"
    forget_links "$S/state"
}

@test "top: on a terminal" {
    K42_STATE_STAYS=1
    head -c 100000 /dev/zero >"$S/src/busy"
    k42_mount -o io=counted
    hold "$S/mnt/busy"
    timeout 60 python3 "$K42_TESTS/control/top_on_pty.py" "$K42CTL" "$S/mnt" "$K42_HOLDER"
    run -1 env TERM=nonsense script -qec "$K42CTL top $S/mnt" /dev/null
    [[ $output == *"this terminal is not known"* ]]
    timeout 10 umount -l "$S/mnt"
    forget_links "$S/state"
}

@test "another user sees, live and closed, his own only" {
    [ "$(id -u)" = 0 ] || skip "needs root to become another user"
    echo x >"$S/src/a"
    chmod 644 "$S/src/a"
    k42_mount -o history=10
    cat "$S/mnt/a" >"$S/out"
    setpriv --reuid=65534 --clear-groups cat "$S/mnt/a" >"$S/out"
    hold "$S/mnt/a"
    setpriv --reuid=65534 --clear-groups bash -c 'exec 9<"$1"; echo ready; exec sleep 600' _ \
        "$S/mnt/a" >"$S/ready" 3>&- &
    HOLDERS+=("$!")
    for ((i = 0; i < 200; i++)); do grep -q ready "$S/ready" && break; sleep 0.05; done
    # the build tree may be where others cannot go
    cp "$K42CTL" "$S/k42ctl"
    chmod 755 "$S/k42ctl"
    as_nobody() { timeout 30 setpriv --reuid=65534 --clear-groups "$S/k42ctl" "$@"; }
    for verb in list tree history; do
        [ "$(ctl "$verb" -o uid --no-headings "$S/mnt" | sort -u | wc -l)" = 2 ]
        [ "$(as_nobody "$verb" -o uid --no-headings "$S/mnt" | sort -u | tr -d ' ')" = 65534 ]
    done
    as_nobody top -n 1 "$S/mnt" | grep -q 'processes 1  handles 1 '
    [ "$(as_nobody graph "$S/mnt" | grep -c shape=ellipse)" = 1 ]
}
