#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""reopen_peers.py SOCKET FILE [STUCK]: what anybody can send to the socket of REOPEN_BY_DAEMON: noise, pieces,
descriptors of all kinds and numbers, and, of STUCK, a file on a file system whose server does not answer.
Afterwards, and with all of that still open, a good request is answered."""
import array
import os
import random
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "private"))
from reopen_ask import GOOD, ask

where, path = sys.argv[1:3]
stuck = sys.argv[3] if len(sys.argv) > 3 else None
seed = int(os.environ.get("K42_SEED", random.randrange(1 << 32)))
print("seed", seed)
random.seed(seed)
good_fd = os.open(path, os.O_RDONLY)
held = []


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
    held.extend((mine, theirs))
    kinds = [r, w, theirs.fileno(), os.open(path, os.O_PATH), os.open("/", os.O_RDONLY),
             os.open("/proc/self/mem", os.O_RDONLY), os.open("/dev/null", os.O_RDWR), os.memfd_create("x"), good_fd]
    for _ in range(60):
        send(GOOD, [random.choice(kinds) for _ in range(random.choice((1, 2, 2, 2, 3, 30)))])
    send(GOOD, [good_fd] * 253)


for what in pieces, descriptors:
    what()
    expect_good(what.__name__)
if stuck:
    fd = os.open(stuck, os.O_RDONLY)
    print("ready", flush=True)
    sys.stdin.readline()  # its server is stopped now
    for _ in range(16):
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held.extend((mine, theirs))
        send(GOOD, [fd, theirs.fileno()])
    expect_good("stuck")
