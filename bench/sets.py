# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directories that workloads work on, made once, in the backing directory and never through a
peer, so that no peer finds its own traces there.  Their content comes from a fixed seed: two runs, on
two machines, do the same work.

A workload that changes something does it below WORK, which is emptied after each run.
"""

import dataclasses
import os
import random
import subprocess

from machine import Failed, command


FOLDER_FILES = 4_000  # of find's set, below one of its uppermost folders


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything; the issue's numbers, or a tenth of them for --quick and less for
    --tiny (which only shows that everything works)."""
    files: int = 20_000
    find: int = 100_000
    big: int = 200_000
    creates: int = 5_000
    renames: int = 10_000
    tar: int = 2_000
    repository: int = 2_000
    copy: int = 1_000
    project: int = 40
    fio_mib: int = 256
    fio_seconds: float = 0.7
    fork_ms: int = 250
    most_open: int = 10_000  # files that a process has open when it forks; 0: leave that out
    fork_files: tuple = (100, 1_000)
    reads: int = 100_000
    starts: int = 300

    @property
    def part_folders(self):
        """Of `find`: folders of FOLDER_FILES files, 16,000 files at most."""
        return max(1, min(4, self.find // FOLDER_FILES))

    @property
    def part(self):
        return min(self.find, self.part_folders * FOLDER_FILES)

    def titles(self):
        """What the titles of rows are filled in with."""
        return {**dataclasses.asdict(self), "part": self.part}

    def within(self, file_limit):
        """As far as daemons get that have one descriptor for each inode and one for each open."""
        return dataclasses.replace(self, files=min(self.files, file_limit * 9 // 10),
                                   most_open=min(self.most_open, file_limit * 9 // 20))


FULL = Sizes()
QUICK = Sizes(files=2_000, find=5_000, big=10_000, creates=500, renames=1_000, tar=200,
              repository=200, copy=200, project=6, fio_mib=32, fio_seconds=0.15, fork_ms=20,
              fork_files=(100, 1_000), most_open=0, reads=20_000, starts=30)
TINY = Sizes(files=200, find=300, big=600, creates=50, renames=50, tar=20, repository=20, copy=20,
             project=2, fio_mib=4, fio_seconds=0.05, fork_ms=5, fork_files=(100,), most_open=0, reads=2_000,
             starts=5)


def _write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def _tree(folder, files, per_folder, content):
    """`files` files in folders of `per_folder`, two levels deep; content(i) is what is in them."""
    for start in range(0, files, per_folder):
        number = start // per_folder
        inside = os.path.join(folder, f"d{number // 40:03}", f"e{number % 40:03}")
        os.makedirs(inside)
        for i in range(start, min(start + per_folder, files)):
            _write(os.path.join(inside, f"f{i:06}"), content(i))


def _text(seed):
    """A source file's size and look: 200 bytes to 20 kB of short lines."""
    chance = random.Random(seed)
    size = int(200 * 100 ** chance.random())
    line = b"".join(b"%08x " % chance.getrandbits(32) for _ in range(7)) + b"\n"
    return (line * (size // len(line) + 1))[:size]


class Sets:
    """Makes a set when it is first needed.  `source` is the backing directory; what must not be in it
    (the archive that tar unpacks) is in `beside`."""

    def __init__(self, source, beside, sizes):
        self.source, self.beside, self.sizes = source, beside, sizes
        self.made = set()

    def need(self, names):
        for name in names:
            if name not in self.made:
                getattr(self, "make_" + name)()
                self.made.add(name)

    def make_files(self):
        folder = os.path.join(self.source, "files")
        os.mkdir(folder)
        for i in range(max(self.sizes.files, self.sizes.most_open, *self.sizes.fork_files)):
            _write(os.path.join(folder, f"f{i:06}"), b"x" * 100)

    def make_find(self):
        os.mkdir(os.path.join(self.source, "big"))
        _tree(os.path.join(self.source, "big", "a"), self.sizes.find, 100, lambda i: b"")

    def make_big(self):
        self.need(["find"])
        _tree(os.path.join(self.source, "big", "b"), self.sizes.big - self.sizes.find, 100,
              lambda i: b"")

    def make_tar(self):
        folder = os.path.join(self.beside, "archive")
        _tree(folder, self.sizes.tar, 20, _text)
        command(["tar", "cf", os.path.join(self.beside, "archive.tar"), "-C", folder, "."])
        command(["rm", "-rf", folder])

    def make_repository(self):
        folder = os.path.join(self.source, "repository")
        _tree(folder, self.sizes.repository, 20, _text)
        # Older than the index will be: git reads again what could have changed in the same moment.
        for place, _, names in os.walk(folder):
            for name in names:
                os.utime(os.path.join(place, name), (1_600_000_000, 1_600_000_000))
        git = ["git", "-C", folder, "-c", "user.name=bench", "-c", "user.email=bench@localhost",
               "-c", "gc.auto=0"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
            command(git + words, env=git_environment())

    def make_copy(self):
        _tree(os.path.join(self.source, "copy"), self.sizes.copy, 20, _text)

    def make_project(self):
        """A C program of `project` files, each with a header of its own and one that all share."""
        folder = os.path.join(self.source, "project")
        os.mkdir(folder)
        numbers = range(self.sizes.project)
        shared = "#pragma once\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
        _write(os.path.join(folder, "shared.h"), shared.encode())
        for i in numbers:
            _write(os.path.join(folder, f"part{i}.h"),
                   f'#pragma once\n#include "shared.h"\nint part{i}(int n);\n'.encode())
            body = "".join(
                f"static int step{i}_{k}(int n)\n{{\n        return n * {k + 3} + {i};\n}}\n"
                for k in range(40))
            calls = "".join(f"        n = step{i}_{k}(n);\n" for k in range(40))
            _write(os.path.join(folder, f"part{i}.c"),
                   f'#include "part{i}.h"\n{body}int part{i}(int n)\n{{\n{calls}'
                   f"        return n;\n}}\n".encode())
        includes = "".join(f'#include "part{i}.h"\n' for i in numbers)
        sums = "".join(f"        n += part{i}(n);\n" for i in numbers)
        _write(os.path.join(folder, "main.c"),
               f'{includes}int main(void)\n{{\n        unsigned n = 1;\n{sums}'
               f"        return n == 0;\n}}\n".encode())
        objects = " ".join(["main.o", *(f"part{i}.o" for i in numbers)])
        _write(os.path.join(folder, "Makefile"),
               f"program: {objects}\n\t$(CC) -o $@ {objects}\n"
               "%.o: %.c\n\t$(CC) -O0 -MMD -c -o $@ $<\n"
               f"clean:\n\trm -f program *.o *.d\n.PHONY: clean\n".encode())

    def make_data(self):
        """The file that fio uses: written, not just extended, so that writes to it allocate nothing."""
        folder = os.path.join(self.source, "data")
        os.mkdir(folder)
        with open(os.path.join(folder, "fio"), "wb") as file:
            block = random.Random(1).randbytes(2**20)
            for _ in range(self.sizes.fio_mib):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())

    def empty_work(self):
        """Natively, so that it costs every column the same."""
        work = os.path.join(self.source, "work")
        done = subprocess.run(["rm", "-rf", work], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed("cannot empty the work directory: " + done.stderr.strip())
        os.mkdir(work)


def git_environment():
    """git without the user's own settings, hooks and helpers, and without the habit of status to write
    what it has learnt into the index: the next column would find that there."""
    return dict(os.environ, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null",
                GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0")
