# SPDX-License-Identifier: LGPL-2.1-or-later
# What the bats files that look with k42ctl share.  Load it after lib, set HOLDERS=() in setup() and call
# end_holders in teardown().

end_holders() {
    local p
    for p in "${HOLDERS[@]}"; do kill -KILL "$p" 2>/dev/null; wait "$p" 2>/dev/null; done
}

ctl() { timeout 30 "$K42CTL" "$@"; }

# json CODE: runs Python CODE with the JSON on stdin in v; fails if the code says so.
json() { python3 -c '
import json, sys
v = json.load(sys.stdin)
'"$1"; }

# background CODE ARG…: Python CODE in a process that says "ready" when it is, and stays; its pid is in $HOLDER.
background() {
    rm -f "$S/ready" # an earlier one's
    python3 -c "$@" >"$S/ready" 3>&- &
    HOLDER=$!
    HOLDERS+=("$HOLDER")
    local i
    for ((i = 0; i < 200; i++)); do grep -qs ready "$S/ready" && break; sleep 0.05; done
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

# release PID: ends one of them.
release() {
    kill -KILL "$1"
    wait "$1" 2>/dev/null || true
}
