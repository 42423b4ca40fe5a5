# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured.  A workload is a function that works on one fresh mount and says its figures; it
declares the rows of the table that they fill, and the sets of files that it needs.

Rules that make figures comparable: a fresh mount each time; what is timed is the user's command or
system call and nothing of the harness; loops are in C (k42bench); a figure is said with run.put(),
and what cannot be measured is run.fail()ed with its reason while the other rows go on.
"""

import contextlib
import dataclasses
import json
import os
import statistics

from machine import Failed, command, drop_caches, program
from sets import git_environment

LOWER, HIGHER = "lower", "higher"


@dataclasses.dataclass(frozen=True)
class Row:
    key: str
    title: str
    unit: str
    better: str = LOWER
    group: str = "metadata"
    relative: bool = True  # a ratio to the backing directory means something
    runs_on: object = None  # which peers; None: all


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    run: object
    rows: tuple
    sets: tuple
    cold: bool
    runs_on: object
    rounds: int  # at most


WORKLOADS = []


def workload(name, rows, sets=(), cold=False, runs_on=None, rounds=10**6):
    def add(function):
        WORKLOADS.append(Workload(name, function, tuple(rows), tuple(sets), cold, runs_on, rounds))
        return function
    return add


class Run:
    """One workload on one mount, once."""

    def __init__(self, mount, sets, beside):
        self.mount, self.sizes, self.sets, self.beside = mount, sets.sizes, sets, beside
        self.figures, self.failures = {}, {}

    def path(self, *names):
        return os.path.join(self.mount.path, *names)

    def put(self, key, value):
        self.figures[key] = value

    @contextlib.contextmanager
    def attempt(self, *keys):
        """What fails inside is the failure of these rows only."""
        try:
            yield
        except Failed as error:
            for key in keys:
                self.failures[key] = str(error)

    def command(self, argv, **options):
        hidden = [self.mount.path, self.mount.source, self.mount.scratch, self.beside]
        return command(argv, paths=hidden, **options)

    def k42bench(self, *words, shim=False, timeout=180):
        env = dict(os.environ, LD_PRELOAD=program("shim")) if shim else None
        if env:
            env["K42_FORK"] = "private" if shim == "private" else "shared"
        output = self.command([program("k42bench"), *map(str, words)], env=env, timeout=timeout)[1]
        return {name: float(value) for name, value in map(str.split, output.splitlines())}

    def work(self, name):
        """A new directory below WORK."""
        folder = self.path("work", name)
        os.mkdir(folder)
        return folder


@workload("stat", [Row("stat_cold", "stat, cold", "µs"), Row("stat_warm", "stat, warm", "µs")],
          ["files"], cold=True)
def _stat(run):
    figures = run.k42bench("stat", run.path("files"), run.sizes.files, 3)
    run.put("stat_cold", figures["first"])
    run.put("stat_warm", figures["warm"])


@workload("open", [Row("open_close", "open + close", "µs")], ["files"])
def _open(run):
    run.put("open_close",
            run.k42bench("open", run.path("files"), min(run.sizes.files, 5000), 3)["open_close"])


@workload("create", [Row("create_unlink", "create + write + close + unlink", "µs")])
def _create(run):
    run.put("create_unlink",
            run.k42bench("create", run.work("create"), run.sizes.creates)["create_unlink"])


@workload("rename", [Row("rename", "rename", "µs")])
def _rename(run):
    run.put("rename", run.k42bench("rename", run.work("rename"), run.sizes.renames)["rename"])


@workload("readdir", [Row("readdir", "readdir, {files:,} entries", "ms")], ["files"])
def _readdir(run):
    figures = run.k42bench("readdir", run.path("files"), 1)
    if figures["entries"] < run.sizes.files:
        raise Failed(f"only {figures['entries']:.0f} entries")
    run.put("readdir", figures["listing"] / 1000)


@workload("find", [Row("find", "find, {find:,} files", "s")], ["find"], cold=True)
def _find(run):
    seconds, output = run.command(["find", run.path("big", "a"), "-type", "f", "-size", "-1",
                                   "-printf", "x"])
    if len(output) != run.sizes.find:
        raise Failed(f"found {len(output)} of {run.sizes.find} files")
    run.put("find", seconds)


@workload("tar", [Row("tar", "tar x", "s")], ["tar"])
def _tar(run):
    run.put("tar", run.command(["tar", "xf", os.path.join(run.beside, "archive.tar"), "-C",
                                run.work("tar")])[0])


@workload("git", [Row("git_clone", "git clone", "s"),
                  Row("git_status", "git status, fresh mount", "s")], ["repository"])
def _git(run):
    clone = run.path("work", "clone")
    run.put("git_clone",
            run.command(["git", "-c", "advice.detachedHead=false", "clone", "-q", "--no-hardlinks",
                         run.path("repository"), clone], env=git_environment())[0])
    run.mount.remount()
    with run.attempt("git_status"):
        clone = run.path("work", "clone")
        seconds, output = run.command(["git", "-C", clone, "status", "--porcelain"],
                                      env=git_environment())
        if output:
            raise Failed("git sees changes where there are none")
        run.put("git_status", seconds)


@workload("copy", [Row("copy", "cp -r", "s"), Row("remove", "rm -rf", "s")], ["copy"])
def _copy(run):
    target = run.path("work", "copied")
    run.put("copy", run.command(["cp", "-r", run.path("copy"), target])[0])
    run.put("remove", run.command(["rm", "-rf", target])[0])


@workload("build", [Row("build", "make -j2, C program", "s")], ["project"])
def _build(run):
    target = run.path("work", "project")
    run.command(["cp", "-r", run.path("project"), target])
    run.put("build", run.command(["make", "-s", "-j2", "-C", target, "CC=gcc"])[0])
    run.command([os.path.join(target, "program")])


def _fio_row(key, title, unit="MB/s"):
    return Row(key, title, unit, HIGHER, "data")


def _fio(run, rw, size, **options):
    """fio on the one big file, which is in every cache that the peer has when the clock starts."""
    file = run.path("data", "fio")
    with open(file, "rb", buffering=0) as data:
        while data.read(2**20):
            pass
    words = {"name": "bench", "filename": file, "rw": rw, "bs": size, "ioengine": "psync",
             "invalidate": 0, "time_based": 1, "runtime": f"{run.sizes.fio_seconds * 1000:.0f}ms",
             "size": f"{run.sizes.fio_mib}m", "allow_file_create": 0, "randrepeat": 1, "thread": 1,
             "norandommap": 1, "output-format": "json", **options}
    output = run.command(["fio", *(f"--{k}={v}" for k, v in words.items())], cwd=run.beside)[1]
    job = json.loads(output[output.index("{"):])["jobs"][0]
    # What was written goes to the disk now, not in the middle of the next peer's turn.
    fd = os.open(os.path.join(run.mount.source, "data", "fio"), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return job["read" if "read" in rw else "write"]


for _key, _title, _rw, _size, _options in (
        ("randread", "fio 4k randread", "randread", "4k", {}),
        ("randwrite", "fio 4k randwrite", "randwrite", "4k", {}),
        ("seqread", "fio 1M seqread", "read", "1m", {}),
        ("seqwrite", "fio 1M seqwrite", "write", "1m", {}),
        ("mmap", "fio 4k mmap randread", "randread", "4k", {"ioengine": "mmap"}),
):
    @workload(_key, [_fio_row(_key, _title)], ["data"])
    def _fio_bandwidth(run, key=_key, rw=_rw, size=_size, options=_options):
        run.put(key, _fio(run, rw, size, **options)["bw_bytes"] / 1e6)


@workload("fsync", [_fio_row("fsync", "fio 4k write + fsync", "IOPS")], ["data"])
def _fsync(run):
    run.put("fsync", _fio(run, "randwrite", "4k", fsync=1)["iops"])


def _fork_rows(key, title, runs_on=None):
    numbers = [("0", "0"), ("100", "100"), ("1000", "1,000"), ("most", "{most_open:,}")]
    return [Row(f"{key}_{name}", f"{title}, {shown} open files", "µs", LOWER, "processes",
                runs_on=runs_on) for name, shown in numbers]


def _fork(run, mode, key, shim=False):
    counts = {"0": 0, **{str(n): n for n in run.sizes.fork_files}}
    if run.sizes.most_open:
        counts["most"] = run.sizes.most_open
    for name, count in counts.items():
        with run.attempt(f"{key}_{name}"):
            run.put(f"{key}_{name}", run.k42bench("fork", mode, run.path("files"), count,
                                                  run.sizes.fork_ms, shim=shim)["fork"])


@workload("fork-exit", _fork_rows("fork_exit", "fork + exit"), ["files"])
def _fork_exit(run):
    _fork(run, "exit", "fork_exit")


@workload("fork-exec", _fork_rows("fork_exec", "fork + exec"), ["files"])
def _fork_exec(run):
    _fork(run, "exec", "fork_exec")


@workload("fork-touch", _fork_rows("fork_touch", "fork + touch all"), ["files"])
def _fork_touch(run):
    _fork(run, "touch", "fork_touch")


def _is_k42fs_or_native(peer):
    return peer.is_k42fs or peer.name == "native"


@workload("fork-touch-shim", _fork_rows("fork_shim", "fork + touch all, with the shim"), ["files"],
          runs_on=_is_k42fs_or_native)
def _fork_touch_shim(run):
    _fork(run, "touch", "fork_shim", shim=True)


@workload("fork-exit-private", _fork_rows("fork_private", "fork + exit, private mode"), ["files"],
          runs_on=_is_k42fs_or_native)
def _fork_exit_private(run):
    _fork(run, "exit", "fork_private", shim="private")


@workload("fork-touch-private", _fork_rows("fork_private_touch", "fork + touch all, private mode"), ["files"],
          runs_on=_is_k42fs_or_native)
def _fork_touch_private(run):
    _fork(run, "touch", "fork_private_touch", shim="private")


# What a read costs in a forked child after its first touch: without the shim, in shared and in private mode.
@workload("child-read", [
    Row("child_read_plain", "4k read in a forked child, no shim", "µs", LOWER, "shim"),
    Row("child_read_shared", "4k read in a forked child, shared mode", "µs", LOWER, "shim"),
    Row("child_read_private", "4k read in a forked child, private mode", "µs", LOWER, "shim"),
    Row("private_read", "private mode's cost of a 4k read after the first touch", "%", LOWER, "shim",
        relative=False)],
          ["data"], runs_on=_is_k42fs_or_native)
def _child_read(run):
    figures = {False: [], "shared": [], "private": []}
    for turn in range(6):
        for mode in list(figures)[::-1 if turn % 2 else 1]:
            figures[mode].append(run.k42bench("childread", run.path("data", "fio"), run.sizes.reads // 2,
                                              shim=mode)["read"])
    for mode, found in figures.items():
        run.put(f"child_read_{mode or 'plain'}", statistics.median(found))
    run.put("private_read", (statistics.median(
        private / plain for plain, private in zip(figures[False], figures["private"])) - 1) * 100)


def _is_mounted(peer):
    return peer.name != "native"


def _footprint_rows(suffix, files):
    return [Row("rss" + suffix, f"RSS after find, {files} files", "MiB", LOWER, "daemon", False),
            Row("fds" + suffix, f"descriptors after find, {files} files", "", LOWER, "daemon", False),
            Row("threads" + suffix, f"threads after find, {files} files", "", LOWER, "daemon", False),
            Row("rss_stat" + suffix, f"RSS after find -size, {files} files", "MiB", LOWER, "daemon",
                False),
            Row("fds_stat" + suffix, f"descriptors after find -size, {files} files", "", LOWER,
                "daemon", False)]


def _find_all(run, folders, files, *what):
    output = run.command(["find", *folders, "-type", "f", *what, "-printf", "x"])[1]
    if len(output) != files:
        raise Failed(f"found {len(output)} of {files} files")


def _resident(run):
    """MiB of all the daemon's processes."""
    kib = 0
    for pid in run.mount.daemon_pids():
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
            kib += next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
    return kib / 1024


def _footprint(run, folders, files, suffix):
    """First of what is only listed, then of what is looked at as well: the kernel knows each file then."""
    for kind, what in (("", ()), ("_stat", ("-size", "-1"))):
        _find_all(run, folders, files, *what)
        descriptors = threads = 0
        for pid in run.mount.daemon_pids():
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            threads += len(os.listdir(f"/proc/{pid}/task"))
        run.put("rss" + kind + suffix, _resident(run))
        run.put("fds" + kind + suffix, descriptors)
        if not kind:
            run.put("threads" + suffix, threads)


@workload("footprint", _footprint_rows("", "{big:,}"), ["big"], cold=True, runs_on=_is_mounted,
          rounds=2)
def _footprint_big(run):
    _footprint(run, [run.path("big")], run.sizes.big, "")


@workload("footprint-part", _footprint_rows("_part", "{part:,}"), ["find"], cold=True,
          runs_on=_is_mounted, rounds=2)
def _footprint_part(run):
    """What daemons with a descriptor for each inode can walk, too."""
    folders = [run.path("big", "a", f"d{i:03}") for i in range(run.sizes.part_folders)]
    _footprint(run, folders, run.sizes.part, "_part")


_EXTRAPOLATED = "RSS after find{what}, {{big:,}} files, extrapolated from {{part:,}} and half of them"


@workload("footprint-slope", [
    Row("rss_slope", _EXTRAPOLATED.format(what=""), "MiB", LOWER, "daemon", False),
    Row("rss_stat_slope", _EXTRAPOLATED.format(what=" -size"), "MiB", LOWER, "daemon", False)],
          ["find"], cold=True, runs_on=_is_mounted, rounds=2)
def _footprint_slope(run):
    """What a large tree would cost a daemon that has not the descriptors to walk it: what it takes for
    each further file goes on as it began.  Each figure is of a mount of its own."""
    folders = [run.path("big", "a", f"d{i:03}") for i in range(run.sizes.part_folders)]
    half = len(folders) // 2
    few = run.sizes.part * half // len(folders)
    for key, what in (("rss_slope", ()), ("rss_stat_slope", ("-size", "-1"))):
        if few:
            _find_all(run, folders[:half], few, *what)
        less = _resident(run)
        _find_all(run, folders, run.sizes.part, *what)
        more = _resident(run)
        run.put(key, more + (more - less) / (run.sizes.part - few) * (run.sizes.big - run.sizes.part))
        run.mount.remount()


def _has_shim_rows(peer):
    return peer.name in ("native", "k42fs-fast", "k42fs-cached")


@workload("shim", [
    Row("read_4k", "4k read, cached", "µs", LOWER, "shim"),
    Row("shim_read", "the shim's cost of a 4k read", "%", LOWER, "shim", relative=False),
    Row("start", "start and end of true", "µs", LOWER, "shim"),
    Row("shim_start", "the shim's cost of a start and end", "µs", LOWER, "shim", relative=False)],
          ["data"], runs_on=_has_shim_rows)
def _shim(run):
    plain, preloaded = [], []
    for turn in range(10):
        for with_shim in (False, True) if turn % 2 else (True, False):
            figure = run.k42bench("read", run.path("data", "fio"), run.sizes.reads,
                                  shim=with_shim)["read"]
            (preloaded if with_shim else plain).append(figure)
    run.put("read_4k", statistics.median(plain))
    # The median of pairs: what the machine did in the meantime met both of a pair.
    run.put("shim_read",
            (statistics.median(b / a for a, b in zip(plain, preloaded)) - 1) * 100)
    program_on_mount = run.path("work", "true")
    run.command(["cp", "/bin/true", program_on_mount])
    figures = run.k42bench("start", program_on_mount, run.sizes.starts, program("shim"))
    run.put("start", figures["plain"])
    run.put("shim_start", figures["cost"])


def _is_fast(peer):
    return peer.name == "k42fs-fast"


# It has nothing to do with the column, but a table needs one.
@workload("account", [
    Row("account_one", "the accounting page, a call of the only thread", "ns", LOWER, "shim", relative=False),
    Row("account_two", "the accounting page, a call of one of two threads", "ns", LOWER, "shim", relative=False)],
          [], runs_on=_is_fast)
def _account(run):
    output = run.command([program("k42account")])[1]
    figures = {name: float(value) for name, value in map(str.split, output.splitlines())}
    run.put("account_one", figures["counted"])
    run.put("account_two", figures["both"])


def rows():
    return [row for work in WORKLOADS for row in work.rows]


def select(names):
    """The workloads whose name, or one of whose rows' keys, is in `names`; all if there are none.
    Raises ValueError for a name that is nothing."""
    for name in names:
        if not any(name == w.name or any(name == r.key for r in w.rows) for w in WORKLOADS):
            raise ValueError(f"no workload “{name}”: there are " +
                             ", ".join(w.name for w in WORKLOADS))
    return [w for w in WORKLOADS if not names or w.name in names or
            any(r.key in names for r in w.rows)]


def run_once(work, peer_mount, sets, beside):
    """Runs `work` on a mount that is not mounted yet.  Returns (figures, failures) by row key; never
    raises Failed."""
    run = Run(peer_mount, sets, beside)
    try:
        sets.empty_work()
        if work.cold:
            drop_caches()
        with peer_mount:
            work.run(run)
    except (Failed, OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        for row in work.rows:
            if row.key not in run.figures:
                run.failures.setdefault(row.key, reason)
    return run.figures, run.failures
