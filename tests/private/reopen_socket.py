#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""reopen_socket.py SOCKET OURS FOREIGN: what lazy/protocol.h says of REOPEN_BY_DAEMON."""
import errno
import fcntl
import functools
import os
import struct
import sys

import reopen_ask
from reopen_ask import GOOD

where, ours, foreign = sys.argv[1:]
ask = functools.partial(reopen_ask.ask, where)

fd = os.open(ours, os.O_RDONLY)
os.read(fd, 2)
error, new = ask(GOOD, fd)
assert error == 0 and os.fstat(new).st_ino == os.fstat(fd).st_ino
assert os.lseek(new, 0, 1) == 0 and os.lseek(fd, 0, 1) == 2, "its own description"
assert fcntl.fcntl(new, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
os.close(new)

writable = os.open(ours, os.O_WRONLY | os.O_TRUNC)
os.write(writable, b"more")
error, new = ask(GOOD, writable)
assert error == 0 and fcntl.fcntl(new, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
assert os.fstat(new).st_size == 4, "O_TRUNC is not repeated"
os.close(new)

elsewhere = os.open(foreign, os.O_RDONLY)
assert ask(GOOD, elsewhere)[0] == errno.EXDEV
r, w = os.pipe()
assert ask(GOOD, r)[0] == errno.EXDEV
path_only = os.open(ours, os.O_PATH)
assert ask(GOOD, path_only)[0] == errno.EBADF

for bad in (b"", b"x", GOOD[:-1], GOOD + b"\0", struct.pack("=HHIii", 2, 16, 0, 0, 0),
            struct.pack("=HHIii", 1, 15, 0, 0, 0), struct.pack("=HHIii", 1, 16, 1, 0, 0),
            struct.pack("=HHIii", 1, 16, 0, 1, 0), struct.pack("=HHIii", 1, 16, 0, 0, 1)):
    assert ask(bad, fd) is None, bad
assert ask(GOOD, with_answer=False) is None
assert ask(GOOD, fd, with_answer=False) is None
assert ask(GOOD, fd, fd, fd) is None
assert ask(GOOD) is None
for _ in range(60):  # more than are served at a time
    error, new = ask(GOOD, fd)
    assert error == 0
    os.close(new)
