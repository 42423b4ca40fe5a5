#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Uses what it has open, and names, until there is a file STOP; then says how often, and how often it failed.

    reader.py DIRECTORY STOP
"""
import os
import sys
import time

directory, stop = sys.argv[1:]
CONTENTS = b"what is in the file\n"


def once(fd, gone):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if os.pread(fd, 100, 0) != CONTENTS:
        raise OSError("wrong bytes")
    os.pwrite(gone, CONTENTS, 0)
    if os.pread(gone, 100, 0) != CONTENTS or os.fstat(gone).st_nlink != 0:
        raise OSError("wrong bytes in the file that was removed")
    with open(os.path.join(directory, "new"), "wb") as f:
        f.write(CONTENTS)
    os.unlink(os.path.join(directory, "new"))


with open(os.path.join(directory, "held"), "wb") as f:
    f.write(CONTENTS)
held = os.open(os.path.join(directory, "held"), os.O_RDONLY)
removed = os.open(os.path.join(directory, "removed"), os.O_RDWR | os.O_CREAT)
os.unlink(os.path.join(directory, "removed"))
rounds = failed = 0
longest = 0.0
while not os.path.exists(stop):
    began = time.monotonic()
    try:
        once(held, removed)
    except OSError as e:
        failed += 1
        print(e, flush=True)
    rounds += 1
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.001)
print(f"{rounds} rounds, {failed} failed, longest {1000 * longest:.0f} ms")
sys.exit(failed > 0 or rounds < 20)
