#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""reopen_peers.py SOCKET FILE [STUCK]: what anybody can send to the socket of REOPEN_BY_DAEMON: noise, pieces,
descriptors of all kinds and numbers, what lingers at its close, and, of STUCK, a file on a file system whose server
does not answer, so that it never closes.  Afterwards, and with all of that still open, a good request is
answered.  It says `ready` before STUCK's server is to be stopped and `served` when all is done, and goes on at a line
of its input."""
import array
import ctypes
import os
import random
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "private"))
from lingering import lingering
from reopen_ask import GOOD, ask

where, path = sys.argv[1:3]
stuck = sys.argv[3] if len(sys.argv) > 3 else None
seed = int(os.environ.get("K42_SEED", random.randrange(1 << 32)))
print("seed", seed)
random.seed(seed)
good_fd = os.open(path, os.O_RDONLY)
held = []
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
NOBODY = 65534
FIRST_SUBUID, SUBUIDS = 100000, 40


def send(body, fds):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.setblocking(False)
    s.connect(where)
    deadline = time.monotonic() + 10
    while True:
        try:
            s.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] * bool(fds))
            break
        except BlockingIOError:
            assert time.monotonic() < deadline, "nobody takes datagrams any more"
            time.sleep(0.002)
    held.append(s)


def expect_good(what):
    start = time.monotonic()
    error, fd = ask(where, GOOD, good_fd)
    assert error == 0, (what, error)
    os.close(fd)
    assert time.monotonic() - start < 10, what


def pieces():
    for n in list(range(20)) + [100, 4096]:
        send(random.randbytes(n), [])
        send((GOOD + random.randbytes(4096))[:n], [good_fd, good_fd])
    for body in struct.pack("=HHIii", 2, 16, 0, 0, 0), struct.pack("=HHIii", 1, 16, 1, 0, 0):
        send(body, [good_fd, good_fd])


def descriptors():
    r, w = os.pipe()
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path_fd = os.open(path, os.O_PATH)
    kinds = [r, w, theirs.fileno(), path_fd, os.open("/", os.O_RDONLY),
             os.open("/proc/self/mem", os.O_RDONLY), os.open("/dev/null", os.O_RDWR), os.memfd_create("x"), good_fd]
    for _ in range(60):
        send(GOOD, [random.choice(kinds) for _ in range(random.choice((1, 2, 2, 2, 3, 30)))])
    send(GOOD, [good_fd] * 253)
    os.close(path_fd)
    mine.close() # some of that was good, and answered
    theirs.close()


def send_lingering():
    """What is left over is closed by the kernel where it is received; this waits until its data are taken."""
    for _ in range(3):
        s, kept = lingering()
        held.append(kept)
        send(GOOD, [good_fd, good_fd, good_fd, s.fileno()])
        s.close()


def send_stuck(fd, count):
    for _ in range(count):
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held.extend((mine, theirs))
        send(GOOD, [fd, theirs.fileno()])


def stay():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pause()


def child(fn, as_root=lambda pid: None):
    """Runs it in a child, which stays as long as we do.  Where it calls what it is given, `as_root` runs here."""
    go, went = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(good_fd)
            os.close(went[0])
            fn(lambda: (os.write(went[1], b"r"), os.read(go[0], 1)))
            os.write(went[1], b"d")
            stay()
        finally:
            os._exit(1)
    os.close(went[1])
    assert os.read(went[0], 1) == b"r"
    as_root(pid)
    os.write(go[1], b"g")
    assert os.read(went[0], 1) == b"d", "the child failed"


def user(fd):
    def run(go_on):
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        go_on()
        send_stuck(fd, 16)

    child(run)


def many_users(fd):
    """One who has a range of user ids of his own, as newuidmap gives them to anybody."""
    def run(go_on):
        has = libc.unshare(CLONE_NEWUSER) == 0
        go_on()
        for uid in range(SUBUIDS) if has else ():
            r, w = os.pipe()
            if os.fork() == 0:
                os.setresuid(uid, uid, uid)
                send_stuck(fd, 2)
                os.write(w, b"d")
                stay()
            os.close(w)
            assert os.read(r, 1) == b"d", uid

    def give_range(pid):
        try:
            with open(f"/proc/{pid}/uid_map", "w") as f:
                f.write(f"0 {FIRST_SUBUID} {SUBUIDS}")
        except PermissionError:
            print("no user namespaces here", flush=True)

    child(run, give_range)


for what in pieces, descriptors, send_lingering:
    what()
    expect_good(what.__name__)
if stuck:
    fd = os.open(stuck, os.O_RDONLY)
    print("ready", flush=True)
    sys.stdin.readline()
    for what in user, many_users:
        what(fd)
        expect_good(what.__name__)
    os.close(good_fd)
    print("served", flush=True)
    sys.stdin.readline()
