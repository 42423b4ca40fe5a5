#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Has all kinds of things open on a mount, kills its daemon three times, and looks whether they go on.

    goes_on.py MOUNTPOINT K42CTL PARKED

PARKED: so many descriptors the daemon should have left with its holder.
"""
import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import time

mnt, k42ctl, expect_parked = sys.argv[1], sys.argv[2], int(sys.argv[3])


def ask(verb):
    for _ in range(200):
        p = subprocess.run([k42ctl, verb, "--json", mnt], capture_output=True, text=True, timeout=20)
        if p.returncode == 0:
            return json.loads(p.stdout)
        time.sleep(0.05)
    sys.exit(f"{verb}: {p.stderr}")


def kill():
    worker = ask("status")["worker_pid"]
    os.kill(worker, signal.SIGKILL)
    for _ in range(200):
        if ask("status")["worker_pid"] != worker:
            return
        time.sleep(0.02)
    sys.exit("no other worker came")


def same(what, is_, should):
    if is_ != should:
        sys.exit(f"{what}: {is_!r} instead of {should!r}")


def settled(name, should):
    """What is closed or removed is told to the daemon a moment later, one thing sooner than the other: so the
    number may be right for a moment before it is."""
    times = 0
    for _ in range(200):
        value = ask("stats")[name]
        times = times + 1 if value == should else 0
        if times == 3:
            return
        time.sleep(0.02)
    sys.exit(f"{name}: {value} instead of {should}")


def at(name):
    return os.path.join(mnt, name)


def make(name, data, flags=os.O_RDWR):
    with open(at(name), "wb") as f:
        f.write(data)
    return os.open(at(name), flags)


read = make("read", b"read", os.O_RDONLY)
write = make("write", b".....", os.O_WRONLY)
append = make("append", b"append", os.O_RDWR | os.O_APPEND)
created = os.open(at("created"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TRUNC)
os.write(created, b"created")
gone = make("gone", b"gone", os.O_RDWR)
gone_read = os.open(at("gone"), os.O_RDONLY)
os.unlink(at("gone"))
replaced = make("replaced", b"replaced")
make_over = make("over", b"over")
os.rename(at("over"), at("replaced"))
nameless = os.open(mnt, os.O_TMPFILE | os.O_RDWR)
os.write(nameless, b"nameless")
moved = make("moved", b"moved")
os.mkdir(at("dir"))
os.rename(at("moved"), at("dir/here"))
os.rename(at("dir"), at("moved-dir"))
names = os.open(at("moved-dir"), os.O_RDONLY)
path_only = os.open(at("read"), os.O_PATH)
path_gone = make("path-gone", b"p", os.O_PATH)
os.unlink(at("path-gone"))
mapped = make("mapped", b"m" * 4096)
store = mmap.mmap(mapped, 4096)
linked = make("linked", b"linked")
os.link(at("linked"), at("second"))
os.unlink(at("linked"))
os.mkdir(at("cwd"))
os.chdir(at("cwd"))
os.rmdir(at("cwd"))
os.lseek(read, 2, os.SEEK_SET)

settled("parked", expect_parked)
counted = [ask("stats") for _ in range(5)]
before = {name: min(stats[name] for stats in counted) for name in ("parked", "descriptions", "handles")}
for n in range(3):
    kill()
    for name in before:
        settled(name, before[name])  # k42ctl's own open of the directory is among them for a moment
    digit = b"%d" % n
    same("read", os.pread(read, 10, 0), b"read")
    same("offset", os.lseek(read, 0, os.SEEK_CUR), 2)
    os.pwrite(write, digit, n)
    os.write(append, digit)
    same("append", os.pread(append, 20, 0), b"append012"[: 7 + n])
    same("created", os.pread(created, 20, 0), b"created")
    os.pwrite(gone, digit, 0)
    same("gone", os.pread(gone_read, 20, 0), digit + b"one")
    same("gone's links", os.fstat(gone).st_nlink, 0)
    same("replaced", os.pread(replaced, 20, 0), b"replaced")
    same("over", os.pread(make_over, 20, 0), b"over")
    os.pwrite(nameless, digit, 0)
    same("nameless", os.pread(nameless, 20, 0), digit + b"ameless")
    same("moved", os.pread(moved, 20, 0), b"moved")
    same("names", os.listdir(names), ["here"])
    same("an O_PATH descriptor's size", os.fstat(path_only).st_size, 4)
    same("what it refers to has no name", os.fstat(path_gone).st_nlink, 0)
    store[0:1] = digit
    store.flush()
    same("mapped", os.pread(mapped, 2, 0), digit + b"m")
    same("linked", os.pread(linked, 20, 0), b"linked")
    same("the directory that was removed", os.stat(".").st_nlink, 0)
    same("its names", os.listdir("."), [])
    with open(at("second")) as f:
        same("second", f.read(), "linked")

same("write", open(at("write")).read(), "012..")
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
if libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % nameless, AT_FDCWD, at("named").encode(), AT_SYMLINK_FOLLOW) < 0:
    sys.exit(f"linkat: {os.strerror(ctypes.get_errno())}")
same("named", open(at("named")).read(), "2ameless")
store.close()
for fd in (read, write, append, created, gone, gone_read, replaced, make_over, nameless, moved, names, path_only,
           path_gone, mapped, linked):
    os.close(fd)
os.chdir("/")
settled("parked", 0)
settled("descriptions", 0)
