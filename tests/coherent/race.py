#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Others change SOURCE while programs look at it through the mount; afterwards both must be equal.

    race.py SOURCE MOUNTPOINT [--seconds N] [--seed N]

An invalidation that goes past a reply that was under way leaves the kernel with what is not true any
more, and with long timeouts for long.  Prints what differs when nothing has changed for half a second.
"""
import argparse
import os
import random
import shutil
import stat
import sys
import time

NAMES = [f"n{i}" for i in range(6)]
DIRS = ["", "d0", "d1", "d1/d2"]


def change(top, rng):
    at = f"{top}/{rng.choice(DIRS)}/"
    a, b = at + rng.choice(NAMES), f"{top}/{rng.choice(DIRS)}/{rng.choice(NAMES)}"
    what = rng.randrange(9)
    if what == 0:
        os.close(os.open(a, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    elif what == 1:
        os.unlink(a)
    elif what == 2:
        os.rename(a, b)
    elif what == 3:
        os.link(a, b)
    elif what == 4:
        os.chmod(a, rng.randrange(0o1000) | 0o400)
    elif what == 5:
        os.truncate(a, rng.randrange(20000))
    elif what == 6:
        fd = os.open(a, os.O_WRONLY)
        os.pwrite(fd, bytes([rng.randrange(256)]) * 100, rng.randrange(5000))
        os.close(fd)
    elif what == 7:
        os.symlink(str(rng.randrange(1000)), a)
    else:
        os.utime(a, (rng.randrange(10**9), rng.randrange(10**9)), follow_symlinks=False)


def look(top, rng):
    at = f"{top}/{rng.choice(DIRS)}"
    path = f"{at}/{rng.choice(NAMES)}"
    what = rng.randrange(4)
    if what == 0:
        os.lstat(path)
    elif what == 1:
        with os.scandir(at) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
    elif what == 2:
        with open(path, "rb") as f:
            f.read()
    else:
        os.stat(at)


def work(fn, top, seed, until, pause):
    rng = random.Random(seed)
    while time.monotonic() < until:
        try:
            fn(top, rng)
        except OSError:
            pass
        if pause:
            time.sleep(rng.random() * pause)


def describe(path):
    try:
        st = os.lstat(path)
        data = None
        if stat.S_ISREG(st.st_mode):
            with open(path, "rb") as f:
                data = hash(f.read())
        elif stat.S_ISLNK(st.st_mode):
            data = os.readlink(path)
        elif stat.S_ISDIR(st.st_mode):
            data = sorted(os.listdir(path))
        return (st.st_ino, oct(st.st_mode), st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns, data)
    except FileNotFoundError:
        return None


def main():
    for d in DIRS:
        os.makedirs(f"{ARGS.source}/{d}", exist_ok=True)
    until = time.monotonic() + ARGS.seconds
    children = []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            if n < 2:
                work(change, ARGS.source, ARGS.seed + n, until, 0.002)
            else:
                work(look, ARGS.mountpoint, ARGS.seed + n, until + 0.05, 0)
            os._exit(0)
        children.append(pid)
    bad = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
    time.sleep(0.5)
    for d in DIRS:
        for name in [""] + NAMES:
            path = f"/{d}/{name}"
            shown, real = describe(ARGS.mountpoint + path), describe(ARGS.source + path)
            if shown != real:
                bad += 1
                print(f"{path}: {shown} is shown, {real} is there")
    for entry in os.scandir(ARGS.source):
        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    return bad > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("mountpoint")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    ARGS = parser.parse_args()
    sys.exit(main())
