#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changes things in SOURCE, not through the mount, and waits until the mount shows it.

    seen.py SOURCE MOUNTPOINT [--rounds N] [--limit MS] [--only KIND,…]

Before each change the kernel has been made to know the old state, through the mount.  Looking costs
the mount nothing while the kernel believes what it knows.  Prints a line for each kind and one for
all.  A kind fails when half of its rounds took longer than the limit (a machine may be busy, once),
or when one was not seen within two seconds.
"""
import argparse
import ctypes
import mmap
import os
import shutil
import statistics
import stat
import struct
import sys
import time

GIVE_UP = 2.0
KINDS = {}


def kind(fn):
    KINDS[fn.__name__.replace("_", "-")] = fn
    return fn


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data=b"old"):
    with open(path, "wb") as f:
        f.write(data)


def missing(path):
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    return False


def settle():
    """What was done until now has been told: what is looked at from here on stays known."""
    time.sleep(ARGS.settle / 1000)


def warm(path):
    """The kernel knows the name, the attributes and the contents."""
    settle()
    try:
        if stat.S_ISREG(os.lstat(path).st_mode):
            read(path)
        elif stat.S_ISDIR(os.lstat(path).st_mode):
            os.listdir(path)
        os.lstat(path)
    except FileNotFoundError:
        pass


# Each gets an empty directory in SOURCE and the same one in the mount, and yields once when the old
# state is known to the kernel.  Behind that it makes the change, and returns what is true when it is
# seen.

@kind
def create(s, m):
    warm(m)
    yield
    write(s + "/f", b"new")
    return lambda: "f" in os.listdir(m) and read(m + "/f") == b"new"


@kind
def negative(s, m):
    warm(m + "/f")
    yield
    write(s + "/f", b"new")
    return lambda: not missing(m + "/f")


@kind
def delete(s, m):
    write(s + "/f")
    warm(m + "/f")
    yield
    os.unlink(s + "/f")
    return lambda: missing(m + "/f") and os.listdir(m) == []


@kind
def make_directory(s, m):
    warm(m + "/d")
    nlink = os.stat(m).st_nlink
    yield
    os.mkdir(s + "/d")
    return lambda: os.path.isdir(m + "/d") and os.stat(m).st_nlink == nlink + 1


@kind
def remove_directory(s, m):
    os.mkdir(s + "/d")
    warm(m + "/d")
    yield
    os.rmdir(s + "/d")
    return lambda: missing(m + "/d")


@kind
def rename_within(s, m):
    write(s + "/a")
    warm(m + "/a")
    warm(m + "/b")
    yield
    os.rename(s + "/a", s + "/b")
    return lambda: missing(m + "/a") and read(m + "/b") == b"old"


@kind
def rename_changes_ctime(s, m):
    write(s + "/a")
    warm(m + "/a")
    fd = os.open(m + "/a", os.O_RDONLY)
    before = os.fstat(fd).st_ctime_ns
    time.sleep(0.01)
    yield
    os.rename(s + "/a", s + "/b")
    return lambda: os.fstat(fd).st_ctime_ns != before and os.close(fd) is None


@kind
def rename_between(s, m):
    for d in "/x", "/y":
        os.mkdir(s + d)
    write(s + "/x/a")
    warm(m + "/x/a")
    warm(m + "/y/a")
    yield
    os.rename(s + "/x/a", s + "/y/a")
    return lambda: missing(m + "/x/a") and not missing(m + "/y/a")


@kind
def rename_directory_between(s, m):
    os.makedirs(s + "/x/d/e")
    os.mkdir(s + "/y")
    warm(m + "/x/d/e")
    warm(m + "/y/d")
    yield
    os.rename(s + "/x/d", s + "/y/d")
    return lambda: missing(m + "/x/d") and os.path.isdir(m + "/y/d/e")


@kind
def rename_out(s, m):
    write(s + "/a")
    warm(m + "/a")
    yield
    os.rename(s + "/a", os.path.dirname(ARGS.source) + "/outside")
    return lambda: missing(m + "/a")


@kind
def rename_into(s, m):
    write(os.path.dirname(ARGS.source) + "/outside", b"new")
    write(s + "/a")
    warm(m + "/a")
    yield
    os.rename(os.path.dirname(ARGS.source) + "/outside", s + "/a")
    return lambda: read(m + "/a") == b"new"


@kind
def replace(s, m):
    write(s + "/a")
    write(s + "/b", b"new, and longer")
    warm(m + "/a")
    warm(m + "/b")
    yield
    os.rename(s + "/b", s + "/a")
    return lambda: read(m + "/a") == b"new, and longer" and missing(m + "/b")


@kind
def exchange(s, m):
    write(s + "/a", b"1")
    write(s + "/b", b"2")
    warm(m + "/a")
    warm(m + "/b")
    yield
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, (s + "/a").encode(), -100, (s + "/b").encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")
    return lambda: read(m + "/a") == b"2" and read(m + "/b") == b"1"


@kind
def write_same_size(s, m):
    write(s + "/f", b"old")
    warm(m + "/f")
    yield
    with open(s + "/f", "r+b") as f:
        f.write(b"new")
    return lambda: read(m + "/f") == b"new"


@kind
def write_seen_by_open_file(s, m):
    write(s + "/f", b"old")
    settle()
    fd = os.open(m + "/f", os.O_RDONLY)
    os.pread(fd, 10, 0)
    yield
    with open(s + "/f", "r+b") as f:
        f.write(b"new")
    return lambda: os.pread(fd, 10, 0) == b"new" and os.close(fd) is None


@kind
def append(s, m):
    write(s + "/f")
    warm(m + "/f")
    yield
    with open(s + "/f", "ab") as f:
        f.write(b"er")
    return lambda: os.stat(m + "/f").st_size == 5 and read(m + "/f") == b"older"


@kind
def truncate(s, m):
    write(s + "/f", b"x" * 9000)
    warm(m + "/f")
    yield
    os.truncate(s + "/f", 5000)
    return lambda: os.stat(m + "/f").st_size == 5000 and len(read(m + "/f")) == 5000


@kind
def mapping(s, m):
    """A page that a process has mapped through the mount."""
    write(s + "/f", b"old" + bytes(8000))
    settle()
    fd = os.open(m + "/f", os.O_RDONLY)
    pages = mmap.mmap(fd, 8000, prot=mmap.PROT_READ)
    assert pages[:3] == b"old"
    yield
    with open(s + "/f", "r+b") as f:
        f.write(b"new")

    def seen():
        if pages[:3] != b"new":
            return False
        pages.close()
        os.close(fd)
        return True
    return seen


@kind
def stores_of_others(s, m):
    """No event tells of them; the end of the mapping does."""
    write(s + "/f", b"old" + bytes(8000))
    warm(m + "/f")
    fd = os.open(s + "/f", os.O_RDWR)
    pages = mmap.mmap(fd, 8000)
    os.close(fd)
    time.sleep(0.01)
    yield
    pages[:3] = b"new"
    pages.close()
    return lambda: os.stat(m + "/f").st_mtime_ns == os.stat(s + "/f").st_mtime_ns and read(m + "/f")[:3] == b"new"


@kind
def chmod(s, m):
    write(s + "/f")
    warm(m + "/f")
    yield
    os.chmod(s + "/f", 0o751)
    return lambda: stat.S_IMODE(os.stat(m + "/f").st_mode) == 0o751


@kind
def chmod_directory(s, m):
    os.mkdir(s + "/d")
    warm(m + "/d")
    yield
    os.chmod(s + "/d", 0o751)
    return lambda: stat.S_IMODE(os.stat(m + "/d").st_mode) == 0o751


@kind
def chown(s, m):
    write(s + "/f")
    warm(m + "/f")
    yield
    os.chown(s + "/f", 1234, 4321)
    return lambda: (os.stat(m + "/f").st_uid, os.stat(m + "/f").st_gid) == (1234, 4321)


@kind
def utimens(s, m):
    write(s + "/f")
    warm(m + "/f")
    yield
    os.utime(s + "/f", (100, 200))
    return lambda: (os.stat(m + "/f").st_atime, os.stat(m + "/f").st_mtime) == (100, 200)


@kind
def setxattr(s, m):
    write(s + "/f")
    settle()
    before = os.stat(m + "/f").st_ctime_ns
    time.sleep(0.01)
    yield
    os.setxattr(s + "/f", "user.k", b"v")
    return lambda: os.getxattr(m + "/f", "user.k") == b"v" and os.stat(m + "/f").st_ctime_ns != before


@kind
def acl(s, m):
    """Who may read it, by an ACL that the kernel had cached."""
    write(s + "/f")
    os.chmod(s + "/f", 0o600)
    os.chmod(s, 0o755)

    def readable():
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(1234)
                os.setuid(1234)
                read(m + "/f")
                os._exit(0)
            except OSError:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0
    settle()
    assert not readable()
    yield
    # user::rw-, user:1234:r--, group::---, mask::r--, other::---
    entries = [(1, 6, 0xffffffff), (2, 4, 1234), (4, 0, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)]
    os.setxattr(s + "/f", "system.posix_acl_access",
                struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries))
    return readable


@kind
def link(s, m):
    write(s + "/f")
    warm(m + "/f")
    warm(m + "/g")
    yield
    os.link(s + "/f", s + "/g")
    return lambda: os.stat(m + "/f").st_nlink == 2 and os.path.exists(m + "/g")


@kind
def unlink_other_name(s, m):
    write(s + "/f")
    os.link(s + "/f", s + "/g")
    warm(m + "/f")
    yield
    os.unlink(s + "/g")
    return lambda: os.stat(m + "/f").st_nlink == 1


@kind
def symlink_replaced(s, m):
    os.symlink("one", s + "/l")
    settle()
    assert os.readlink(m + "/l") == "one"
    yield
    os.unlink(s + "/l")
    os.symlink("other", s + "/l")
    return lambda: not missing(m + "/l") and os.readlink(m + "/l") == "other"


@kind
def directory_replaced(s, m):
    os.mkdir(s + "/d")
    write(s + "/d/old")
    warm(m + "/d/old")
    warm(m + "/d/new")
    yield
    shutil.rmtree(s + "/d")
    os.mkdir(s + "/d")
    write(s + "/d/new")
    return lambda: os.listdir(m + "/d") == ["new"] and missing(m + "/d/old") and not missing(m + "/d/new")


@kind
def directory_becomes_file(s, m):
    os.mkdir(s + "/d")
    warm(m + "/d")
    yield
    os.rmdir(s + "/d")
    write(s + "/d", b"new")
    return lambda: os.path.isfile(m + "/d") and read(m + "/d") == b"new"


@kind
def listing(s, m):
    for i in range(50):
        write(f"{s}/{i}")
    settle()
    for _ in range(3):
        assert len(os.listdir(m)) == 50
    yield
    os.unlink(s + "/7")
    write(s + "/seven")
    return lambda: "seven" in os.listdir(m) and "7" not in os.listdir(m)


@kind
def changes_of_directory_times(s, m):
    settle()
    before = os.stat(m).st_mtime_ns
    time.sleep(0.01)
    yield
    write(s + "/f")
    return lambda: os.stat(m).st_mtime_ns != before


def one_round(fn, number):
    s, m = (f"{top}/t{number}" for top in (ARGS.source, ARGS.mountpoint))
    os.mkdir(s)
    steps = fn(s, m)
    os.stat(m)
    next(steps)
    started = time.monotonic()
    try:
        next(steps)
        raise AssertionError("yields twice")
    except StopIteration as end:
        seen = end.value
    taken = None
    while time.monotonic() - started < GIVE_UP:
        try:
            if seen():
                taken = (time.monotonic() - started) * 1000
                break
        except OSError:  # a name that is there and is gone
            pass
    shutil.rmtree(s)
    return taken


def main():
    all_taken, bad, number = [], 0, 0
    for name in ARGS.only or KINDS:
        taken = []
        for _ in range(ARGS.rounds):
            number += 1
            taken.append(one_round(KINDS[name], number))
        lost = taken.count(None)
        taken = sorted(t for t in taken if t is not None)
        median = statistics.median(taken) if taken else float("inf")
        fails = lost > 0 or median > ARGS.limit
        bad += fails
        all_taken += taken
        print(f"{'FAIL' if fails else 'ok'} {name}: median {median:.2f} ms, "
              f"worst {taken[-1] if taken else float('inf'):.2f} ms, {lost} not seen")
    all_taken.sort()
    if all_taken:
        print(f"all {len(all_taken)}: median {statistics.median(all_taken):.2f} ms, "
              f"p99 {all_taken[len(all_taken) * 99 // 100]:.2f} ms, worst {all_taken[-1]:.2f} ms")
    return bad > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("mountpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=100)
    parser.add_argument("--settle", type=float, default=25, help="ms from the last preparation to looking")
    parser.add_argument("--only", type=lambda s: s.split(","), default=[])
    ARGS = parser.parse_args()
    os.umask(0o22)
    sys.exit(main())
