# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmark asks of the machine: packages, programs, caches, limits, and its description.

Everything that a run starts goes through command(): with an end in time, in a session of its own (so
that a whole pipeline can be ended, and Ctrl-C reaches only the harness, which then cleans up in
order), and with the reason in words when it fails, because that reason is what the table shows.
"""

import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PERFORMANCE = os.path.join(TOP, "doc", "performance.md")
DEFAULT_BUILD = os.path.join(TOP, "build-bench")

# Debian's names.  tests/packages.bash has what a build needs.
PACKAGES = ["fio", "git", "gnuplot-nox", "make", "gcc", "tar", "findutils", "coreutils",
            "util-linux", "e2fsprogs"]
PEER_PACKAGES = ["bindfs", "mergerfs", "fuse-overlayfs", "unionfs-fuse", "g++"]

_build = DEFAULT_BUILD  # set once, by build()
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A step of a run failed; the text is the reason, short enough for a table."""


class Unavailable(Exception):
    """Something cannot be measured here; the text says why."""


def is_root():
    return os.geteuid() == 0


def _end_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        pass  # in uninterruptible sleep on a mount that hangs; aborting the connection frees it


def reason_in(text, paths=()):
    """The last line of what a program said, without the paths that mean nothing to a reader."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no message"
    for path in sorted(paths, key=len, reverse=True):
        reason = reason.replace(path, "…")
    return reason if len(reason) <= 90 else reason[:89] + "…"


def command(argv, timeout=120, cwd=None, env=None, paths=(), ok=(0,)):
    """Runs `argv`; returns (seconds, standard output).  Raises Failed."""
    started = time.monotonic()
    process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               errors="replace", start_new_session=True)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end_group(process)
        raise Failed(f"not done after {timeout:g} s") from None
    except BaseException:
        _end_group(process)
        raise
    seconds = time.monotonic() - started
    if process.returncode not in ok:
        raise Failed(reason_in(errors or output, paths))
    return seconds, output


def missing_packages(names):
    missing = []
    for name in names:
        shown = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name],
                               capture_output=True, text=True, check=False)
        if shown.stdout != "installed":
            missing.append(name)
    return missing


def need_packages(names):
    """Installs what is missing, when root.  Returns what is missing still: the caller decides
    whether it can do without."""
    if not shutil.which("dpkg-query"):
        return []  # not Debian: the programs are looked for by name, later
    missing = missing_packages(names)
    if missing and is_root():
        print("installing:", *missing, flush=True)
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        subprocess.run(["apt-get", "update", "-qq"], stdout=subprocess.DEVNULL, env=env, check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
                       stdout=subprocess.DEVNULL, env=env, check=False)
        missing = missing_packages(names)
    return missing


def build(folder=None):
    """Builds what is measured, optimised, in a build tree of its own (or in one that is there already,
    `folder`); does nothing that has been done before."""
    global _build  # pylint: disable=global-statement
    _build = os.path.abspath(folder or DEFAULT_BUILD)
    if not os.path.exists(os.path.join(_build, "build.ninja")):
        command(["meson", "setup", _build, TOP, "--buildtype=release"], timeout=300)
    command(["ninja", "-C", _build, *_PROGRAMS.values()], timeout=900)


_PROGRAMS = {"k42fs": "fusefs/k42fs", "k42fs-bare": "fusefs/k42fs-bare",
             "k42ctl": "ctl/k42ctl", "k42run": "ctl/k42run",
             "shim": "shim/libk42shim.so", "k42bench": "bench/k42bench",
             "k42account": "bench/k42account"}


def program(name):
    """A program of the build tree, by its short name."""
    return os.path.join(_build, _PROGRAMS[name])


def peer_program(name):
    """Where a peer that is compiled here belongs."""
    return os.path.join(_build, "peers", name)


def raise_file_limit():
    """Lets this process and all that it starts have as many open files as may be; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, 65536)
    for new_hard in (wanted, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (new_hard, new_hard))
            return new_hard
        except (ValueError, OSError):
            continue
    return soft


def drop_caches():
    """Forgets cached names and inodes, so that a cold run is cold for native, too.  False if that is
    not allowed.  Data stays cached: it is the path that is measured, not the disk."""
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("2\n")
        return True
    except OSError:
        return False


def umount(path, lazy=False):
    """True, or the reason why not."""
    if is_root():
        if _libc.umount2(os.fsencode(path), 2 if lazy else 0) == 0:
            return True
        return os.strerror(ctypes.get_errno())
    done = subprocess.run(["fusermount3", "-u", *(["-z"] if lazy else []), path],
                          capture_output=True, text=True, check=False)
    return True if done.returncode == 0 else reason_in(done.stderr)


def lacks_journal(folder):
    """Whether this is an ext4 without a journal.  Such a one does not use an inode again within a
    minute of its deletion and searches for an older one at each creation instead: what one column
    deletes would slow down the next."""
    found = subprocess.run(["findmnt", "-n", "-o", "FSTYPE,MAJ:MIN", "-T", folder],
                           capture_output=True, text=True, check=False).stdout.split()
    if len(found) != 2 or found[0] != "ext4" or not os.path.isdir("/proc/fs/jbd2"):
        return False
    device = os.path.basename(os.path.realpath(f"/sys/dev/block/{found[1]}"))
    return not any(name.rpartition("-")[0] == device for name in os.listdir("/proc/fs/jbd2"))


class Image:
    """An ext4 with a journal, in a sparse file, mounted for as long as the `with` lasts."""

    def __init__(self, folder, size_mib):
        self.file, self.path = os.path.join(folder, "image"), os.path.join(folder, "fs")
        self.size_mib, self.mounted = size_mib, False

    def __enter__(self):
        os.mkdir(self.path)
        with open(self.file, "wb") as file:
            file.truncate(self.size_mib * 2**20)
        # A sparse file is zero already; the kernel thread that would zero the tables would be heard.
        command(["mkfs.ext4", "-q", "-F", "-N", str(self.size_mib * 160), "-E", "lazy_itable_init=1",
                 self.file])
        command(["mount", "-o", "loop,noinit_itable", self.file, self.path])
        self.mounted = True
        return self.path

    def __exit__(self, *_):
        for lazy in [False] * 50 + [True]:
            if not self.mounted or umount(self.path, lazy) is True:
                return
            time.sleep(0.1)


def load():
    return round(os.getloadavg()[0], 2)


def _first_line(path, pattern=r"(.*)"):
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                found = re.match(pattern, line)
                if found:
                    return found.group(1).strip()
    except OSError:
        pass
    return "unknown"


def package_version(name):
    shown = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True,
                           text=True, check=False)
    return shown.stdout if shown.returncode == 0 else ""


def describe(folder, in_image):
    """What a reader must know to judge the figures; nothing that names the machine or its owner."""
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", folder], capture_output=True,
                          text=True, check=False).stdout.strip()
    commit = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"],
                            capture_output=True, text=True, check=False).stdout.strip()
    memory = re.sub(r"\D", "", _first_line("/proc/meminfo", r"MemTotal:(.*)kB")) or "0"
    return {
        "kernel": os.uname().release,
        "architecture": os.uname().machine,
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _first_line("/proc/cpuinfo", r"model name\s*:(.*)"),
        "memory_gib": round(int(memory) / 2**20, 1),
        "filesystem": (kind or "unknown") + (" in a loop image" if in_image else ""),
        "system": _first_line("/etc/os-release", r'PRETTY_NAME="?([^"]*)'),
        "libfuse": package_version("libfuse3-3"),
        "commit": commit or "unknown",
        "root": is_root(),
        "load_at_start": load(),
        "load_at_end": load(),  # until there is a later one
    }
