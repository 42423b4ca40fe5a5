#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pool.py make KIND FILE            makes the file
pool.py run KIND FILE WORKERS READS  opens it once, forks WORKERS, has each read READS times, and compares
                                     what they got; prints FAILED TOTAL

Kinds: zip, npz, h5 (h5py on a Python file object), sqlite (blobs, by pread), tar (streamed by parent and
child at the same time)."""
import functools
import io
import os
import random
import sqlite3
import sys
import tarfile
import zipfile

MEMBERS = 60
TARRED = 200


@functools.cache
def content(i):
    return random.Random(i).randbytes(40000 + 370 * i)


def make_zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for i in range(MEMBERS):
            z.writestr("m%d" % i, content(i))


def open_zip(path):
    z = zipfile.ZipFile(path)
    return lambda i: z.read("m%d" % i) == content(i)


@functools.cache
def array(i):
    import numpy
    return numpy.frombuffer(random.Random(i).randbytes(8 * (9000 + i)), dtype="u8")


def make_npz(path):
    import numpy
    with open(path, "wb") as f:
        numpy.savez(f, **{"m%d" % i: array(i) for i in range(MEMBERS)})


def open_npz(path):
    import numpy
    z = numpy.load(path)
    return lambda i: (z["m%d" % i] == array(i)).all()


def make_h5(path):
    import h5py
    with h5py.File(path, "w") as h:
        for i in range(MEMBERS):
            h["m%d" % i] = array(i)


def open_h5(path):
    import h5py
    h = h5py.File(open(path, "rb"), "r")
    sets = [h["m%d" % i] for i in range(MEMBERS)]
    return lambda i: (sets[i][:] == array(i)).all()


def make_sqlite(path):
    db = sqlite3.connect(path)
    db.execute("DROP TABLE IF EXISTS t")
    db.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, b BLOB)")
    db.executemany("INSERT INTO t VALUES(?, ?)", ((i, content(i)) for i in range(MEMBERS)))
    db.commit()


def open_sqlite(path):
    db = sqlite3.connect("file:%s?mode=ro&immutable=1" % path, uri=True)
    return lambda i: db.execute("SELECT b FROM t WHERE i = ?", (i,)).fetchone()[0] == content(i)


def make_tar(path):
    with tarfile.open(path, "w") as t:
        for i in range(TARRED):
            info = tarfile.TarInfo("m%d" % i)
            info.size = len(content(i % MEMBERS))
            t.addfile(info, io.BytesIO(content(i % MEMBERS)))


def stream(tar, at):
    """Reads on to the end; how many members were wrong or missing."""
    good = 0
    try:
        while (info := tar.next()) is not None:
            i = int(info.name[1:])
            if i == at and tar.extractfile(info).read() == content(i % MEMBERS):
                good += 1
            at += 1
    except Exception:
        pass
    return good


def run_tar(path, workers):
    raw = open(path, "rb")
    tar = tarfile.open(fileobj=raw, mode="r|")
    for at in range(100):
        info = tar.next()
        tar.extractfile(info).read()
    told_r, told_w = os.pipe()
    pids = []
    for _ in range(workers):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.write(told_w, b"%8d" % stream(tar, 100))
            os._exit(0)
    good = stream(tar, 100)
    for pid in pids:
        os.waitpid(pid, 0)
        good += int(os.read(told_r, 8))
    total = (workers + 1) * (TARRED - 100)
    return total - good, total


def work(read, seed, reads):
    choose = random.Random(seed)
    failed = 0
    for _ in range(reads):
        try:
            failed += not read(choose.randrange(MEMBERS))
        except Exception:
            failed += 1
    return failed


def run_pool(kind, path, workers, reads):
    read = globals()["open_" + kind](path)
    if not all(read(i) for i in range(MEMBERS)):  # and has them compared with made once, not by each
        return reads * workers, reads * workers
    told_r, told_w = os.pipe()
    pids = []
    for n in range(workers):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.write(told_w, b"%8d" % work(read, n, reads))
            os._exit(0)
    failed = 0
    for pid in pids:
        if os.waitpid(pid, 0)[1] != 0:
            failed += reads
        else:
            failed += int(os.read(told_r, 8))
    return failed, workers * reads


def main():
    verb, kind, path = sys.argv[1:4]
    if verb == "make":
        globals()["make_" + kind](path)
        return
    workers, reads = map(int, sys.argv[4:6])
    print(*(run_tar(path, workers) if kind == "tar" else run_pool(kind, path, workers, reads)))


main()
