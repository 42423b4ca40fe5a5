#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""reopen_refused.py SOCKET FILE K42CTL MOUNTPOINT: the daemon opens nothing for anybody with more rights than
were left on the description that he has, nor what was revoked."""
import errno
import os
import subprocess
import sys

from reopen_ask import GOOD, ask

where, path, k42ctl, mountpoint = sys.argv[1:]


def ctl(*words):
    subprocess.run([k42ctl, *words, mountpoint], check=True, timeout=60)


def error_of(fd):
    error, new = ask(where, GOOD, fd)
    if new is not None:
        os.close(new)
    return error


def opened(flags):
    fd = os.open(path, flags)
    assert error_of(fd) == 0
    return fd


# w is taken: what was opened for writing is not opened again, what was opened for reading is.  (Without
# c neither would be: who opens may restrict what he has opened.)
both, reading = opened(os.O_RDWR), opened(os.O_RDONLY)
ctl("restrict", str(os.getpid()), "rdc")
assert error_of(both) == errno.EACCES, error_of(both)
assert error_of(reading) == 0, error_of(reading)

# not even a descriptor that a child, or who got it from us, sends
pid = os.fork()
if pid == 0:
    os._exit(error_of(both))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EACCES

# d is taken: nothing
ctl("restrict", str(os.getpid()), "rc")
assert error_of(reading) == errno.EACCES, error_of(reading)

# revoked
subprocess.run([k42ctl, "revoke", path], check=True, timeout=60)
assert error_of(reading) in (errno.EACCES, errno.EBADF, errno.ESTALE), error_of(reading)
assert error_of(both) in (errno.EACCES, errno.EBADF, errno.ESTALE)
subprocess.run([k42ctl, "revoke", "--block", path], check=True, timeout=60)
assert error_of(reading) != 0
