#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the kernel keeps of files and directories that nobody has changed, and what it must not.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    OLD='2001-01-01 00:00:00'
}
teardown() { k42_cleanup; }

# costs N KIND COMMAND…: the command costs that many requests
costs() {
    local n=$1 kind=$2 before
    before=$(k42_stat "requests.$kind")
    shift 2
    "$@" >/dev/null
    [ $(($(k42_stat "requests.$kind") - before)) = "$n" ] ||
        { echo "$*: $(($(k42_stat "requests.$kind") - before)) $kind, not $n" >&2; return 1; }
}

# kept KIND COMMAND…: the command costs no request.  Memory may get short meanwhile, and the kernel forget what
# it had: twice in a row is no accident.
kept() { settle; costs 0 "$@" || { settle; costs 0 "$@"; }; }

# A file's ctime cannot be set: what is to be old has to wait.
settle() { sleep 2.1; }

# Contents are kept only where others' changes are watched.
watched_mount() {
    k42_mount -o "$1"
    timeout 10 "$K42CTL" status "$S/mnt" | grep -q '^  coherent: yes' || skip "changes cannot be watched here"
}

@test "an unchanged file is read once" {
    head -c 100000 /dev/urandom >"$S/src/f"
    settle
    watched_mount io=cached
    costs 1 read cat "$S/mnt/f"
    kept read cat "$S/mnt/f"
    costs 0 read cmp "$S/mnt/f" "$S/src/f"
}

@test "what others have changed is read again: contents, in place, with the old times, by another file" {
    head -c 5000 /dev/urandom >"$S/src/f"
    settle
    watched_mount io=cached,attr_timeout=0,entry_timeout=0,coherent
    cat "$S/mnt/f" >/dev/null
    kept read cat "$S/mnt/f"
    # in place, the size as before
    printf changed | dd of="$S/src/f" conv=notrunc status=none
    cmp "$S/mnt/f" "$S/src/f"
    settle
    cat "$S/mnt/f" >/dev/null
    kept read cat "$S/mnt/f"
    # and with its times set back
    touch -r "$S/src/f" "$S/times"
    printf CHANGED | dd of="$S/src/f" conv=notrunc status=none
    touch -r "$S/times" "$S/src/f"
    cmp "$S/mnt/f" "$S/src/f"
    settle
    cat "$S/mnt/f" >/dev/null
    # by another file
    head -c 5000 /dev/urandom >"$S/src/g"
    touch -r "$S/src/f" "$S/src/g"
    mv "$S/src/g" "$S/src/f"
    cmp "$S/mnt/f" "$S/src/f"
}

@test "what was changed twice within a step of the clock is not mistaken" {
    k42_mount -o io=cached,attr_timeout=0,entry_timeout=0
    local i
    for i in {1..200}; do
        printf '%05d' "$i" >"$S/src/f"
        [ "$(cat "$S/mnt/f")" = "$(printf '%05d' "$i")" ]
    done
}

@test "own writes are seen, and cost one reading at most" {
    watched_mount io=cached
    head -c 50000 /dev/urandom >"$S/mnt/f"
    cmp "$S/mnt/f" "$S/src/f"
    settle
    cat "$S/mnt/f" >/dev/null
    # the kernel may compare its own idea of the time of the write with ours once more
    kept read cat "$S/mnt/f"
    printf changed | dd of="$S/mnt/f" conv=notrunc status=none
    cmp "$S/mnt/f" "$S/src/f"
}

@test "an unchanged directory is listed once, where names are believed for long" {
    mkdir "$S/src/d" && touch "$S/src/d/"{1..50}
    settle
    k42_mount -o entry_timeout=3600,attr_timeout=3600
    [ "$(ls -U "$S/mnt/d" | sort -n | tr '\n' ' ')" = "$(echo {1..50}) " ]
    kept readdir ls "$S/mnt/d"
    costs 0 readdirplus ls "$S/mnt/d"
    [ "$(ls -U "$S/mnt/d" | wc -l)" = 50 ]
    # changes through the mount
    touch "$S/mnt/d/new" && rm "$S/mnt/d/7" && mv "$S/mnt/d/8" "$S/mnt/d/eight"
    [ "$(ls "$S/mnt/d" | wc -l)" = 50 ]
    ls "$S/mnt/d" | grep -qx new
    ls "$S/mnt/d" | grep -qx eight
    ! ls "$S/mnt/d" | grep -qx '[78]'
    settle
    ls "$S/mnt/d" >/dev/null
    kept readdir ls "$S/mnt/d"
}

@test "a directory whose names are believed for a second is not cached" {
    mkdir "$S/src/d" && touch "$S/src/d/"{1..50}
    settle
    k42_mount -o entry_timeout=1,attr_timeout=1
    ls "$S/mnt/d" >/dev/null
    settle
    costs 1 readdirplus ls "$S/mnt/d"
}

@test "a store into a mapping in SOURCE is seen by the next open once it is unmapped (cached, not coherent)" {
    head -c 8192 /dev/zero >"$S/src/f"
    k42_mount -o io=cached,nocoherent
    timeout 60 /usr/bin/python3 - "$S/src/f" "$S/mnt/f" <<'EOP'
import mmap, os, sys, time
def seen():
    with open(sys.argv[2], "rb", buffering=0) as f:
        return f.read(1)
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 8192)
m[0:1] = b"A"      # the fault sets the times
time.sleep(3)
assert seen() == b"A"
m[0:1] = b"B"      # this one does not
m.close(); os.close(fd)
time.sleep(2.5)
assert seen() == b"B", "the kernel was told to keep its cache"
EOP
}

@test "a directory that was moved shows its new parent, also in a listing that was cached" {
    mkdir -p "$S/src/a/d" "$S/src/b" && touch "$S/src/a/d/"{1..5}
    settle
    k42_mount -o entry_timeout=3600,attr_timeout=3600
    cat >"$S/dots.py" <<'EOP'
import ctypes, os, struct, sys
syscall = ctypes.CDLL(None, use_errno=True).syscall
def dotdot(fd):  # d_ino of ".." as getdents64 gives it
    os.lseek(fd, 0, os.SEEK_SET)
    buf = ctypes.create_string_buffer(32768)
    n = syscall(217, fd, buf, len(buf))
    assert n > 0
    at = 0
    while at < n:
        ino, _, reclen = struct.unpack_from("<QqH", buf.raw, at)
        if buf.raw[at + 19:at + reclen].split(b"\0")[0] == b"..":
            return ino
        at += reclen
mnt = sys.argv[1]
fd = os.open(mnt + "/a/d", os.O_RDONLY)
assert dotdot(fd) == os.stat(mnt + "/a").st_ino
os.listdir(fd)
for here, there in ("a", "b"), ("b", "a"), ("a", "b"):
    os.listdir(mnt + "/" + here + "/d")
    os.rename(f"{mnt}/{here}/d", f"{mnt}/{there}/d")
    want = os.stat(f"{mnt}/{there}").st_ino
    assert dotdot(fd) == want, "an open directory shows the old parent"
    other = os.open(f"{mnt}/{there}/d", os.O_RDONLY)
    assert dotdot(other) == want, "a newly opened directory shows the old parent"
    os.close(other)
os.mkdir(mnt + "/a/d")
os.listdir(mnt + "/a/d")
libc = ctypes.CDLL(None, use_errno=True)
assert libc.renameat2(-100, f"{mnt}/a/d".encode(), -100, f"{mnt}/b/d".encode(), 2) == 0  # exchange
assert dotdot(fd) == os.stat(mnt + "/a").st_ino, "after an exchange"
other = os.open(f"{mnt}/b/d", os.O_RDONLY)
assert dotdot(other) == os.stat(mnt + "/b").st_ino, "after an exchange, the other one"
EOP
    timeout 60 /usr/bin/python3 "$S/dots.py" "$S/mnt"
}
