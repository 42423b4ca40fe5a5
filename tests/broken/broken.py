#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Has all kinds of things open on a mount, and breaks what the next daemon needs while there is none.

    broken.py MOUNTPOINT SOURCE STATE K42CTL STEP…

What holds after each break: who reads through what is open gets the right bytes or an error, never another
file's; the mount goes on with the first
worker that comes, and files that are opened by name are right.  A STEP is one of

    WHAT:HOW         breaks the file WHAT of the state directory: missing, empty, short, garbage, zeros,
                     newer, replaced; or `state:removed`, `state:full`, `state:readonly`,
                     `state.db:locked`, `keep:handles`,
                     `keep:descriptions`
    all WHAT:HOW     the same, and nothing that is open may have failed by it
    random:SEED:N    N times: bytes of what comes from SEED, somewhere in keep, journal and requests
    source:SEED:N    N times: the files of SOURCE are replaced, deleted and moved by others
    source:replaced  SOURCE is moved, and another directory, with files of the same names, is where it was; it is
                     the last step of a mount
"""
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time

mnt, src, state, k42ctl = sys.argv[1:5]
# not EBADF: the descriptor is the program's own, and a good one
ERRORS = {errno.ESTALE, errno.EIO, errno.ENOENT}
SIZE = 20000
problems = 0


def at(name):
    return os.path.join(mnt, name)


def of(name):
    """What a file of that name, and no other, contains."""
    block = hashlib.sha256(name.encode()).digest() + name.encode().ljust(32)
    return (block * (SIZE // len(block) + 1))[:SIZE]


def problem(*words):
    global problems
    problems += 1
    print(*words, flush=True)


def status():
    for _ in range(400):
        p = subprocess.run([k42ctl, "status", "--json", mnt], capture_output=True, text=True, timeout=30)
        if p.returncode == 0:
            return json.loads(p.stdout)
        time.sleep(0.05)
    sys.exit(f"nobody answers: {p.stderr}")


def is_dead(pid):
    """With all of its threads: one that has not seen the kill yet can still take a request, and with it go."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def worker_of(holder):
    """The one that serves: the one in waiting has another name until its turn comes."""
    for _ in range(500):
        with open(f"/proc/{holder}/task/{holder}/children") as f:
            children = f.read().split()
        for pid in children:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as f:
                if f.read() == "k42fs\n" and not is_dead(pid):
                    return int(pid)
        time.sleep(0.01)
    sys.exit("nobody serves")


def while_dead(what, *args):
    """Calls it while nobody serves the mount, and waits until somebody does: at the first attempt."""
    worker = worker_of(holder)
    os.kill(holder, signal.SIGSTOP)
    try:
        os.kill(worker, signal.SIGKILL)
        while not is_dead(worker):
            time.sleep(0.01)
        what(*args)
    finally:
        os.kill(holder, signal.SIGCONT)
    os.close(os.open(mnt, os.O_TMPFILE | os.O_RDWR))
    next_worker = worker_of(holder)
    time.sleep(0.05)
    if worker_of(holder) != next_worker:
        problem("a worker died")


# ---- what is open ----

class Held:
    """A descriptor, and what may be read from it."""

    def __init__(self, name, flags, gone=False):
        with open(at(name), "wb") as f:
            f.write(of(name))
        self.name, self.right, self.fd = name, of(name), os.open(at(name), flags)
        if gone:
            os.unlink(at(name))

    def read(self):
        """All of it, from the daemon: a read through the page cache may be short, and the next one fail."""
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = b""
        while True:
            more = os.pread(self.fd, SIZE + 1, len(data))
            data += more
            if not more:
                return data
            if not self.right.startswith(data):
                return data

    def verify(self, all_go_on, step):
        try:
            data = self.read()
            if data != self.right:
                problem(f"{step}: {self.name}: {len(data)} wrong bytes, they begin with {data[:64]!r}")
            if os.fstat(self.fd).st_size != len(self.right):
                problem(f"{step}: {self.name}: has the size {os.fstat(self.fd).st_size}")
        except OSError as e:
            if all_go_on or e.errno not in ERRORS:
                problem(f"{step}: {self.name}: {e}")

    def reopen(self):
        """For the next step, if the last one ended it."""
        try:
            self.read()
            os.fchmod(self.fd, 0o644)
        except OSError:
            os.close(self.fd)
            if not os.path.exists(at(self.name)):
                with open(at(self.name), "wb") as f:
                    f.write(of(self.name))
            self.fd = os.open(at(self.name), os.O_RDWR)


class Everything:
    def __init__(self):
        for d in ("dir", "dir/below"):
            os.makedirs(at(d), exist_ok=True)
        self.files = [Held(f"{d}file{i}", os.O_RDONLY if i % 2 else os.O_RDWR)
                      for d in ("", "dir/", "dir/below/") for i in range(6)]
        self.files.append(Held("gone", os.O_RDWR, gone=True))
        self.written = Held("written", os.O_RDWR)
        self.files.append(self.written)
        self.dirs = {d: os.open(at(d), os.O_RDONLY | os.O_DIRECTORY) for d in ("", "dir", "dir/below")}
        self.locked = os.open(at("locked"), os.O_RDWR | os.O_CREAT)
        os.write(self.locked, b"locked")
        fcntl.flock(self.locked, fcntl.LOCK_EX)
        self.range = os.open(at("range"), os.O_RDWR | os.O_CREAT)
        fcntl.lockf(self.range, fcntl.LOCK_EX, 10)

    def verify(self, all_go_on, step):
        for f in self.files:
            f.verify(all_go_on, step)
        for d, fd in self.dirs.items():
            try:
                self.verify_dir(d, fd, step)
            except OSError as e:
                if all_go_on or e.errno not in ERRORS:
                    problem(f"{step}: directory {d}: {e}")
        self.write(all_go_on, step)
        self.by_name(step)
        self.locks(step)

    @staticmethod
    def verify_dir(d, fd, step):
        """It shows what is in SOURCE; what others did there is told to the kernel a moment later."""
        for _ in range(40):
            names, right = set(os.listdir(fd)), set(os.listdir(os.path.join(src, d)))
            if names == right:
                return
            time.sleep(0.05)
        problem(f"{step}: directory {d} shows {names}, and not {right}")

    def write(self, all_go_on, step):
        """What is written through a descriptor is in its own file, or it is an error."""
        data = of("written" + step)
        try:
            n = os.pwrite(self.written.fd, data, 0)
            self.written.right = data
            if n != SIZE:
                problem(f"{step}: {n} bytes were written")
            with open(os.path.join(src, "written"), "rb") as f:
                if f.read() != data:
                    problem(f"{step}: what was written is not there")
        except OSError as e:
            if all_go_on or e.errno not in ERRORS:
                problem(f"{step}: writing: {e}")

    def by_name(self, step):
        """What is opened anew is right, whatever was lost; what others did is told to the kernel a moment later."""
        for f in self.files:
            if f.name in ("gone", "written"):
                continue
            for _ in range(40):
                right, data = self.both(f.name)
                if data == right or isinstance(data, OSError):
                    break
                time.sleep(0.05)
            if data != right:
                problem(f"{step}: {f.name} by name is wrong: {data if isinstance(data, OSError) else ''}")
        self.make_new(step)

    @staticmethod
    def both(name):
        """What is there in SOURCE and through the mount: the contents, or None, or an error."""
        found = []
        for path in (os.path.join(src, name), at(name)):
            try:
                with open(path, "rb") as f:
                    found.append(f.read())
            except FileNotFoundError:
                found.append(None)
            except OSError as e:
                found.append(e)
        return found

    @staticmethod
    def make_new(step):
        new = at(f"new{random.getrandbits(60)}")
        os.mkdir(new)
        with open(new + "/new", "x") as f:
            f.write("new")
        os.rename(new + "/new", new + "/new2")
        with open(new + "/new2") as f:
            if f.read() != "new":
                problem(f"{step}: a new file is wrong")
        shutil.rmtree(new)

    def locks(self, step):
        """They are the kernel's: whoever asks by name meets them, as long as it is known that it is open."""
        for name, lock in (("locked", fcntl.flock), ("range", fcntl.lockf)):
            try:
                self.ask(self.locked if name == "locked" else self.range)
            except OSError:
                continue
            pid = os.fork()
            if pid == 0:
                with open(at(name), "r+") as f:
                    try:
                        lock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        os._exit(0)
                os._exit(1)
            if os.waitpid(pid, 0)[1] != 0:
                problem(f"{step}: {name} is not locked any more")

    def reopen(self):
        for f in self.files:
            f.reopen()
        for d, fd in self.dirs.items():
            if not self.works(fd, os.listdir):
                self.dirs[d] = os.open(at(d), os.O_RDONLY | os.O_DIRECTORY)
        for name, lock in (("locked", fcntl.flock), ("range", fcntl.lockf)):
            if not self.works(getattr(self, name), self.ask):
                fd = os.open(at(name), os.O_RDWR)
                setattr(self, name, fd)
                lock(fd, fcntl.LOCK_EX)

    @staticmethod
    def ask(fd):
        """Something that the kernel cannot answer: for the file, and for what is open."""
        os.fchmod(fd, 0o644)
        os.fsync(fd)

    @staticmethod
    def works(fd, use):
        try:
            use(fd)
            return True
        except OSError:
            os.close(fd)
            return False


# ---- breaking ----

def overwrite(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def break_file(name, how):
    path = os.path.join(state, name)
    size = os.path.getsize(path)
    if how == "missing":
        os.unlink(path)
    elif how == "empty":
        os.truncate(path, 0)
    elif how == "short":
        os.truncate(path, size // 2 + 100)
    elif how == "garbage":
        overwrite(path, 0, random.randbytes(size))
    elif how == "zeros":
        overwrite(path, 0, bytes(size))
    elif how == "head":
        overwrite(path, 0, random.randbytes(64))
    elif how == "newer":
        overwrite(path, 8, b"\xff\0\0\0")
    elif how == "replaced":
        os.rename(path, path + ".old")
        with open(path, "wb") as f:
            f.write(random.randbytes(size))
        os.unlink(path + ".old")
    else:
        sys.exit(f"nobody knows how to break a file so: {how}")


def break_handles():
    """What the records of files (kept_node.h) say of their file handles; all else in them is right."""
    path = os.path.join(state, "keep")
    with open(path, "rb") as f:
        data = f.read()
    broken = 0
    for name in [f.name for f in held.files if f.name != "gone"]:
        key = os.stat(os.path.join(src, name)).st_ino.to_bytes(8, sys.byteorder)
        where = data.find(key)
        while where >= 0:
            # id, dev, ino; 24 bytes on the type, and what is known of the handle
            kind = int.from_bytes(data[where + 32:where + 34], sys.byteorder)
            if where % 16 == 0 and kind == stat.S_IFREG and data[where + 35] > 0:
                overwrite(path, where + 36, random.randbytes(4 + data[where + 35]))
                broken += 1
            where = data.find(key, where + 1)
    if broken == 0:
        problem("no record of a file was found")


def lose_descriptions():
    """All records of what is open, as if they had never been written: their state (keep.c) is 0."""
    path = os.path.join(state, "keep")
    with open(path, "rb") as f:
        data = f.read()
    word = (0x6b33e5a95c970000 + 3).to_bytes(8, sys.byteorder)
    where = [at for at in range(0, len(data), 64) if data[at:at + 8] == word]
    for at in where:
        overwrite(path, at, bytes(8))
    if not where:
        problem("no record of a description was found")


class Database:
    """state.db is locked by somebody else for a while."""

    def __enter__(self):
        self.db = sqlite3.connect(os.path.join(state, "state.db"), isolation_level=None)
        self.db.execute("BEGIN EXCLUSIVE")

    def __exit__(self, *_):
        self.db.execute("ROLLBACK")
        self.db.close()


def fill_state():
    fd = os.open(os.path.join(state, "ballast"), os.O_WRONLY | os.O_CREAT)
    for size in (65536, 512):
        try:
            while os.write(fd, bytes(size)) > 0:
                pass
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
    os.close(fd)


@contextlib.contextmanager
def readonly_state():
    """For whoever opens something there, by its name or by the directory's descriptor."""
    names = [os.path.join(state, n) for n in os.listdir(state)]
    # a socket cannot be made immutable
    names = [n for n in names if stat.S_ISREG(os.lstat(n).st_mode)] + [state]

    def begin():
        subprocess.run(["chattr", "+i", *names], check=True)
        subprocess.run(["mount", "--bind", state, state], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", state], check=True)

    try:
        yield begin
    finally:
        subprocess.run(["umount", "-l", state])
        subprocess.run(["chattr", "-i", *names], check=True)


def replace_source():
    """SOURCE goes elsewhere; what the new one has is called the same, and is nothing of the mount's."""
    global src
    old = src
    src = old + ".moved"
    os.rename(old, src)
    for d in ("", "dir", "dir/below"):
        os.mkdir(os.path.join(old, d))
    for f in held.files:
        with open(os.path.join(old, f.name), "wb") as new:
            new.write(of(f"another {f.name}"))
    return old


def contents_of(top):
    return {os.path.join(d, n): open(os.path.join(d, n), "rb").read() for d, _, names in os.walk(top) for n in names}


def garbage(rng):
    """A few bytes somewhere: each file has been changed by many a round."""
    done = []
    for name in rng.sample(("keep", "journal", "requests"), rng.randint(1, 3)):
        path = os.path.join(state, name)
        size = os.path.getsize(path)
        for _ in range(rng.randint(1, 20)):
            where = rng.randrange(size) if rng.random() < 0.5 else rng.randrange(min(size, 200000))
            data = rng.randbytes(rng.choice((1, 1, 4, 8, 64, 1000)))[: size - where]
            overwrite(path, where, data)
            done.append((name, where, len(data)))
    return done


def change_source(rng, held):
    """What others do in SOURCE: the same name is another file."""
    for f in rng.sample(held.files, 6):
        path = os.path.join(src, f.name)
        if f.name in ("gone", "written"):
            continue
        how = rng.randrange(4)
        if not os.path.exists(path):
            with open(path, "wb") as new:
                new.write(of(f"another {f.name}"))
        elif how == 0:  # by rename
            with open(path + ".tmp", "wb") as new:
                new.write(of(f"another {f.name}"))
            os.rename(path + ".tmp", path)
        elif how == 1:  # its inode number may be had by the next one
            os.unlink(path)
            with open(path, "wb") as new:
                new.write(of(f"another {f.name}"))
        elif how == 2:
            os.unlink(path)
        else:  # two change places
            other = os.path.join(src, rng.choice(held.files[:18]).name)
            if other != path and os.path.exists(other):
                os.rename(path, path + ".tmp")
                os.rename(other, path)
                os.rename(path + ".tmp", other)


def run(step, held):
    all_go_on = step.startswith("all ")
    what, *how = step.removeprefix("all ").split(":")
    if what == "random":
        rng = random.Random(int(how[0]))
        # a byte can say that a right was taken back: that is believed, as the other way round would give it back
        ERRORS.add(errno.EBADF)
        for i in range(int(how[1])):
            did = []
            before = problems
            while_dead(lambda: did.extend(garbage(rng)))
            held.verify(False, f"{step}, round {i}")
            held.reopen()
            if problems > before:
                print(f"seed {how[0]}, round {i}: {did}")
    elif step == "all source:replaced":
        old = src
        while_dead(replace_source)
        before = contents_of(old)
        held.verify(all_go_on, step)
        while_dead(lambda: None)
        held.verify(all_go_on, step + ", and again")
        if contents_of(old) != before:
            problem(f"{step}: something was written to the other directory")
    elif what == "source":
        rng = random.Random(int(how[0]))
        for i in range(int(how[1])):
            while_dead(change_source, rng, held)
            held.verify(False, f"{step}, round {i}")
    else:
        if step.endswith("state.db:locked"):
            with Database():
                while_dead(lambda: None)
                held.verify(all_go_on, step)
        elif how == ["readonly"]:
            with readonly_state() as begin:
                while_dead(begin)
                held.verify(all_go_on, step)
                while_dead(lambda: None)
                held.verify(all_go_on, step + ", and a second worker")
        elif how == ["removed"]:
            while_dead(shutil.rmtree, state)
        elif how == ["full"]:
            while_dead(fill_state)
        elif how == ["handles"]:
            while_dead(break_handles)
        elif how == ["descriptions"]:
            while_dead(lose_descriptions)
        else:
            while_dead(break_file, what, how[0])
        held.verify(all_go_on, step)
        # and what it goes on with is not worse for the next one
        while_dead(lambda: None)
        held.verify(all_go_on, step + ", and again")
        if how == ["full"]:
            os.unlink(os.path.join(state, "ballast"))


holder = status()["holder_pid"]
held = Everything()
for step in sys.argv[5:]:
    before = problems
    run(step, held)
    print(f"{step}: {problems - before} problems", flush=True)
    held.reopen()
sys.exit(problems != 0)
