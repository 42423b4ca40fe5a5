#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Seeing: who has what open, with columns and filters; lineage with sums; live; closed handles; a picture.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    HOLDERS=()
}

teardown() {
    local p
    for p in "${HOLDERS[@]}"; do kill -KILL "$p" 2>/dev/null; wait "$p" 2>/dev/null; done
    k42_cleanup
}

ctl() { timeout 30 "$K42CTL" "$@"; }

# json CODE: runs Python CODE with the JSON on stdin in v; fails if the code says so.
json() { python3 -c '
import json, sys
v = json.load(sys.stdin)
'"$1"; }

# background CODE ARG…: Python CODE in a process that says "ready" when it is, and stays; its pid is in $HOLDER.
background() {
    python3 -c "$@" >"$S/ready" 3>&- &
    HOLDER=$!
    HOLDERS+=("$HOLDER")
    local i
    for ((i = 0; i < 200; i++)); do grep -q ready "$S/ready" && break; sleep 0.05; done
    grep -q ready "$S/ready"
}

# hold FILE…: a process that has the files open (read-only) and does nothing.
hold() {
    background '
import os, sys, time
fds = [os.open(f, os.O_RDONLY) for f in sys.argv[1:]]
print("ready", flush=True)
time.sleep(600)' "$@"
}

# make_dead MOUNTPOINT PID: its daemon goes, with all that belongs to it, and the mount stays.
make_dead() {
    local number pids
    number=$(awk -v m="$1" '$5 == m { sub(/.*:/, "", $3); print $3 }' /proc/self/mountinfo)
    pids="$2 $(pgrep -P "$2" | tr '\n' ' ')"
    # shellcheck disable=SC2086
    kill -STOP $pids
    # without fusectl the kernel does it when the last of them is gone
    echo 1 2>/dev/null >"/sys/fs/fuse/connections/$number/abort" || true
    # shellcheck disable=SC2086
    kill -KILL $pids
    sleep 0.3
}

@test "a dead mount does not hide the others from list and tree" {
    K42_STATE_STAYS=1
    mkdir "$S/src2" "$S/mnt2"
    echo x >"$S/src/a"
    k42_mount
    k42_mount "$S/src2" "$S/mnt2" "$S/state2"
    hold "$S/mnt/a"
    make_dead "$S/mnt2" "$K42_PID"
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
    find -L /run/k42fs "${XDG_RUNTIME_DIR:-/nonexistent}/k42fs" -lname "$S/state2" -delete 2>/dev/null || true
}
