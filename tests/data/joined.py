# SPDX-License-Identifier: LGPL-2.1-or-later
"""joined.py DIRECTORY SOURCE: a file that is open for reading is opened for reading again, often: then the daemon has
no descriptor of its own for the later ones.  Whatever needs one gets it, whatever has become of the file.  Prints what
each call returned; SOURCE is DIRECTORY itself, or what is behind it.  K42_WORKER: the daemon's pid, whose descriptors
of the file are counted."""
import errno
import os
import sys

directory, source = sys.argv[1:]
SIZE = 3 << 20
worker = os.environ.get("K42_WORKER")


def say(what, call):
    try:
        got = call()
    except OSError as e:
        got = errno.errorcode[e.errno]
    print(f"{what}: {got}")


def make(name):
    with open(f"{source}/{name}", "wb") as f:
        f.write(b"begin")
        f.seek(SIZE - 3)
        f.write(b"end")


def use(name, fd):
    for whence, what in (os.SEEK_DATA, "data"), (os.SEEK_HOLE, "hole"):
        say(f"{name} {what} from 100000", lambda: os.lseek(fd, 100000, whence))
    say(f"{name} fsync", lambda: os.fsync(fd))
    say(f"{name} size", lambda: os.fstat(fd).st_size)
    say(f"{name} read", lambda: os.pread(fd, 10, SIZE - 3))
    out = os.open(f"{directory}/copy", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    say(f"{name} copy", lambda: os.copy_file_range(fd, out, 5, 0, 0))
    say(f"{name} copied", lambda: os.pread(out, 10, 0))
    os.close(out)
    say(f"{name} write", lambda: os.write(fd, b"x"))


def held_by_worker(name):
    at, n = f"/proc/{worker}/fd", 0
    for fd in os.listdir(at):
        try:
            n += os.readlink(f"{at}/{fd}").startswith(f"{source}/{name}") and \
                 not int(next(l for l in open(f"/proc/{worker}/fdinfo/{fd}") if l.startswith("flags")).split()[1], 8) \
                 & os.O_PATH
        except (FileNotFoundError, StopIteration):
            pass
    return n


for name in "kept", "renamed", "removed", "removed-behind", "locked-up":
    make(name)
    fds = [os.open(f"{directory}/{name}", os.O_RDONLY) for _ in range(50)]
    if worker:
        assert held_by_worker(name) <= 1, f"{held_by_worker(name)} descriptors"
    if name == "renamed":
        os.rename(f"{directory}/{name}", f"{directory}/other")
    elif name == "removed":
        os.unlink(f"{directory}/{name}")
    elif name == "removed-behind":
        os.unlink(f"{source}/{name}")
    elif name == "locked-up":
        os.chmod(f"{directory}/{name}", 0)
    use(name, fds[0])
    use(name, fds[-1])
    for fd in fds:
        os.close(fd)
