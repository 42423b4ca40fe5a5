#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# -o coherent: what others change in SOURCE is seen through the mount at once, although the kernel may believe
# for an hour what it knows.

load lib

setup() {
    k42_scratch
    k42_skip_unless_fuse
    TOOLS=$K42_TESTS/coherent
    LONG=attr_timeout=3600,entry_timeout=3600
}
teardown() {
    local at
    [ -z "${STORM:-}" ] || kill "$STORM" 2>/dev/null
    for at in "$S/src/sub" "$S/src/late" "$S/src"; do
        mountpoint -q "$at" && umount -l "$at"
    done
    k42_cleanup
}

# feature NAME: of `k42ctl status`
feature() {
    timeout 20 "$K42CTL" status --json "${2:-$S/mnt}" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["features"][sys.argv[1]])' "$1"
}

# coherent_mount OPTIONS: SKIPs where changes cannot be watched.
coherent_mount() {
    [ "$(id -u)" = 0 ] || skip "not root: fanotify refuses to mark a file system"
    case $(stat -f -c %T "$S/src") in
    ext2/ext3 | xfs | tmpfs | f2fs) ;;
    *) skip "the scratch directory is on a file system that is not covered" ;;
    esac
    k42_mount -o "$1"
    [ "$(feature coherent)" = True ]
}

# eventually SECONDS COMMAND…
eventually() {
    local until=$((SECONDS + $1 + 1))
    shift
    while ! "$@"; do
        [ "$SECONDS" -lt "$until" ] || { echo "never came true: $*"; return 1; }
        sleep 0.02
    done
}

mode_is() { [ "$(stat -c %a "$2")" = "$1" ]; }
took_back() { [ "$(k42_stat invalidations)" -gt "$1" ]; }
only() { [ "$(ls "$2")" = "$1" ]; }

same_attributes() { # PATH below both
    [ "$(stat -c '%i %f %h %u %g %s %x %y %z' "$S/src/$1")" = "$(stat -c '%i %f %h %u %g %s %x %y %z' "$S/mnt/$1")" ]
}

# What was asked of the daemon about names and attributes.
asked() { echo $(($(k42_stat requests.lookup) + $(k42_stat requests.getattr) + $(k42_stat requests.readdirplus))); }

changes() {
    coherent_mount "io=$1,$LONG"
    timeout 120 python3 "$TOOLS/seen.py" "$S/src" "$S/mnt"
    k42_counts_zero
}

@test "each kind of change is seen within 100 ms, io=cached" { changes cached; }
@test "each kind of change is seen within 100 ms, io=fast" { changes fast; }
@test "each kind of change is seen within 100 ms, io=counted" { changes counted; }

@test "no change is lost while others look" {
    coherent_mount "io=cached,$LONG"
    for seed in 1 2 3; do
        timeout 60 python3 "$TOOLS/race.py" "$S/src" "$S/mnt" --seed "$seed"
    done
    k42_umount
    k42_mount -o "io=fast,$LONG"
    timeout 60 python3 "$TOOLS/race.py" "$S/src" "$S/mnt" --seed 4
    k42_umount
}

@test "the tools notice a mount that is not coherent" {
    k42_mount -o "io=cached,nocoherent,$LONG"
    [ "$(feature coherent)" = False ]
    run -1 timeout 60 python3 "$TOOLS/seen.py" "$S/src" "$S/mnt" --rounds 1 --only chmod,delete,append
    [[ $output == *"FAIL chmod"*"FAIL delete"* ]]
    run -1 timeout 60 python3 "$TOOLS/race.py" "$S/src" "$S/mnt"
}

own_changes() {
    local m=$S/mnt before
    # A file system without strangers: on one that is shared a file can get the inode number of one that
    # somebody has just removed, and the event of that takes back what is known of it.
    mount -t tmpfs -o mode=755 none "$S/src" || skip "cannot mount a tmpfs"
    coherent_mount "io=$1"
    before=$(k42_stat invalidations)
    mkdir -p "$m/d/e" "$m/x"
    for i in {1..50}; do
        echo "$i" >"$m/d/$i"
        chmod 640 "$m/d/$i"
        touch -d 2001-01-01 "$m/d/$i"
        setfattr -n user.k -v "$i" "$m/d/$i" 2>/dev/null || true # tmpfs has none before Linux 6.6
        ln "$m/d/$i" "$m/d/e/$i"
        mv "$m/d/$i" "$m/x/$i"
    done
    truncate -s 3 "$m"/x/*
    ls -lR "$m" >/dev/null
    ln -s one "$m/l" && rm "$m/l" && ln -s two "$m/l"
    cp -r "$m/x" "$m/y"
    rm -r "$m/d" "$m/y"
    sleep 0.2
    echo "invalidations: $before, then $(k42_stat invalidations)"
    [ "$(k42_stat invalidations)" = "$before" ]
    exec 7<"$m/x" # open: the kernel cannot forget it by itself
    chmod 777 "$S/src/x" # it does count
    eventually 2 took_back "$before"
    exec 7<&-
    k42_umount
    umount "$S/src"
}

@test "own changes take nothing back, io=cached" { own_changes cached; }
@test "own changes take nothing back, io=counted" { own_changes counted; }

@test "own changes of which the kernel does not learn by the request" {
    coherent_mount "$LONG"
    head -c 5000 /dev/zero >"$S/src/a"
    touch -d 2001-01-01 "$S/src/a"
    sleep 0.1
    stat "$S/mnt/a" >/dev/null
    python3 -c 'import os, sys
a = os.open(sys.argv[1] + "/a", os.O_RDONLY)
b = os.open(sys.argv[1] + "/b", os.O_RDWR | os.O_CREAT)
assert os.copy_file_range(a, b, 3000) == 3000' "$S/mnt"
    same_attributes a
    same_attributes b
    sleep 0.02
    chattr +d "$S/mnt/a" || skip "the file system has no flags"
    same_attributes a
}

@test "what is known is not asked for again" {
    local before
    coherent_mount io=cached
    mkdir "$S/src/d"
    touch "$S/src"/d/{1..100}
    sleep 0.1
    look() { ls -l "$S/mnt/d" >/dev/null; stat "$S"/mnt/d/{1..100} >/dev/null; ! stat "$S/mnt/none" 2>/dev/null; }
    look
    look
    sleep 1.5 # longer than the short timeouts
    before=$(asked)
    stat "$S"/mnt/d/{1..100} >/dev/null
    ! stat "$S/mnt/none" 2>/dev/null || false
    echo "asked: $before, then $(asked)"
    [ "$(asked)" = "$before" ]
    k42_umount

    k42_mount -o io=cached,nocoherent
    look
    sleep 1.5
    before=$(asked)
    stat "$S"/mnt/d/{1..100} >/dev/null
    [ "$(asked)" -ge $((before + 100)) ]
    k42_umount
}

@test "exclusive: for ever, and nothing is watched" {
    local before
    k42_mount -o io=cached,exclusive
    [ "$(feature coherent)" = False ]
    echo old >"$S/mnt/f"
    stat "$S/mnt/f" >/dev/null
    ! stat "$S/mnt/g" 2>/dev/null || false
    chmod 600 "$S/src/f"
    touch "$S/src/g"
    sleep 1.5
    [ "$(stat -c %a "$S/mnt/f")" = 644 ]
    [ ! -e "$S/mnt/g" ]
    chmod 640 "$S/mnt/f" # the own ones are known
    [ "$(stat -c %a "$S/mnt/f")" = 640 ]
}

# stored IO: a store into a mapping of the mount shows in the times of the file, after the descriptor is closed too
stored() {
    echo "$(printf 'x%.0s' {1..5000})" >"$S/src/f"
    touch -d 2001-01-01 "$S/src/f"
    stat "$S/mnt/f" >/dev/null
    python3 - "$S/mnt/f" "$S/src/f" <<'END'
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDWR)
at = libc.mmap(None, 4096, 3, 1, fd, 0)
os.close(fd)
os.stat(sys.argv[1])
time.sleep(0.2)
ctypes.memset(at, 65, 3)
libc.msync(ctypes.c_void_p(at), 4096, 4)
time.sleep(1.2)
shown, real = (os.stat(p).st_mtime_ns for p in sys.argv[1:])
assert real > 10**18 and shown == real, (shown, real)
ctypes.memset(at, 66, 3)
END
    eventually 1 same_attributes f
}

@test "stores into a mapping, io=fast" { coherent_mount io=fast; stored; }
@test "stores into a mapping, io=cached" { coherent_mount io=cached; stored; }
@test "stores into a mapping, io=fast, exclusive" { k42_mount -o io=fast,exclusive; stored; }

@test "a file that is written in class fast costs its writer no round trips" {
    local before
    coherent_mount io=fast
    [ "$(timeout 20 "$K42CTL" status --json "$S/mnt" | python3 -c 'import json, sys; print(json.load(sys.stdin)["class"])')" = fast ] ||
        skip "the kernel refuses passthrough"
    exec 7>"$S/mnt/f"
    head -c 1M /dev/zero >&7
    before=$(asked)
    dd if=/dev/zero bs=512 count=40000 status=none >&7
    echo "asked: $before, then $(asked)"
    [ "$(asked)" -le $((before + 2)) ]
    exec 7>&-
    [ "$(stat -c %s "$S/mnt/f")" = $((1048576 + 512 * 40000)) ]
    eventually 1 same_attributes f
}

@test "a process in a directory is not cut off by what others do" {
    coherent_mount "$LONG"
    mkdir -p "$S/src/d/e"
    cd "$S/mnt/d"
    touch "$S/src/d/e/f"
    chmod 700 "$S/src/d"
    mkdir "$S/src/d/g"
    mv "$S/src/d/g" "$S/src/d/h"
    sleep 0.1
    [ "$(pwd -P)" = "$S/mnt/d" ]
    [ "$(/bin/pwd)" = "$S/mnt/d" ]
    # made by another, and entered before the event is looked at, as one has just been
    python3 - "$S/src" "$S/mnt" <<'END'
import os, sys, time
source, mnt = sys.argv[1:]
for i in range(50):
    os.mkdir(f"{source}/before{i}")
    time.sleep(0.001)
    os.mkdir(f"{source}/n{i}")
    os.chdir(f"{mnt}/n{i}")
    time.sleep(0.02)
    assert os.getcwd() == f"{mnt}/n{i}"
END
}

# fill DIR: more events than the queue has room for, of both kinds
fill() {
    python3 - "$1" "$(cat /proc/sys/fs/fanotify/max_queued_events)" <<'END'
import os, sys
os.makedirs(sys.argv[1], exist_ok=True)
for i in range(int(sys.argv[2]) + 1000):
    os.close(os.open(f"{sys.argv[1]}/{i}", os.O_WRONLY | os.O_CREAT, 0o644))
END
}

@test "events that were lost" {
    local max
    coherent_mount "io=cached,$LONG"
    max=$(cat /proc/sys/fs/fanotify/max_queued_events)
    [ "$max" -le 100000 ] || skip "the queue has room for $max events"
    mkdir -p "$S/src/a/b" "$S/src/x"
    echo old >"$S/src/a/f"
    echo old >"$S/src/a/gone"
    ln "$S/src/a/f" "$S/src/a/b/link"
    sleep 0.1
    cat "$S/mnt/a/f" "$S/mnt/a/gone" >/dev/null
    ls -lR "$S/mnt" >/dev/null
    ! stat "$S/mnt/a/none" 2>/dev/null || false
    sleep 0.1
    [ "$(k42_stat invalidated_all)" = 0 ]
    kill -STOP "$K42_PID"
    fill "$S/outside"
    echo newer >"$S/src/a/f"
    chmod 600 "$S/src/a/f"
    rm "$S/src/a/gone"
    touch "$S/src/a/none" "$S/src/a/b/late"
    kill -CONT "$K42_PID"
    eventually 5 same_attributes a/f
    [ "$(cat "$S/mnt/a/f" "$S/mnt/a/b/link")" = "$(printf 'newer\nnewer')" ]
    [ ! -e "$S/mnt/a/gone" ]
    [ "$(ls "$S/mnt/a/b")" = "$(printf 'late\nlink')" ]
    eventually 11 test -e "$S/mnt/a/none"
    [ "$(k42_stat invalidated_all)" -ge 1 ]
}

rss() { awk '/VmRSS/ { print $2 }' "/proc/$K42_PID/status"; }

@test "ten thousand files of others while the mount is used" {
    local before objects after
    coherent_mount io=cached
    mkdir "$S/src/d" "$S/outside"
    touch "$S/src/d/f"
    ls -l "$S/mnt/d" >/dev/null
    before=$(rss) objects=$(k42_stat objects)
    for dir in "$S/outside" "$S/src/d"; do
        python3 -c 'import os, sys
for i in range(10000):
    open(f"{sys.argv[1]}/{i}", "w").close()
    os.unlink(f"{sys.argv[1]}/{i}")' "$dir" &
        STORM=$!
        while kill -0 "$STORM" 2>/dev/null; do
            echo x >"$S/mnt/own"
            [ -e "$S/mnt/d/f" ]
            rm "$S/mnt/own"
        done
        wait "$STORM"
    done
    after=$(rss)
    echo "RSS: $before kB, then $after kB; objects: $objects, then $(k42_stat objects)"
    # AddressSanitizer keeps what is freed, and ThreadSanitizer remembers everything
    grep -qE 'lib[at]san' "/proc/$K42_PID/maps" || [ $((after - before)) -le 4096 ]
    [ "$(k42_stat objects)" -le $((objects + 5)) ]
    eventually 2 only f "$S/mnt/d"
}

@test "directories are moved while others change what is in the same places: nobody waits for ever" {
    local others
    coherent_mount io=cached
    mkdir "$S/src/a" "$S/src/b" "$S/src/a/d" "$S/src/a/e"
    timeout 60 python3 -c 'import os, sys
src, mnt = sys.argv[1:]
while True:
    for where in "a", "b":
        for name in "1", "2", "3":
            open(f"{src}/{where}/{name}", "w").close()
            try:
                os.stat(f"{mnt}/{where}/{name}")
            except FileNotFoundError:
                pass # it is seen in a moment
            os.unlink(f"{src}/{where}/{name}")' "$S/src" "$S/mnt" 2>"$S/others" 3>&- &
    STORM=$!
    timeout 60 python3 -c 'import os, sys, time
mnt = sys.argv[1]
until = time.monotonic() + 4
while time.monotonic() < until:
    for name in "d", "e":
        os.listdir(f"{mnt}/a/{name}")
        os.rename(f"{mnt}/a/{name}", f"{mnt}/b/{name}")
    for name in "d", "e":
        os.rename(f"{mnt}/b/{name}", f"{mnt}/a/{name}")' "$S/mnt"
    kill "$STORM"
    wait "$STORM" || true
    STORM=
    [ ! -s "$S/others" ]
}

# storm: until the test ends, others change what several programs look at through the mount
storm() {
    python3 "$TOOLS/race.py" "$S/src" "$S/mnt" --seconds 60 >/dev/null 2>&1 3>&- &
    STORM=$!
    sleep 1
}
end_storm() {
    local pids
    pids="$STORM $(pgrep -P "$STORM" | tr '\n' ' ')"
    kill $pids 2>/dev/null
    wait "$STORM" 2>/dev/null || true
    STORM=
}

@test "the mount's end in a storm" {
    local started
    for end in umount term ctl lazy; do
        coherent_mount "max_threads=2,$LONG"
        storm
        started=$SECONDS
        case $end in
        umount) end_storm; fill "$S/src/fill" & timeout 20 umount "$S/mnt"; wait $! ;;
        term) kill -TERM "$K42_PID" ;;
        ctl) timeout 20 "$K42CTL" umount "$S/mnt" ;;
        lazy) timeout 20 umount -l "$S/mnt"; sleep 0.3; end_storm ;;
        esac
        eventually 10 test ! -e "/proc/$K42_PID"
        echo "$end: $((SECONDS - started)) s"
        [ -z "$STORM" ] || end_storm
        [ ! -e "$S/state" ]
        rm -rf "$S/src"/*
    done
}

@test "the mount's end while a request is stuck, and the thread with it" {
    local status=0 stuck below holder
    coherent_mount io=cached
    holder=$K42_HOLDER
    mkdir "$S/below" "$S/src/sub"
    k42_mount -o attr_timeout=0 "$S/below" "$S/src/sub" "$S/state2"
    below=(${K42_HOLDER:?} $(pgrep -P "$K42_HOLDER"))
    [ ! -e "$S/mnt/new" ]
    kill -STOP "${below[@]}"
    timeout 30 stat "$S/mnt/sub" >/dev/null 2>"$S/stuck" 3>&- & # has the lock of the root until it is answered
    stuck=$!
    sleep 0.2
    touch "$S/src/new" # the thread waits for that lock
    sleep 0.2
    k42_expect_log 'a request is stuck; ending the connection'
    kill -TERM "$holder"
    wait "$stuck" || status=$?
    kill -CONT "${below[@]}"
    [ $status = 1 ]
    cat "$S/stuck"
    grep -E 'not connected|abort' "$S/stuck"
    grep 'a request is stuck; ending the connection' "$S/log.0"
    gone() { ! kill -0 "$holder" 2>/dev/null; }
    eventually 30 gone # until then it may look into what is below
    k42_umount "$S/src/sub"
}

@test "file systems below SOURCE" {
    coherent_mount "$LONG"
    k42_umount
    mkdir "$S/src/sub" "$S/src/late"
    mount -t tmpfs -o mode=755 none "$S/src/sub" || skip "cannot mount a tmpfs"
    k42_mount -o "nosuid,nodev,$LONG"
    echo one >"$S/src/sub/f"
    [ "$(cat "$S/mnt/sub/f")" = one ]
    sleep 0.1
    stat "$S/mnt/sub/f" >/dev/null
    chmod 600 "$S/src/sub/f"
    echo two >"$S/src/sub/g"
    sleep 0.1
    [ "$(stat -c %a "$S/mnt/sub/f")" = 600 ]
    [ "$(cat "$S/mnt/sub/g")" = two ]
    # one that comes and goes
    ls -l "$S/mnt/late" >/dev/null
    mount -t tmpfs -o mode=755 none "$S/src/late"
    touch "$S/src/late/here"
    eventually 1 test -e "$S/mnt/late/here"
    umount -l "$S/src/late"
    eventually 1 test ! -e "$S/mnt/late/here"
    k42_umount
}

@test "a file system that is not covered keeps the short timeouts" {
    local before
    [ "$(id -u)" = 0 ] || skip "not root"
    mkdir "$S/src/sub"
    mount -t ramfs none "$S/src/sub" || skip "cannot mount a ramfs"
    chmod 755 "$S/src/sub"
    touch "$S/src/sub/f"
    k42_expect_log 'changes by others cannot be watched'
    k42_mount -o coherent "$S/src/sub"
    [ "$(feature coherent)" = False ]
    grep -q 'changes by others cannot be watched: .*; using short timeouts' "$S/log.0"
    stat "$S/mnt/f" >/dev/null
    ! stat "$S/mnt/g" 2>/dev/null || false
    chmod 600 "$S/src/sub/f"
    touch "$S/src/sub/g"
    [ -e "$S/mnt/g" ]
    eventually 2 mode_is 600 "$S/mnt/f"
    k42_umount
    # below one that is covered
    coherent_mount nosuid,nodev
    chmod 640 "$S/src/sub/f"
    before=$(stat -c %a "$S/mnt/sub/f")
    [ "$before" = 640 ]
    chmod 644 "$S/src/sub/f"
    sleep 1.2
    [ "$(stat -c %a "$S/mnt/sub/f")" = 644 ]
    k42_umount
}

in_namespace() {
    k42_nobody_mount coherent
    as_nobody stat "$S/mnt/f" >/dev/null
    as_nobody test ! -e "$S/mnt/g"
    chmod 600 "$S/src/f"
    touch "$S/src/g"
    as_nobody test -e "$S/mnt/g" && echo "the new name is there" >>"$S/seen"
    sleep 1.2
    as_nobody stat -c 'mode %a' "$S/mnt/f" >>"$S/seen"
    as_nobody fusermount3 -u "$S/mnt"
    wait "$K42_KEEPER"
    echo "ended with $?" >>"$S/seen"
}

@test "an ordinary user's mount keeps the short timeouts" {
    touch "$S/src/f"
    k42_skip_unless_nobody_mounts
    k42_in_namespace 60 in_namespace
    cat "$S/seen" "$S/log.user"
    [ "$(cat "$S/seen")" = "$(printf 'the new name is there\nmode 600\nended with 0')" ]
    grep -q 'changes by others cannot be watched: Operation not permitted' "$S/log.user"
}

@test "files that the kernel writes to for us: no event for each write, and others' writes within a second" {
    mount -t tmpfs -o mode=755 none "$S/src" || skip "cannot mount a tmpfs" # where nobody else writes
    coherent_mount "io=fast"
    timeout 20 "$K42CTL" status "$S/mnt" | grep -q "^class: fast" || skip "no passthrough here"
    local before
    exec 7<>"$S/mnt/f" # makes it
    before=$(k42_stat foreign_events)
    for i in {1..200}; do echo "$i" >&7; done
    [ $(($(k42_stat foreign_events) - before)) -le 5 ]
    [ "$(stat -c %s "$S/mnt/f")" = "$(stat -c %s "$S/src/f")" ]
    echo more >>"$S/src/f"
    sleep 1.1
    [ "$(stat -c %s "$S/mnt/f")" = "$(stat -c %s "$S/src/f")" ]
    exec 7>&-
    # and when it is closed, they are told again
    sleep 0.2
    before=$(k42_stat foreign_events)
    echo again >>"$S/src/f"
    sleep 0.2
    [ "$(k42_stat foreign_events)" -gt "$before" ]
    # opened for writing only, after the kernel was told for how long to believe
    rm "$S/src/f"
    echo 1 >"$S/src/g"
    stat "$S/mnt/g" >/dev/null
    python3 - "$S/mnt/g" "$S/src/g" <<'EOP'
import os, sys, time
f = os.open(sys.argv[1], os.O_WRONLY)
g = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
os.write(g, b"x" * 1000)
time.sleep(1.1)
assert os.stat(sys.argv[1]).st_size == os.stat(sys.argv[2]).st_size
EOP
    k42_umount
    umount "$S/src"
}

@test "who asks for short timeouts pays for no watching, unless he asks for that, too" {
    coherent_mount "attr_timeout=1,entry_timeout=2"
    k42_umount
    k42_mount -o "attr_timeout=1,entry_timeout=1"
    [ "$(feature coherent)" = False ]
    k42_umount
    coherent_mount "attr_timeout=0,entry_timeout=0,coherent"
    k42_umount
    coherent_mount "entry_timeout=0"
    k42_umount
}
