#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""private_tree.py FILE K42CTL MOUNTPOINT, in private mode: a child and its child have handles of their own,
the child is killed, and then the handle of this process is revoked with --tree: the grandchild has to lose
its own."""
import json
import os
import signal
import subprocess
import sys

path, k42ctl, mountpoint = sys.argv[1:]
f = os.open(path, os.O_RDWR)
pid_r, pid_w = os.pipe()
go_r, go_w = os.pipe()
answer_r, answer_w = os.pipe()


def may():
    try:
        return len(os.pread(f, 1, 0))
    except OSError as e:
        assert e.errno == 9, e
        return 0


def handles():
    listed = subprocess.check_output([k42ctl, "list", "--json", mountpoint], timeout=60)
    return {h["pid"]: h for h in json.loads(listed)}


def be_grandchild():
    assert may()
    os.write(pid_w, b"%d" % os.getpid())
    os.read(go_r, 1)
    os.write(answer_w, b"%d" % may())


assert may()
child = os.fork()
if child == 0:
    assert may()
    if os.fork() == 0:
        be_grandchild()
        os._exit(0)
    signal.pause()
grandchild = int(os.read(pid_r, 16))
seen = handles()
assert seen[child]["parent"] == seen[os.getpid()]["handle"]
assert seen[grandchild]["parent"] == seen[child]["handle"]
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
while child in handles():
    pass
subprocess.run([k42ctl, "revoke", "--tree", seen[os.getpid()]["handle"], mountpoint], check=True, timeout=60)
os.write(go_w, b"g")
assert os.read(answer_r, 16) == b"0", "the grandchild may still read"
assert may() == 0
