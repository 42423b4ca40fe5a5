# SPDX-License-Identifier: LGPL-2.1-or-later
"""The columns of the table: the backing directory itself, the peers, and k42fs in each class.

Caching decides most figures of a FUSE file system, so each column says by which rule it may believe
what it knows: "1 s" (attributes and names, set by option where the peer has one), "1 day" (what
passthrough_hp has built in), "defaults" (nothing is said).  Only columns with the same rule are
compared in the goals.  For that, passthrough_hp is here twice: as it is published, and compiled with
its constant of 86,400 seconds replaced by 1.

One mount at a time: a second daemon, even idle, would see what the first does to the directory.
A daemon is started in the foreground, so that its process id is known and its end can be waited for.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time

from machine import (Failed, Unavailable, command, package_version, peer_program, program, reason_in,
                     umount)

MOUNT_SECONDS = 20
END_SECONDS = 20


KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _apt_with_sources(folder):
    """apt-get's options for lists of its own, in `folder`: the archives that the system takes its
    packages from, for their sources.  Most systems have no deb-src entry, and theirs is not ours to
    change."""
    output = command(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)",
                      "Created-By: Packages", "Origin: Debian"])[1]
    trust = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""
    entries = [f"deb-src {trust}{line}\n" for line in sorted(set(output.splitlines())) if line.strip()]
    if not entries:
        raise Failed("no archive of Debian is configured")
    os.makedirs(os.path.join(folder, "lists", "partial"), exist_ok=True)
    sources = os.path.join(folder, "sources.list")
    with open(sources, "w", encoding="utf-8") as file:
        file.writelines(entries)
    return ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=-",
            "-o", f"Dir::State::Lists={folder}/lists", "-o", "Dir::Cache::pkgcache=",
            "-o", "Dir::Cache::srcpkgcache=", "-o", "APT::Sandbox::User=root"]


def source_package(name):
    """(folder, "") of Debian's source package, unpacked in the build tree; (None, why not) where that
    cannot be had."""
    folder = peer_program("source")
    os.makedirs(folder, exist_ok=True)
    for again in (False, True):
        for entry in sorted(os.listdir(folder)):
            if entry.startswith(name + "-") and os.path.isdir(os.path.join(folder, entry)):
                return os.path.join(folder, entry), ""
        if not again:
            lists = tempfile.mkdtemp(prefix="apt.", dir=folder)
            try:
                options = _apt_with_sources(lists)
                command(["apt-get", *options, "update", "-qq"], timeout=120)
                command(["apt-get", *options, "source", "-qq", name], cwd=folder, timeout=120)
            except (Failed, OSError) as error:
                return None, f"apt-get source {name}: {error}"
            finally:
                shutil.rmtree(lists, ignore_errors=True)
    return None, f"apt-get source {name}: it was not unpacked; is dpkg-dev installed?"


class Peer:
    """One column.  `options` is what the report shows; `argv` is made for one mount."""
    caching = "1 s"
    is_k42fs = False
    package = ""
    note = ""

    def __init__(self, name, options=""):
        self.name = name
        self.options = options

    def prepare(self, settings):
        """Raises Unavailable if it cannot be run here; returns its version."""
        raise NotImplementedError

    def argv(self, source, mountpoint, scratch):
        """The command that mounts; None if there is nothing to mount."""
        raise NotImplementedError


class Native(Peer):
    caching = "–"

    def prepare(self, settings):
        return ""

    def argv(self, source, mountpoint, scratch):
        return None


class Packaged(Peer):
    """A peer that a Debian package has."""

    def __init__(self, name, package, binary, options):
        super().__init__(name, " ".join(options))
        self.package, self.binary, self.words = package, binary, options

    def prepare(self, settings):
        if not shutil.which(self.binary):
            raise Unavailable(f"{self.binary} is not installed (package {self.package})")
        return package_version(self.package)

    def argv(self, source, mountpoint, scratch):
        work = os.path.join(scratch, "overlay")
        for folder in ("lower", "work"):
            os.makedirs(os.path.join(work, folder), exist_ok=True)
        known = {"SOURCE": source, "MOUNTPOINT": mountpoint, "EMPTY": os.path.join(work, "lower"),
                 "WORK": os.path.join(work, "work")}
        return [self.binary] + [re.sub("|".join(known), lambda m: known[m.group()], word)
                                for word in self.words]


class MergerfsPassthrough(Packaged):
    """Kernel passthrough came to mergerfs with 2.41."""

    def prepare(self, settings):
        version = super().prepare(settings)
        numbers = [int(n) for n in re.findall(r"\d+", version)[:2]]
        if numbers < [2, 41]:
            raise Unavailable(f"mergerfs {version} has no passthrough (2.41 has)")
        return version


class Example(Peer):
    """One of libfuse's example programs, compiled here against the installed libfuse."""
    _sources = ("/usr/share/doc/libfuse3-dev/examples", )

    def __init__(self, name, source, options, replace=None):
        super().__init__(name, " ".join(options))
        self.source, self.words, self.replace = source, options, replace

    @property
    def binary(self):
        return peer_program(self.name)

    def _find(self, settings):
        folders = list(settings.libfuse_sources)
        folders += [os.path.join("/usr/src", f) for f in sorted(os.listdir("/usr/src"))
                    if re.match(r"(lib)?fuse3?\b", f)]
        for folder in [os.path.join(f, "example") for f in folders] + list(self._sources):
            path = os.path.join(folder, self.source)
            if os.path.exists(path):
                return path
        reason = "it is not to be fetched"
        if settings.may_fetch:
            folder, reason = source_package("fuse3")
            if folder and os.path.exists(os.path.join(folder, "example", self.source)):
                return os.path.join(folder, "example", self.source)
        raise Unavailable(f"no {self.source} ({reason}); --libfuse-source DIR names an unpacked source "
                          "package of libfuse")

    def prepare(self, settings):
        path = self._find(settings)
        version = package_version("libfuse3-dev")
        if os.path.exists(self.binary) and \
                os.path.getmtime(self.binary) > max(os.path.getmtime(path), os.path.getmtime(__file__)):
            return version
        os.makedirs(os.path.dirname(self.binary), exist_ok=True)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if self.replace:
            old, new = self.replace
            if old not in text:
                raise Unavailable(f"{self.source} has no “{old}” to replace")
            text = text.replace(old, new)
        changed = self.binary + os.path.splitext(self.source)[1]
        with open(changed, "w", encoding="utf-8") as file:
            file.write(text)
        compiler = ["g++", "-std=c++17"] if self.source.endswith(".cc") else ["gcc"]
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True,
                               text=True, check=False).stdout.split()
        try:
            # What libfuse's own configuration finds on any Linux.
            command([*compiler, "-O2", "-w", "-D_GNU_SOURCE", "-DHAVE_FALLOCATE", "-DHAVE_FDATASYNC",
                     "-DHAVE_POSIX_FALLOCATE", "-DHAVE_COPY_FILE_RANGE", "-DHAVE_UTIMENSAT",
                     "-DHAVE_SETXATTR", "-I" + os.path.dirname(path), changed, "-o", self.binary,
                     *flags, "-lpthread"], timeout=300)
        except (Failed, OSError) as error:
            raise Unavailable(f"{self.source} cannot be compiled: {error}") from None
        finally:
            os.unlink(changed)
        return version

    def argv(self, source, mountpoint, scratch):
        known = {"SOURCE": source, "MOUNTPOINT": mountpoint}
        return [self.binary] + [re.sub("|".join(known), lambda m: known[m.group()], word)
                                for word in self.words]


class K42fs(Peer):
    is_k42fs = True

    def __init__(self, name, words, caching="1 s", binary="k42fs"):
        super().__init__(name, "-o " + ",".join(words) if words else "(none)")
        self.words, self.caching, self.binary = words, caching, binary

    def prepare(self, settings):
        wanted = program(self.binary)
        shown = subprocess.run([wanted, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"\d[\d.]*", re.sub("k42fs", "", shown.stdout))
        return found.group() if found else ""

    def argv(self, source, mountpoint, scratch):
        words = ["state=" + os.path.join(scratch, "state"), *self.words]
        return [program(self.binary), "-f", "-o", ",".join(words), source, mountpoint]


ONE_SECOND = ["attr_timeout=1", "entry_timeout=1"]
ONE_DAY = ["attr_timeout=86400", "entry_timeout=86400"]


def all_peers():
    """Every column, in the table's order."""
    hp = ["--foreground", "SOURCE", "MOUNTPOINT"]
    day = Example("passthrough_hp", "passthrough_hp.cc", hp)
    day.caching = "1 day"
    second = Example("passthrough_hp-1s", "passthrough_hp.cc", hp, replace=("86400.0", "1.0"))
    second.note = "compiled with 1 s instead of 86,400 s"
    merger = ["-f", "-o", "cache.attr=1,cache.entry=1,cache.files=auto-full,minfreespace=0"]
    bare = K42fs("k42fs-bare", ["io=fast", *ONE_SECOND], binary="k42fs-bare")
    bare.note = "built without handle accounting"
    return [
        Native("native"),
        Packaged("bindfs", "bindfs", "bindfs",
                 ["-f", "--multithreaded", "-o", "attr_timeout=1,entry_timeout=1", "SOURCE",
                  "MOUNTPOINT"]),
        Packaged("mergerfs", "mergerfs", "mergerfs", [*merger, "SOURCE", "MOUNTPOINT"]),
        MergerfsPassthrough("mergerfs-passthrough", "mergerfs", "mergerfs",
                            [*merger[:-1], merger[-1] + ",passthrough.io=rw", "SOURCE",
                             "MOUNTPOINT"]),
        Packaged("fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs",
                 ["-f", "-o", "lowerdir=EMPTY,upperdir=SOURCE,workdir=WORK,timeout=1",
                  "MOUNTPOINT"]),
        Packaged("unionfs-fuse", "unionfs-fuse", "unionfs",
                 ["-f", "-o", "attr_timeout=1,entry_timeout=1", "SOURCE=RW", "MOUNTPOINT"]),
        Example("passthrough_ll", "passthrough_ll.c",
                ["-f", "-o", "source=SOURCE,timeout=1.0,cache=auto,xattr,allow_other,default_permissions",
                 "MOUNTPOINT"]),
        second,
        day,
        K42fs("k42fs-fast", ["io=fast", *ONE_SECOND]),
        K42fs("k42fs-cached", ["io=cached", *ONE_SECOND]),
        K42fs("k42fs-counted", ["io=counted", *ONE_SECOND]),
        K42fs("k42fs-day", ["io=fast", *ONE_DAY], caching="1 day"),
        K42fs("k42fs-exclusive", ["io=fast", "exclusive"], caching=FOR_EVER),
        bare,
        K42fs("k42fs", [], caching="defaults"),
    ]


FOR_EVER = "names for ever"  # the rule of caching of who never looks at a directory again


def believes_names_for_ever(peer, place):
    """Whether what others add to a directory that the peer has listed is unknown to it when the second that
    it was told to cache names for is over: some keep every name in the daemon.  Raises Failed."""
    source, scratch = os.path.join(place, "believed"), os.path.join(place, "believing")
    os.makedirs(os.path.join(source, "folder"))
    os.mkdir(scratch)
    try:
        with Mount(peer, source, scratch) as mount:
            seen = os.path.join(mount.path, "folder", "new")
            os.listdir(os.path.dirname(seen))
            with open(os.path.join(source, "folder", "new"), "wb"):
                pass
            end = time.monotonic() + 3
            time.sleep(1.1)
            while not os.path.exists(seen):
                if time.monotonic() > end:
                    return True
                time.sleep(0.2)
            return False
    finally:
        shutil.rmtree(source)
        shutil.rmtree(scratch)


def _is_mounted(path):
    """The minor number of the mount's device (its FUSE connection), or None."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[4] == path:
                return words[2].split(":")[1]
    return None


class Mount:
    """A peer, mounted: use it with `with`.  Leaving it unmounts and waits for the daemon's end, by
    force if it must be: nothing stays behind, whatever the daemon does."""

    def __init__(self, peer, source, scratch):
        self.peer, self.source, self.scratch = peer, source, scratch
        self.mountpoint = os.path.join(scratch, "mnt")
        self.path = source
        self.daemon = self.connection = None
        self.log = os.path.join(scratch, "log")

    def __enter__(self):
        try:
            self.mount()
        except BaseException:
            self.umount()
            raise
        return self

    def __exit__(self, *_):
        self.umount()

    def mount(self):
        os.makedirs(self.mountpoint, exist_ok=True)
        argv = self.peer.argv(self.source, self.mountpoint, self.scratch)
        if not argv:
            return
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           cwd="/", start_new_session=True)
        end = time.monotonic() + MOUNT_SECONDS
        while not (self.connection or self._find_connection()):
            if self.daemon.poll() is not None:
                raise Failed("does not mount: " + self._said())
            if time.monotonic() > end:
                raise Failed("does not mount: no answer")
            time.sleep(0.002)
        command(["stat", "-f", self.mountpoint], timeout=MOUNT_SECONDS, paths=[self.mountpoint])
        self.path = self.mountpoint

    def _find_connection(self):
        self.connection = _is_mounted(self.mountpoint)
        return self.connection

    def _said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return reason_in(file.read(), [self.scratch])

    def remount(self):
        """A cold start: nothing that the kernel knew of this mount is known any more."""
        self.umount()
        self.mount()

    def umount(self):
        end = time.monotonic() + 3
        while _is_mounted(self.mountpoint):
            late = time.monotonic() > end
            if umount(self.mountpoint, lazy=late) is not True and not late:
                time.sleep(0.02)  # a process of the workload is just ending
            if late:
                break
        if self.daemon:
            self._end_daemon()
        self.daemon = self.connection = None
        self.path = self.source

    def _end_daemon(self):
        try:
            self.daemon.wait(END_SECONDS)
            return
        except subprocess.TimeoutExpired:
            pass
        if self.connection:
            try:
                with open(f"/sys/fs/fuse/connections/{self.connection}/abort", "w",
                          encoding="ascii") as file:
                    file.write("1\n")
            except OSError:
                pass
        self.daemon.kill()
        try:
            self.daemon.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"the daemon of {self.peer.name}, process {self.daemon.pid}, does not end")

    def daemon_pids(self):
        """The daemon and its children: a file system may be more than one process."""
        if not self.daemon:
            return []
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                        parent = int(file.read().rpartition(")")[2].split()[1])
                except (OSError, ValueError, IndexError):
                    continue
                children.setdefault(parent, []).append(int(entry))
        found, todo = [], [self.daemon.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found
