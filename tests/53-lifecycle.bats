#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# A daemon's life: it starts, answers, and ends in each of the ways there are, cleanly and with nothing left.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    echo content >"$S/src/file"
}
teardown() { k42_cleanup; }

# The processes of the daemon that serves the state directory $1.
daemons() { pgrep -f "^$K42FS .*state=$1( |,|\$)" || true; }

# in_background: starts it as users do; it must have returned with 0 and said nothing.
in_background() {
    local got=0
    timeout -k 2 20 "$K42FS" -o "state=$S/state" "$S/src" "$S/mnt" >"$S/out" 2>"$S/err" </dev/null 3>&- || got=$?
    cat "$S/err"
    [ $got = 0 ]
    [ ! -s "$S/out" ]
    [ ! -s "$S/err" ]
}

# ended: no mount, no process, no state directory, within some seconds.
ended() {
    local i
    for ((i = 0; i < 100; i++)); do
        if ! grep -q " $S/mnt fuse" /proc/mounts && [ -z "$(daemons "$S/state")" ] && [ ! -e "$S/state" ]; then
            [ "$(ls -A "$S/mnt")" = "${1:-}" ]
            return
        fi
        sleep 0.1
    done
    echo "left:"
    grep " $S/mnt " /proc/mounts
    daemons "$S/state"
    ls -la "$S/state"
    for i in $(daemons "$S/state"); do kill -KILL "$i"; done
    umount -l "$S/mnt" 2>/dev/null
    return 1
}

# daemon_says STATUS: waits for the end of the foreground daemon of the last k42_mount.
daemon_says() {
    local keeper status=0
    IFS=: read -r keeper _ _ <<<"${K42_DAEMONS[-1]}"
    wait "$keeper" || status=$?
    echo "the daemon ended with $status"
    [ "$status" = "$1" ]
}

@test "the start in the background returns when the mount answers" {
    local i
    for ((i = 0; i < 50; i++)); do
        in_background
        [ "$(timeout 5 ls "$S/mnt")" = file ]
        [ "$(cat "$S/mnt/file")" = content ]
        timeout 10 umount "$S/mnt" || timeout 10 fusermount3 -u "$S/mnt"
        ended
    done
}

@test "the background daemon lets go of its caller" {
    local pid
    # a pipe that the daemon kept open would not end
    timeout 20 bash -c '"$1" -o "state=$2" "$3" "$4" 2>&1 | cat' - "$K42FS" "$S/state" "$S/src" "$S/mnt" 3>&-
    for pid in $(daemons "$S/state"); do
        [ "$(readlink "/proc/$pid/cwd")" = / ]
        [ "$(readlink "/proc/$pid/fd/0")" = /dev/null ]
        [ "$(readlink "/proc/$pid/fd/1")" = /dev/null ]
        [ "$(readlink "/proc/$pid/fd/2")" = /dev/null ]
        [ "$(ps -o tty= -p "$pid")" = '?' ]
        [ "$(ps -o sid= -p "$pid" | tr -d ' ')" != "$(ps -o sid= -p $$ | tr -d ' ')" ]
    done
    [ -n "$(daemons "$S/state")" ]
    timeout 10 umount "$S/mnt"
    ended
}

@test "-d prints requests and stays" {
    "$K42FS" -d -o "state=$S/state" "$S/src" "$S/mnt" >"$S/debug" 2>&1 </dev/null 3>&- &
    local pid=$! i
    for ((i = 0; i < 100; i++)); do mountpoint -q "$S/mnt" && break; sleep 0.1; done
    timeout 5 cat "$S/mnt/file"
    kill -0 $pid
    timeout 10 umount "$S/mnt"
    wait $pid
    ended
    grep -qi lookup "$S/debug"
    grep -qi open "$S/debug"
}

@test "umount ends it with status 0" {
    k42_mount
    timeout 10 umount "$S/mnt"
    daemon_says 0
    ended
}

@test "fusermount3 -u ends it with status 0" {
    command -v fusermount3 >/dev/null || skip "no fusermount3"
    k42_mount
    timeout 10 fusermount3 -u "$S/mnt"
    daemon_says 0
    ended
}

@test "umount -l ends it when the last file is closed" {
    k42_mount
    exec 6<"$S/mnt/file"
    timeout 10 umount -l "$S/mnt"
    sleep 0.3
    [ "$(cat <&6)" = content ]
    exec 6<&-
    daemon_says 0
    ended
}

@test "SIGTERM to the worker ends it with status 0" {
    k42_mount
    kill -TERM "$K42_PID"
    daemon_says 0
    ended
}

@test "SIGINT to the worker ends it with status 0" {
    k42_mount
    kill -INT "$K42_PID"
    daemon_says 0
    ended
}

@test "k42ctl umount ends it with status 0" {
    k42_mount
    timeout 20 "$K42CTL" umount "$S/mnt"
    daemon_says 0
    ended
}

@test "SIGTERM and SIGINT to the holder end it with status 0" {
    local sig
    for sig in TERM INT; do
        k42_mount
        kill -"$sig" "$K42_HOLDER"
        daemon_says 0
        ended
    done
}

@test "each way ends a background daemon, too" {
    local pid sig which
    in_background
    timeout 20 "$K42CTL" umount "$S/mnt"
    ended
    for sig in TERM INT; do
        for which in 1 2; do # the holder and the worker
            in_background
            kill -"$sig" "$(daemons "$S/state" | sed -n "${which}p")"
            ended
        done
        in_background
        for pid in $(daemons "$S/state"); do kill -"$sig" "$pid" 2>/dev/null || true; done
        ended
    done
}

@test "SIGTERM twice, and in the middle of work" {
    local i
    k42_mount
    (while cat "$S/mnt/file" >/dev/null 2>&1 && : >"$S/mnt/new" && rm "$S/mnt/new"; do :; done) 2>/dev/null 3>&- &
    local loop=$!
    sleep 0.5
    kill -TERM "$K42_PID"
    kill -TERM "$K42_PID" 2>/dev/null || true
    daemon_says 0
    wait $loop || true
    rm -f "$S/src/new"
    # what the loop wrote after the unmount, it wrote below it
    rm -f "$S/mnt/new"
    ended
}

@test "a busy mount is not unmounted, and goes on working" {
    k42_mount
    exec 6<"$S/mnt/file"
    run timeout 10 umount "$S/mnt"
    [ "$status" != 0 ]
    [[ $output == *busy* ]]
    [ "$(cat <&6)" = content ]
    echo more >"$S/mnt/more"
    [ "$(cat "$S/src/more")" = more ]
    timeout 20 "$K42CTL" status "$S/mnt"
    (cd "$S/mnt" && run ! timeout 10 umount "$S/mnt")
    exec 6<&-
    k42_umount
    daemon_says 0
    ended
}

@test "SIGTERM with open files ends it; the kernel goes on with those of class fast" {
    k42_mount
    timeout 20 "$K42CTL" status "$S/mnt" | grep -q "^class: fast" || skip "no passthrough here"
    exec 7>"$S/mnt/written"
    kill -TERM "$K42_PID"
    daemon_says 0
    ended
    echo after >&7
    exec 7>&-
    [ "$(cat "$S/src/written")" = after ]
}

@test "SIGTERM with open files ends it; they answer ENOTCONN" {
    k42_mount -o io=cached
    exec 6<"$S/mnt/file"
    exec 7>"$S/mnt/written"
    echo before >&7
    kill -TERM "$K42_PID"
    daemon_says 0
    ended
    run bash -c 'echo after >&7'
    [ "$status" != 0 ]
    exec 6<&- 7>&-
    [ "$(cat "$S/src/written")" = before ]
}

@test "SIGHUP ends a foreground daemon cleanly, or not at all" {
    local pid
    for pid in holder worker; do
        k42_mount
        [ $pid = holder ] && kill -HUP "$K42_HOLDER" || kill -HUP "$K42_WORKER"
        sleep 1
        if kill -0 "$K42_HOLDER" 2>/dev/null; then
            [ "$(timeout 5 cat "$S/mnt/file")" = content ]
            k42_umount
        fi
        daemon_says 0
        ended
    done
}

@test "SIGHUP does not end a background daemon" {
    local pid
    in_background
    for pid in $(daemons "$S/state"); do kill -HUP "$pid"; done
    sleep 0.5
    [ "$(timeout 5 cat "$S/mnt/file")" = content ]
    timeout 10 umount "$S/mnt"
    ended
}

@test "SIGPIPE, SIGUSR1 and SIGUSR2 do not leave a dead mount" {
    local sig pid
    for sig in PIPE USR1 USR2 ALRM; do
        in_background
        # SIGUSR2 to the holder replaces the worker, which may be gone by then
        for pid in $(daemons "$S/state"); do kill -"$sig" "$pid" 2>/dev/null || true; done
        sleep 0.3
        # either it lives, or it has ended cleanly
        if grep -q " $S/mnt fuse" /proc/mounts; then
            [ "$(timeout 5 cat "$S/mnt/file")" = content ] || { echo "dead after SIG$sig"; umount -l "$S/mnt"; rm -rf "$S/state"; false; }
            timeout 10 umount "$S/mnt"
        fi
        ended
    done
}

@test "two mounts of the same SOURCE" {
    mkdir "$S/mnt2"
    k42_mount
    k42_mount "$S/src" "$S/mnt2" "$S/state2"
    echo one >"$S/mnt/by-one"
    [ "$(cat "$S/mnt2/by-one")" = one ]
    echo two >>"$S/mnt2/by-one"
    sleep 1.1
    [ "$(cat "$S/mnt/by-one")" = "one
two" ]
    [ "$(stat -c %d "$S/mnt")" != "$(stat -c %d "$S/mnt2")" ]
    k42_umount "$S/mnt2"
    [ ! -e "$S/state2" ]
    [ "$(cat "$S/mnt/file")" = content ]
    k42_umount
    ended
}

@test "a mount of a mount" {
    mkdir "$S/mnt2"
    k42_mount
    k42_mount "$S/mnt" "$S/mnt2" "$S/state2"
    echo deep >"$S/mnt2/deep"
    [ "$(cat "$S/src/deep")" = deep ]
    (cd "$S/mnt2" && timeout 20 tar -cf t.tar file deep && timeout 20 tar -tf t.tar)
    k42_umount "$S/mnt2"
    k42_umount
    ended
}

@test "over a directory that is not empty" {
    echo hidden >"$S/mnt/hidden"
    k42_mount
    [ "$(ls "$S/mnt")" = file ]
    k42_umount
    [ "$(cat "$S/mnt/hidden")" = hidden ]
    ended hidden
}

@test "over a tmpfs" {
    [ "$(id -u)" = 0 ] || skip "not root"
    mount -t tmpfs none "$S/mnt" || skip "cannot mount a tmpfs"
    touch "$S/mnt/below"
    k42_mount
    [ "$(ls "$S/mnt")" = file ]
    k42_umount
    [ "$(ls "$S/mnt")" = below ]
    umount "$S/mnt"
    ended
}

@test "SOURCE and MOUNTPOINT are the same directory" {
    rmdir "$S/mnt"
    k42_mount "$S/src" "$S/src"
    [ "$(cat "$S/src/file")" = content ]
    echo new >"$S/src/new"
    mkdir "$S/src/dir"
    [ "$(ls "$S/src" | tr '\n' ' ')" = "dir file new " ]
    k42_umount "$S/src"
    [ "$(ls "$S/src" | tr '\n' ' ')" = "dir file new " ]
    [ "$(cat "$S/src/new")" = new ]
    [ ! -e "$S/state" ]
}

@test "SOURCE inside MOUNTPOINT" {
    mkdir -p "$S/top/in"
    echo inner >"$S/top/in/inner"
    k42_mount "$S/top/in" "$S/top"
    [ "$(timeout 5 ls "$S/top")" = inner ]
    echo new >"$S/top/new"
    k42_umount "$S/top"
    [ "$(cat "$S/top/in/new")" = new ]
    [ ! -e "$S/state" ]
}

@test "names with spaces, commas, newlines and backslashes" {
    local dir
    for dir in 'with space' 'com,ma' 'back\slash' $'new\nline' 'quo"te' '-o' 'ümlaut'; do
        mkdir -p "$S/odd/$dir" "$S/from/$dir"
        echo odd >"$S/from/$dir/f"
        timeout 20 "$K42FS" -o "state=$S/state" -- "$S/from/$dir" "$S/odd/$dir" </dev/null 3>&-
        [ "$(timeout 5 cat "$S/odd/$dir/f")" = odd ]
        timeout 10 umount "$S/odd/$dir" || timeout 10 fusermount3 -u "$S/odd/$dir"
        ended
    done
    # relative ones
    (cd "$S" && timeout 20 "$K42FS" -o "state=state" src ./mnt </dev/null 3>&-)
    [ "$(timeout 5 cat "$S/mnt/file")" = content ]
    timeout 10 umount "$S/mnt"
    ended
}

@test "the default state directory is found by k42ctl, and removed" {
    local got=0 before
    if [ "$(id -u)" != 0 ] && [ -z "${XDG_RUNTIME_DIR:-}" ]; then skip "no XDG_RUNTIME_DIR"; fi
    timeout 20 "$K42FS" "$S/src" "$S/mnt" </dev/null 3>&-
    timeout 20 "$K42CTL" status "$S/mnt"
    before=$(timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"state_dir" *: *"\([^"]*\)".*/\1/p')
    [ -S "$before/control" ]
    [ -f "$before/state.db" ]
    timeout 10 umount "$S/mnt" || timeout 10 fusermount3 -u "$S/mnt"
    for _ in $(seq 100); do [ -e "$before" ] || break; sleep 0.1; done
    [ ! -e "$before" ]
    ended
}

@test "it survives its terminal's end" {
    command -v script >/dev/null || skip "no script(1) to make a terminal"
    # script(1) ends, and the terminal with it, when its command ends
    timeout 20 script -qec "'$K42FS' -o 'state=$S/state' '$S/src' '$S/mnt'" /dev/null </dev/null >"$S/typed" 3>&-
    sleep 0.5
    cat "$S/typed"
    [ "$(timeout 5 cat "$S/mnt/file")" = content ]
    timeout 10 umount "$S/mnt"
    ended
}

@test "mount -t fuse.k42fs, as fstab would" {
    [ "$(id -u)" = 0 ] || skip "not root"
    command -v mount.fuse3 >/dev/null || [ -x /sbin/mount.fuse3 ] || skip "no mount.fuse3"
    mkdir "$S/bin"
    ln -s "$K42FS" "$S/bin/k42fs"
    # as mount.fuse3 calls it; mount(8) itself would not look into this PATH
    PATH=$S/bin:$PATH timeout 20 mount.fuse3 "k42fs#$S/src" "$S/mnt" -o "rw,nofail,state=$S/state" </dev/null 3>&-
    [ "$(timeout 5 cat "$S/mnt/file")" = content ]
    timeout 10 umount "$S/mnt"
    ended_by_name
}

ended_by_name() {
    local i
    for ((i = 0; i < 100; i++)); do [ -e "$S/state" ] || break; sleep 0.1; done
    [ ! -e "$S/state" ]
    run ! grep -q " $S/mnt fuse" /proc/mounts
}

@test "500 descriptors open when it ends do not hold it up" {
    k42_mount
    timeout 60 /usr/bin/python3 - "$S/mnt" "$K42_PID" <<'PY'
import os, signal, sys, time
fds = [os.open(f"{sys.argv[1]}/f{i}", os.O_RDWR | os.O_CREAT) for i in range(500)]
os.kill(int(sys.argv[2]), signal.SIGTERM)
for _ in range(100):
    try:
        os.kill(int(sys.argv[2]), 0)
    except ProcessLookupError:
        break
    time.sleep(0.1)
else:
    sys.exit("it lives")
PY
    daemon_says 0
    ended
}

# How many ticks of processor time all threads of process $1 have had.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

@test "busy_poll costs nothing once nobody asks for anything, and is off where it is 0" {
    local before after
    k42_mount -o busy_poll=1000,attr_timeout=0
    grep -qx k42-watch "/proc/$K42_WORKER/task/"*/comm || [ "$(nproc)" = 1 ]
    timeout 60 python3 -c '
import os, sys
for _ in range(20000):
    os.stat(sys.argv[1])' "$S/mnt/file"
    sleep 0.5
    before=$(ticks "$K42_WORKER")
    sleep 2
    after=$(ticks "$K42_WORKER")
    echo "ticks in two idle seconds: $((after - before))"
    ((after - before <= 4)) # two hundredths of one processor
    k42_umount
    k42_mount -o busy_poll=0
    run ! grep -qx k42-watch "/proc/$K42_WORKER/task/"*/comm
    k42_umount
}
