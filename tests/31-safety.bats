#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What must not become possible by mirroring, and what one user must not do to the others.

load lib

setup() {
    k42_skip_unless_fuse
    [ "$(id -u)" = 0 ] || skip "not root: a user's own mount has no rights but his"
    k42_scratch
}
teardown() {
    [ -z "${S:-}" ] || for m in "$S/src/sub" "$S/src"; do umount -l "$m" 2>/dev/null || true; done
    k42_cleanup
}

@test "nosuid, nodev and noexec of SOURCE hold on the mount" {
    mount -t tmpfs -o nosuid,nodev,noexec,mode=755 k42test "$S/src"
    cp /usr/bin/id "$S/src/id" && chmod 4755 "$S/src/id"
    mknod -m 666 "$S/src/zero" c 1 5
    k42_mount
    grep -q " $S/mnt fuse.k42fs [^ ]*nosuid,nodev,noexec" /proc/mounts
    run ! timeout 5 setpriv --reuid=65534 --regid=65534 --clear-groups "$S/mnt/id"
    run ! timeout 5 head -c 1 "$S/mnt/zero"
    k42_umount
}

@test "a mount below SOURCE that forbids more than the mirror is refused, else it is shown" {
    mkdir "$S/src/sub"
    mount -t tmpfs -o nosuid,nodev k42test "$S/src/sub"
    cp /usr/bin/id "$S/src/sub/id" && chmod 4755 "$S/src/sub/id"
    k42_mount
    run -1 timeout 5 cat "$S/mnt/sub/id"
    [[ $output == *"cross-device"* ]]
    ls "$S/mnt" >/dev/null
    k42_umount
    k42_mount -o nosuid,nodev
    cmp "$S/mnt/sub/id" /usr/bin/id
    run -0 timeout 5 setpriv --reuid=65534 --regid=65534 --clear-groups "$S/mnt/sub/id" -u
    [ "$output" = 65534 ]
    k42_umount
}

@test "setgid goes with an ACL of a stranger to the group, on directories too" {
    for d in src mnt2; do mkdir -p "$S/$d/d"; chown 65534:0 "$S/$d/d"; chmod 2775 "$S/$d/d"; done
    k42_mount
    for d in mnt mnt2; do
        setpriv --reuid=65534 --regid=65534 --clear-groups setfacl -m u:1:rx "$S/$d/d"
        stat -c %a "$S/$d/d" >>"$S/modes"
        setpriv --reuid=65534 --regid=65534 --clear-groups setfacl -d -m u:1:rx "$S/$d/d"
        stat -c %a "$S/$d/d" >>"$S/modes"
    done
    [ "$(sort -u "$S/modes" | wc -l)" = 1 ]
}

@test "files that were made without a name hold no descriptor once they have one" {
    (ulimit -n 256; k42_mount; printf '%s\n' "${K42_DAEMONS[@]}" >"$S/daemons")
    mapfile -t K42_DAEMONS <"$S/daemons"
    chmod 777 "$S/src"
    timeout 60 setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 - "$S/mnt" <<'EOP'
import os, sys
for i in range(600):
    fd = os.open(sys.argv[1], os.O_TMPFILE | os.O_WRONLY, 0o644)
    os.write(fd, b"x")
    os.link(f"/proc/self/fd/{fd}", f"{sys.argv[1]}/{i}", src_dir_fd=0, follow_symlinks=True)
    os.close(fd)
EOP
    [ "$(ls "$S/src" | wc -l)" = 600 ]
    [ "$(k42_stat node_fds)" -lt 256 ]
}

@test "a stranger's O_TRUNC takes setuid off, and nobody is shown the old mode" {
    k42_mount -o attr_timeout=3600
    touch "$S/src/f" && chmod 6777 "$S/src/f"
    [ "$(stat -c %a "$S/mnt/f")" = 6777 ]
    setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 -c \
        'import os, sys; os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)' "$S/mnt/f"
    [ "$(stat -c %a "$S/src/f")" = 777 ]
    [ "$(stat -c %a "$S/mnt/f")" = 777 ]
}

@test "a user's open files leave descriptors for root" {
    (ulimit -n 256; k42_mount; printf '%s\n' "${K42_DAEMONS[@]}" >"$S/daemons")
    mapfile -t K42_DAEMONS <"$S/daemons"
    chmod 777 "$S/src"
    mkdir -p "$S/src/d" && echo text >"$S/src/d/f"
    cat >"$S/hold.py" <<'EOP'
import errno, os, sys
held = []
try:
    while True: # nameless ones cost two each
        name = f"{sys.argv[1]}/{len(held)}"
        held.append(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644))
        os.unlink(name)
except OSError as e:
    print(len(held), errno.errorcode[e.errno], flush=True)
sys.stdin.read()
EOP
    coproc HOLD { exec timeout 60 setpriv --reuid=65534 --regid=65534 --clear-groups \
        /usr/bin/python3 "$S/hold.py" "$S/mnt"; }
    read -r -t 30 held why <&"${HOLD[0]}"
    [ "$why" = ENFILE ] && [ "$held" -gt 50 ]
    [ "$(timeout 5 cat "$S/mnt/d/f")" = text ]
    timeout 5 touch "$S/mnt/d/g" && timeout 5 rm "$S/mnt/d/g"
    timeout 5 ls -l "$S/mnt/d" >/dev/null
    kill "$HOLD_PID" && wait "$HOLD_PID" || true
    for _ in {1..50}; do # what he had is free again
        timeout 5 setpriv --reuid=65534 --regid=65534 --clear-groups touch "$S/mnt/h" 2>/dev/null && break
        sleep 0.1
    done
    [ -e "$S/src/h" ]
}

@test "the mount itself, bound below SOURCE, is refused without being asked for attributes" {
    mkdir "$S/src/sub"
    for i in {1..30}; do echo x >"$S/src/$i"; done
    k42_mount -o attr_timeout=0,max_threads=2
    mount --bind "$S/mnt" "$S/src/sub"
    run ! timeout 10 stat "$S/mnt/sub"
    [[ $output == *"Too many levels"* ]]
    # When all threads asked their own mount nobody would be left to answer.
    local pids=()
    for _ in {1..6}; do
        (for _ in {1..100}; do
            timeout -k 1 10 ls -l "$S/mnt" >/dev/null 2>&1 || [ $? -lt 124 ]
        done) 3>&- &
        pids+=($!)
    done
    local bad=0
    for p in "${pids[@]}"; do wait "$p" || bad=1; done
    if [ $bad = 1 ]; then # it would never end
        pkill -KILL -P "${K42_DAEMONS[0]%%:*}"
        false
    fi
}

@test "a new file whose writer has closed it can be run in SOURCE, though somebody reads it" {
    k42_mount
    timeout 20 /usr/bin/python3 - "$S/src" "$S/mnt" <<'EOP'
import os, subprocess, sys, time
src, mnt = sys.argv[1:]
writer = os.open(mnt + "/true", os.O_CREAT | os.O_WRONLY, 0o755)
os.write(writer, open("/bin/true", "rb").read())
reader = os.open(mnt + "/true", os.O_RDONLY)
os.close(writer)
for last in [False] * 20 + [True]: # the daemon learns of close() a little later
    try:
        sys.exit(subprocess.call([src + "/true"]))
    except OSError as e:
        if last:
            sys.exit(str(e))
    time.sleep(0.1)
EOP
}
