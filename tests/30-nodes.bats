#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The mirror's nodes on a real mount: bounded descriptors, exact lookup counts, identity, confinement,
# whose the new files are.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
}

teardown() {
    [ -z "${S:-}" ] || umount -l "$S/src" 2>/dev/null || true # where a test has put a file system
    k42_cleanup
}

make_tree() { # DIRECTORIES FILES-IN-EACH
    python3 - "$S/src" "$1" "$2" <<'P'
import os, sys
top, dirs, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for d in range(dirs):
    os.makedirs(f"{top}/t/{d}")
    for f in range(files):
        with open(f"{top}/t/{d}/f{f}", "w") as out:
            out.write(f"{d}/{f}")
P
}

@test "a tree of many files is walked and read with 256 descriptors" {
    local dirs=${K42_SOAK:+100} # 100,000 files
    make_tree "${dirs:-10}" 1000
    ulimit -n 256
    k42_mount
    timeout 600 python3 - "$S/mnt/t" "${dirs:-10}" <<'P'
import os, sys
n = 0
for again in range(2):
    for top, dirs, files in os.walk(sys.argv[1]):
        for f in files:
            os.lstat(os.path.join(top, f))
            n += 1
            if n % 7 == 0:
                with open(os.path.join(top, f)) as data:
                    assert data.read() == f"{os.path.basename(top)}/{f[1:]}"
assert n == 2000 * int(sys.argv[2]), n
P
    [ "$(k42_stat objects)" -ge 1000 ] || [ "$(id -u)" = 0 ]
    fds=$(ls "/proc/$K42_PID/fd" | wc -l)
    [ "$fds" -lt 200 ]
}

@test "files can be opened again when their descriptors were closed, at any depth" {
    mkdir -p "$S/src/$(printf 'd/%.0s' {1..60})"
    deep=$(printf 'd/%.0s' {1..60})
    for i in {1..100}; do echo "$i" >"$S/src/$deep/$i"; done
    for i in {1..200}; do echo "$i" >"$S/src/x$i"; done
    ulimit -n 128
    k42_mount -o attr_timeout=0,entry_timeout=0
    for round in 1 2; do
        for i in {1..100}; do
            [ "$(cat "$S/mnt/$deep/$i")" = "$i" ]
            [ "$(cat "$S/mnt/x$((2 * i))")" = $((2 * i)) ]
        done
    done
}

@test "lookup counts are exact" {
    need_root "to have the kernel drop what it has cached"
    make_tree 20 50
    k42_mount
    cd "$S/mnt"
    for i in 1 2 3; do ls -lR . >/dev/null; find . -newer t -type f >/dev/null; done
    cp -r t u
    mv u/1 u/moved
    ln u/2/f1 hard
    ln -s hard soft
    mkfifo fifo
    rm -r u/3 hard
    cat soft 2>/dev/null && false
    cd /
    k42_counts_zero
    k42_objects_are_one
}

@test "lookup counts are exact when callers are killed in the middle" {
    need_root "to have the kernel drop what it has cached"
    make_tree 20 50
    k42_mount -o attr_timeout=0,entry_timeout=0
    cat >"$S/busy.sh" <<'P'
cd "$1" || exit
while :; do
    ls -lR . >/dev/null
    cat t/*/f1* >/dev/null
    echo x >"new.$2"
    mkdir -p "dir.$2"
    rm -rf "new.$2" "dir.$2"
done
P
    for i in {1..40}; do
        local pids=()
        for j in 1 2 3 4; do
            timeout -s KILL "0.0$((RANDOM % 9 + 1))" bash "$S/busy.sh" "$S/mnt" "$j" >/dev/null 2>&1 3>&- &
            pids+=($!)
        done
        wait "${pids[@]}" || true
    done
    k42_counts_zero
    k42_objects_are_one
}

@test "an inode number that is used again never leads to another file" {
    k42_mount -o attr_timeout=0,entry_timeout=0
    timeout 120 python3 - "$S/src" "$S/mnt" <<'P'
import errno, os, sys
src, mnt = sys.argv[1:]
reused = 0
for i in range(300):
    name = f"f{i}"
    with open(f"{src}/{name}", "w") as f:
        f.write(f"old {i}")
    ino = os.stat(f"{src}/{name}").st_ino
    held = os.open(f"{mnt}/{name}", os.O_PATH)          # the kernel keeps the node
    for k in range(60):                                  # others push its descriptor out
        os.stat(f"{mnt}/.") 
    os.unlink(f"{src}/{name}")
    with open(f"{src}/{name}", "w") as f:
        f.write(f"new {i}")
    reused += os.stat(f"{src}/{name}").st_ino == ino
    with open(f"{mnt}/{name}") as f:
        assert f.read() == f"new {i}", name
    try:
        with open(f"/proc/self/fd/{held}") as f:
            text = f.read()
        assert text == f"old {i}", text
    except OSError as e:
        assert e.errno in (errno.ESTALE, errno.ENOENT), e
    os.close(held)
print("reused", reused)
P
}

@test "the same with few descriptors, so that the old node's is closed" {
    ulimit -n 128
    mkdir "$S/src/many"
    for i in {1..100}; do : >"$S/src/many/$i"; done
    k42_mount -o attr_timeout=0,entry_timeout=0
    timeout 120 python3 - "$S/src" "$S/mnt" <<'P'
import errno, os, sys
src, mnt = sys.argv[1:]
reused = stale = 0
for i in range(40):
    name = f"f{i}"
    with open(f"{src}/{name}", "w") as f:
        f.write(f"old {i}")
    ino = os.stat(f"{src}/{name}").st_ino
    held = os.open(f"{mnt}/{name}", os.O_PATH)
    for k in range(1, 101):
        os.stat(f"{mnt}/many/{k}")
    os.unlink(f"{src}/{name}")
    with open(f"{src}/{name}", "w") as f:
        f.write(f"new {i}")
    reused += os.stat(f"{src}/{name}").st_ino == ino
    with open(f"{mnt}/{name}") as f:
        assert f.read() == f"new {i}", name
    try:
        with open(f"/proc/self/fd/{held}") as f:
            text = f.read()
        assert text == f"old {i}", text
    except OSError as e:
        assert e.errno in (errno.ESTALE, errno.ENOENT), e
        stale += 1
    os.close(held)
assert stale == 40, stale
if not reused:
    print("this file system does not use numbers again at once")
P
}

@test "symbolic links are the caller's to follow, not the daemon's" {
    ln -s /etc/passwd "$S/src/out"
    ln -s .. "$S/src/up"
    ln -s "$S/src/real" "$S/src/in"
    echo real >"$S/src/real"
    k42_mount
    [ "$(readlink "$S/mnt/out")" = /etc/passwd ]
    [ -L "$S/mnt/out" ]
    [ "$(stat -c %s "$S/mnt/out")" = 11 ]
    [ "$(cat "$S/mnt/in")" = real ]
    # O_NOFOLLOW through the mount is refused, as everywhere
    run python3 -c 'import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_NOFOLLOW)' "$S/mnt/out"
    [[ $output == *ELOOP* || $output == *"Too many levels"* ]]
    # a directory that becomes a link between two requests is not walked through, even when its
    # descriptor at the daemon was closed meanwhile
    mkdir -p "$S/src/d/e" "$S/src/many" "$S/away/e"
    echo inside >"$S/src/d/e/f"
    echo outside >"$S/away/e/f"
    for i in {1..100}; do : >"$S/src/many/$i"; done
    k42_umount
    ulimit -n 128
    k42_mount -o attr_timeout=0,entry_timeout=0
    timeout 20 python3 - "$S" <<'P'
import errno, os, sys
top = sys.argv[1]
e = os.open(f"{top}/mnt/d/e", os.O_PATH)
for i in range(1, 101):
    os.stat(f"{top}/mnt/many/{i}")
os.rename(f"{top}/src/d", f"{top}/src/d.old")
os.symlink(f"{top}/away", f"{top}/src/d")
try:
    with os.fdopen(os.open("f", os.O_RDONLY, dir_fd=e)) as f:
        text = f.read()
    assert text == "inside\n", text
except OSError as error:
    assert error.errno == errno.ESTALE, error
P
    k42_umount
}

@test "the mount inside its own source is a dead end" {
    need_root "to bind the mount into its source"
    mkdir "$S/src/inner"
    echo a >"$S/src/a"
    k42_mount
    mount --bind "$S/mnt" "$S/src/inner"
    run timeout 10 ls "$S/mnt/inner"
    local said=$output code=$status i
    for i in {1..30}; do timeout 10 stat "$S/mnt/inner" >/dev/null 2>&1 3>&- || true; done
    run timeout 20 find "$S/mnt" -name a
    umount "$S/src/inner"
    [ "$code" -ne 0 ]
    [[ $said == *"Too many levels of symbolic links"* ]]
    [ "$(grep -c /a$ <<<"$output")" = 1 ]
    [ "$(cat "$S/mnt/a")" = a ]
    [ "$(ls -A "$S/mnt/inner")" = "" ]
}

@test "a file that was removed while it is open goes on" {
    k42_mount
    timeout 60 python3 - "$S/mnt" <<'P'
import os, sys
os.chdir(sys.argv[1])
held = []
for i in range(200):
    f = open(f"f{i}", "w+")
    f.write(f"text {i}")
    f.flush()
    os.unlink(f"f{i}")
    held.append(f)
    with open(f"g{i}", "w") as g:
        g.write("other")
for i, f in enumerate(held):
    st = os.fstat(f.fileno())
    assert st.st_nlink == 0 and st.st_size == len(f"text {i}"), st
    os.fchmod(f.fileno(), 0o600)
    os.ftruncate(f.fileno(), 4)
    f.seek(0)
    assert f.read() == "text"
open("a", "w").write("a")
open("b", "w").write("b")
b = open("b")
os.rename("a", "b")
assert b.read() == "b" and open("b").read() == "a" and os.fstat(b.fileno()).st_nlink == 0
os.mkdir("d")
d = os.open("d", os.O_DIRECTORY)
os.rmdir("d")
assert os.listdir(d) == [] and os.fstat(d).st_nlink == 0
P
    k42_counts_zero
}

@test "what a user makes is the user's" {
    need_root "to become somebody else"
    command -v setfacl >/dev/null || skip "no setfacl"
    install -d -m 1777 "$S/src/tmp"
    install -d -m 2777 -g 12 "$S/src/setgid"
    install -d -m 777 "$S/src/acl"
    setfacl -d -m u:13:rwx,g::r-x,o::--- "$S/src/acl" || skip "no ACLs on this file system"
    k42_mount
    make_some='umask 027; cd "$1"; : >file; mkdir dir; ln -s x link; mkfifo fifo; ln file hard'
    for where in tmp setgid acl; do
        install -d -m 777 "$S/native"
        rm -rf "$S/native"; cp -a "$S/src/$where" "$S/native"
        for top in "$S/native" "$S/mnt/$where"; do
            setpriv --reuid 65534 --regid 65534 --groups 12,100 bash -c "$make_some" _ "$top"
        done
        diff <(cd "$S/native" && stat -c '%n %A %u %g %F' *) \
             <(cd "$S/src/$where" && stat -c '%n %A %u %g %F' *)
        diff <(cd "$S/native" && getfacl -n * 2>/dev/null) <(cd "$S/src/$where" && getfacl -n * 2>/dev/null)
    done
    # the next one who is served by the same threads is not nobody
    for i in {1..40}; do : >"$S/mnt/root.$i"; done
    [ "$(stat -c %u:%g "$S"/src/root.* | sort -u)" = 0:0 ]
}

@test "setuid bits go when a user writes, and stay when root does" {
    need_root "to become somebody else"
    k42_mount
    for who in 0 65534; do
        echo x >"$S/mnt/f"
        chmod 6777 "$S/mnt/f"
        setpriv --reuid $who --regid $who --clear-groups bash -c 'echo y >>"$1"' _ "$S/mnt/f"
        mode[$who]=$(stat -c %a "$S/src/f")
    done
    [ "${mode[0]}" = 6777 ]
    [ "${mode[65534]}" = 777 ]
}

@test "appends go to the end, wherever that is by now" {
    k42_mount -o attr_timeout=3600
    exec 9>>"$S/mnt/log"
    echo one >&9
    echo outside >>"$S/src/log"
    echo two >&9
    exec 9>&-
    [ "$(tr '\n' ' ' <"$S/src/log")" = "one outside two " ]
}

@test "a listing can be left and gone on with, while entries go" {
    mkdir "$S/src/d"
    for i in {1..3000}; do : >"$S/src/d/entry-$i"; done
    k42_mount
    cat >"$S/seek.py" <<'P'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
for f in (libc.readdir, libc.telldir, libc.closedir, libc.rewinddir):
    f.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = libc.opendir(os.fsencode(sys.argv[1]))
def name():
    e = libc.readdir(d)
    return ctypes.string_at(e + 19).decode() if e else None
seen, places = [], []
while True:
    places.append(libc.telldir(d))
    n = name()
    if n is None:
        break
    seen.append(n)
assert len(seen) == 3002 and len(set(seen)) == 3002, len(seen)
for i in range(0, 3002, 97):
    libc.seekdir(d, places[i])
    assert name() == seen[i], i
libc.rewinddir(d)
assert [name() for _ in range(10)] == seen[:10]
for n in seen[10:1500]:
    if n not in (".", ".."):
        os.unlink(f"{sys.argv[1]}/{n}")
libc.seekdir(d, places[1500])
rest = []
while (n := name()) is not None:
    rest.append(n)
assert rest == seen[1500:], (len(rest), len(seen[1500:]))
P
    timeout 60 python3 "$S/seek.py" "$S/mnt/d"
    [ "$(ls "$S/mnt/d" | sort)" = "$(ls "$S/src/d" | sort)" ]
}

@test "chattr and lsattr reach the backing file" {
    need_root "for chattr +i"
    : >"$S/src/f"
    chattr +d "$S/src/f" 2>/dev/null || skip "no file attributes on this file system"
    k42_mount
    attributes() { lsattr "$1" | cut -d ' ' -f 1; } # the path may have any letter
    [[ $(attributes "$S/mnt/f") == *d* ]]
    chattr +i "$S/mnt/f"
    [[ $(attributes "$S/src/f") == *i* ]]
    run bash -c 'echo x >"$1"' _ "$S/mnt/f"
    [ "$status" -ne 0 ]
    run setpriv --reuid 65534 --clear-groups chattr -i "$S/mnt/f"
    [ "$status" -ne 0 ]
    chattr -i "$S/mnt/f"
    [[ $(attributes "$S/src/f") != *i* ]]
}

@test "what is removed frees its blocks, though its file was kept ready for another open" {
    need_root "for a file system of its own"
    mount -t tmpfs -o size=64m,mode=755 k42test "$S/src" || skip "cannot mount a tmpfs"
    k42_mount
    free_blocks() { stat -f -c %f "$S/src"; }
    local before
    before=$(free_blocks)
    head -c 10000000 /dev/urandom | tee "$S/src/a" >"$S/src/b"
    cat "$S/mnt/a" "$S/mnt/b" >/dev/null
    cat "$S/mnt/a" "$S/mnt/b" >/dev/null
    rm "$S/mnt/a" # through the mount: at once, but for the request that closes it
    for _ in {1..10}; do [ "$(free_blocks)" -gt $((before - 3000)) ] && break; sleep 0.05; done
    [ "$(free_blocks)" -gt $((before - 3000)) ]
    exec 5<"$S/mnt/b"
    rm "$S/mnt/b"
    [ "$(cmp <(head -c 100 <&5) <(head -c 100 /dev/zero) | wc -l)" = 1 ] # still there for who has it
    exec 5<&-
    for _ in {1..10}; do [ "$(free_blocks)" = "$before" ] && break; sleep 0.05; done
    [ "$(free_blocks)" = "$before" ]
    k42_umount
    umount "$S/src"
}
