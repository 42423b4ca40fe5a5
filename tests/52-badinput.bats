#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What k42fs says to wrong arguments and to a machine that cannot do it: one line, the right status, nothing left.

load lib

setup() {
    k42_scratch
    mkdir "$S/run" "$S/tmp"
    chmod 1777 "$S/tmp"
    export TMPDIR=$S/tmp # traces() looks there
    if [ "$(id -u)" = 0 ]; then RUN_ROOT=/run/k42fs; else RUN_ROOT=${XDG_RUNTIME_DIR:-/nonexistent}/k42fs; fi
}
teardown() {
    local m
    for m in $(awk -v p="$S/" 'index($2, p) == 1 { print $2 }' /proc/mounts | sort -r); do umount -l "$m"; done
    k42_cleanup
}

root_only() { [ "$(id -u)" = 0 ] || skip "not root"; }

# What a failed start could leave behind: everything of this test's, nothing of others that run beside it.
traces() {
    local name
    name=$(basename "$S")
    awk -v p="$S/" 'index($2, p) == 1 { print "mount", $2 }' /proc/mounts
    ls -A "$RUN_ROOT" 2>/dev/null | sed 's/\\x2e/./g' | grep -F "$name" | sed 's/^/state /' || true
    find "$S" -mindepth 1 -xdev ! -path "$S/out" ! -path "$S/err" 2>/dev/null | sort
    ps -ww -eo pid=,args= | awk -v d="$K42FS " -v p="$S" 'index($0, d) && index($0, p) && !/awk|timeout/ { print "process", $0 }'
}

# fails_with STATUS REGEX COMMAND…: it must end at once, say one line that matches, and leave nothing.
fails_with() {
    local want=$1 regex=$2 got=0
    shift 2
    traces >"$BATS_TEST_TMPDIR/before"
    timeout -k 2 20 "$@" >"$S/out" 2>"$S/err" </dev/null 3>&- || got=$?
    echo "status $got; stderr:"
    cat "$S/err"
    [ "$got" = "$want" ]
    [ ! -s "$S/out" ]
    [ "$(wc -l <"$S/err")" = 1 ]
    grep -q '^k42fs: ' "$S/err"
    grep -Eq -- "$regex" "$S/err"
    # it ends with a word, not with two: the line is one message
    run ! grep -Eq 'k42fs: .*k42fs: ' "$S/err"
    rm "$S/out" "$S/err"
    traces >"$BATS_TEST_TMPDIR/after"
    diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
}

# Both in the foreground and in the background.
fails_both() {
    local want=$1 regex=$2
    shift 2
    fails_with "$want" "$regex" "$K42FS" "$@"
    fails_with "$want" "$regex" "$K42FS" -f "$@"
}

@test "no arguments, one, three" {
    fails_with 2 'SOURCE' "$K42FS"
    fails_both 2 'MOUNTPOINT' "$S/src"
    fails_both 2 'MOUNTPOINT' "$S/src" "$S/mnt" "$S/run"
}

@test "empty arguments" {
    fails_both 1 'No such file' "" "$S/mnt"
    fails_both 1 'No such file' "$S/src" ""
}

@test "unknown switches" {
    fails_with 2 'quux' "$K42FS" --quux "$S/src" "$S/mnt"
    fails_with 2 'Q' "$K42FS" -Q "$S/src" "$S/mnt"
    fails_with 2 '-o' "$K42FS" "$S/src" "$S/mnt" -o
}

@test "SOURCE missing" { fails_both 1 "$S/none: .*No such file" -o "state=$S/state" "$S/none" "$S/mnt"; }

@test "SOURCE is a file" {
    touch "$S/file"
    fails_both 1 "$S/file: .*Not a directory" "$S/file" "$S/mnt"
}

@test "SOURCE is a dangling symlink" {
    ln -s nowhere "$S/dangling"
    fails_both 1 "$S/dangling: .*No such file" "$S/dangling" "$S/mnt"
}

@test "SOURCE cannot be read" {
    root_only
    command -v setpriv >/dev/null || skip "no setpriv"
    setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$K42FS" ||
        skip "an ordinary user cannot run the build tree's k42fs"
    chmod 700 "$S/src"
    chown 65534 "$S/mnt" "$S/run"
    for f in "" -f; do
        fails_with 1 "$S/src: .*Permission denied" setpriv --reuid=65534 --regid=65534 --clear-groups \
            "$K42FS" $f -o "state=$S/run/state" "$S/src" "$S/mnt"
    done
}

@test "MOUNTPOINT missing" { fails_both 1 "$S/none: .*No such file" "$S/src" "$S/none"; }

@test "MOUNTPOINT is a file" {
    touch "$S/file"
    fails_both 1 "$S/file: .*Not a directory" "$S/src" "$S/file"
}

@test "MOUNTPOINT is a k42fs mount already" {
    k42_skip_unless_fuse
    k42_mount
    touch "$S/src/there"
    fails_both 1 "$S/mnt: .*(busy|already)" -o "state=$S/run/state" "$S/src" "$S/mnt"
    # and it goes on working
    timeout 5 ls "$S/mnt" | grep there
}

@test "MOUNTPOINT is a dead mount: the line says how to clear it, and that works" {
    k42_skip_unless_fuse
    local clear
    k42_mount
    k42_kill_daemon
    grep -q " $S/mnt fuse" /proc/mounts
    timeout -k 2 20 "$K42FS" -o "state=$S/run/state" "$S/src" "$S/mnt" >"$S/out" 2>"$S/err" </dev/null 3>&- && false
    cat "$S/err"
    [ "$(wc -l <"$S/err")" = 1 ]
    grep -q "^k42fs: $S/mnt: .*dead" "$S/err"
    [ ! -e "$S/run/state" ]
    clear=$(sed -n 's/.*clear it with: //p' "$S/err")
    [[ $clear == umount\ * || $clear == fusermount3\ * ]]
    $clear
    run ! grep -q " $S/mnt fuse" /proc/mounts
    # the state that the dead daemon left is taken over
    k42_mount
    touch "$S/mnt/alive"
    [ -e "$S/src/alive" ]
    k42_umount
    # its files are gone; the directory, that the dead one made, may stay
    if [ -e "$S/state" ]; then rmdir "$S/state"; fi
}

@test "unknown options are named" {
    fails_both 2 'nonsense' -o nonsense "$S/src" "$S/mnt"
    fails_both 2 'nonsense' -o allow_other,nonsense=5,ro "$S/src" "$S/mnt"
    fails_both 2 'nonsense' -o ro -o nonsense "$S/src" "$S/mnt"
    fails_both 2 'allow_othe' -o allow_othe "$S/src" "$S/mnt"
    fails_both 2 'attr_timeoutt' -o attr_timeoutt=1 "$S/src" "$S/mnt"
    fails_both 2 'max_read' -o max_read=4096 "$S/src" "$S/mnt"
    fails_both 2 'subtype' -o subtype=evil "$S/src" "$S/mnt"
    fails_both 2 'fd' -o 'ro,fd=3' "$S/src" "$S/mnt"
}

@test "bad values" {
    local word
    for word in attr_timeout=x attr_timeout= attr_timeout attr_timeout=-1 attr_timeout=nan attr_timeout=inf \
        attr_timeout=1e400 'attr_timeout=1 ' entry_timeout=1.5x entry_timeout=0x max_threads=0 max_threads=-1 \
        max_threads=x max_threads= max_threads max_threads=99999999999999999999 io=foo io= io io=CACHED \
        busy_poll=-1 busy_poll= busy_poll busy_poll=x busy_poll=1001 busy_poll=0.5 \
        history=-1 history=x history= history history=1.5 state= state ro=1 allow_other=yes default_permissions=0; do
        echo "-o $word"
        fails_both 2 "${word%%[= ]*}" -o "$word" "$S/src" "$S/mnt"
    done
}

@test "odd bytes in options stay one line" {
    local got=0
    timeout 20 "$K42FS" -o $'evil\nk42fs: all is well' "$S/src" "$S/mnt" >"$S/out" 2>"$S/err" </dev/null 3>&- || got=$?
    cat -v "$S/err"
    [ $got = 2 ]
    [ "$(wc -l <"$S/err")" = 1 ]
    got=0
    timeout 20 "$K42FS" $'/no/such\nk42fs: all is well\x1b[31m' "$S/mnt" >"$S/out" 2>"$S/err" </dev/null 3>&- || got=$?
    cat -v "$S/err"
    [ $got = 1 ]
    [ "$(wc -l <"$S/err")" = 1 ]
}

@test "very long arguments" {
    local long
    long=$(printf 'x%.0s' $(seq 5000))
    fails_both 2 'xxxx' -o "$long" "$S/src" "$S/mnt"
    fails_both 1 'File name too long' "/$long" "$S/mnt"
    fails_both 1 'File name too long' "$S/src" "/$long"
    fails_both 1 'too long' -o "state=/$long" "$S/src" "$S/mnt"
}

@test "MOUNTPOINT inside SOURCE" {
    mkdir -p "$S/src/a/b"
    fails_both 1 "$S/src/a/b: .*inside" "$S/src" "$S/src/a/b"
    ln -s src/a "$S/way"
    fails_both 1 'inside' "$S/src" "$S/way/b"
    fails_both 1 'inside' / "$S/mnt"
}

@test "MOUNTPOINT inside a bind mount of SOURCE" {
    root_only
    mkdir -p "$S/src/a" "$S/bind"
    mount --bind "$S/src" "$S/bind" || skip "cannot bind"
    fails_both 1 'inside' "$S/src" "$S/bind/a"
    umount "$S/bind"
}

@test "state= is not a directory" {
    k42_skip_unless_fuse
    touch "$S/file"
    fails_both 1 "$S/file.*: .*(Not a directory|File exists)" -o "state=$S/file" "$S/src" "$S/mnt"
    fails_both 1 'Not a directory' -o "state=$S/file/below" "$S/src" "$S/mnt"
    ln -s nowhere "$S/dangling"
    fails_both 1 "$S/dangling" -o "state=$S/dangling" "$S/src" "$S/mnt"
}

@test "the parent of state= is missing" {
    k42_skip_unless_fuse
    local got=0
    # either it is made (and removed), or it is said
    timeout 20 "$K42FS" -o "state=$S/no/such" "$S/src" "$S/mnt" >"$S/out" 2>"$S/err" </dev/null 3>&- || got=$?
    cat "$S/err"
    if [ $got = 0 ]; then
        umount "$S/mnt"
        for _ in $(seq 100); do [ -e "$S/no/such" ] || break; sleep 0.1; done
        [ ! -e "$S/no/such" ]
    else
        [ $got = 1 ]
        [ "$(wc -l <"$S/err")" = 1 ]
        grep -q "^k42fs: $S/no/such.*No such file" "$S/err"
        [ ! -e "$S/no" ]
    fi
}

@test "state= lies inside MOUNTPOINT" {
    fails_both 1 'state=.*MOUNTPOINT' -o "state=$S/mnt/state" "$S/src" "$S/mnt"
}

@test "the state directory cannot be written" {
    root_only
    k42_skip_unless_fuse
    mkdir "$S/ro"
    mount -t tmpfs -o ro none "$S/ro" || skip "cannot mount a tmpfs"
    fails_both 1 "$S/ro.*: .*Read-only" -o "state=$S/ro/state" "$S/src" "$S/mnt"
    umount "$S/ro"
}

@test "an ordinary user's state directory cannot be written" {
    root_only
    command -v setpriv >/dev/null || skip "no setpriv"
    setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$K42FS" ||
        skip "an ordinary user cannot run the build tree's k42fs"
    chown 65534 "$S/mnt" "$S/src"
    chmod 755 "$S/run"
    fails_with 1 "$S/run.*: .*Permission denied" setpriv --reuid=65534 --regid=65534 --clear-groups \
        "$K42FS" -o "state=$S/run/state" "$S/src" "$S/mnt"
}

@test "the state directory is in use" {
    k42_skip_unless_fuse
    mkdir "$S/mnt2"
    k42_mount
    touch "$S/src/there"
    fails_both 1 "$S/state.*: .*(use|busy)" -o "state=$S/state" "$S/src" "$S/mnt2"
    timeout 5 ls "$S/mnt" | grep there
    timeout 20 "$K42CTL" status "$S/mnt"
}

@test "the file system of the state directory is full" {
    root_only
    k42_skip_unless_fuse
    mkdir "$S/small"
    mount -t tmpfs -o size=64k none "$S/small" || skip "cannot mount a tmpfs"
    fails_both 1 "No space left" -o "state=$S/small/state" "$S/src" "$S/mnt"
    mount -o remount,size=1m "$S/small"
    head -c 1000000 /dev/zero >"$S/small/filler"
    fails_both 1 "No space left" -o "state=$S/small/state" "$S/src" "$S/mnt"
    rm "$S/small/filler"
    mount -o remount,size=64m "$S/small"
    k42_mount "$S/src" "$S/mnt" "$S/small/state"
    k42_umount
    [ ! -e "$S/small/state" ]
    umount "$S/small"
}

@test "no file may be made in the state directory's file system" {
    root_only
    k42_skip_unless_fuse
    mkdir "$S/small"
    mount -t tmpfs -o nr_inodes=3 none "$S/small" || skip "cannot mount a tmpfs"
    fails_both 1 "No space left" -o "state=$S/small/state" "$S/src" "$S/mnt"
    umount "$S/small"
}

# garbage FILE: it may be refused with one line that names it, or be replaced; it must not be used.
garbage() {
    local got=0
    k42_skip_unless_fuse
    mkdir "$S/run/state"
    head -c 100000 /dev/urandom >"$S/run/state/$1"
    timeout 20 "$K42FS" -o "state=$S/run/state" "$S/src" "$S/mnt" >"$S/out" 2>"$S/err" </dev/null 3>&- || got=$?
    cat "$S/err"
    if [ $got = 0 ]; then
        timeout 20 "$K42CTL" status "$S/mnt"
        timeout 20 "$K42CTL" list --json "$S/mnt"
        umount "$S/mnt" || fusermount3 -u "$S/mnt"
    else
        [ $got = 1 ]
        [ "$(wc -l <"$S/err")" = 1 ]
        grep -q "^k42fs: .*$1" "$S/err"
        run ! grep -q " $S/mnt " /proc/mounts
    fi
}

@test "state.db is garbage" { garbage state.db; }
@test "journal is garbage" { garbage journal; }
@test "lock is garbage" { garbage lock; }

@test "state.db is a directory" {
    k42_skip_unless_fuse
    mkdir -p "$S/run/state/state.db/x"
    fails_both 1 'state.db' -o "state=$S/run/state" "$S/src" "$S/mnt"
}

@test "control is a directory" {
    k42_skip_unless_fuse
    mkdir -p "$S/run/state/control/x"
    fails_both 1 'control' -o "state=$S/run/state" "$S/src" "$S/mnt"
}

@test "no /dev/fuse" {
    root_only
    command -v unshare >/dev/null || skip "no unshare"
    unshare -m true || skip "cannot make a mount namespace"
    for f in "" -f; do
        fails_with 1 '/dev/fuse: .*No such file' unshare -m /bin/sh -c \
            'mount -t tmpfs none /dev && : >/dev/null && exec "$@"' sh "$K42FS" $f -o "state=$S/state" "$S/src" "$S/mnt"
    done
}

@test "/dev/fuse cannot be opened" {
    root_only
    command -v unshare >/dev/null || skip "no unshare"
    unshare -m true || skip "cannot make a mount namespace"
    fails_with 1 '/dev/fuse: ' unshare -m /bin/sh -c \
        'mount -t tmpfs none /dev && : >/dev/null && mknod /dev/fuse c 240 77 && exec "$@"' \
        sh "$K42FS" -o "state=$S/state" "$S/src" "$S/mnt"
}

@test "no fusermount3 for an ordinary user" {
    root_only
    command -v setpriv >/dev/null || skip "no setpriv"
    setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$K42FS" ||
        skip "an ordinary user cannot run the build tree's k42fs"
    chown 65534 "$S/mnt" "$S/src" "$S/run"
    mkdir "$S/nothing"
    for f in "" -f; do
        fails_with 1 'fusermount3' env PATH="$S/nothing" /usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups \
            "$K42FS" $f -o "state=$S/run/state" "$S/src" "$S/mnt"
    done
}

@test "fusermount3 refuses" {
    root_only
    command -v setpriv >/dev/null || skip "no setpriv"
    setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$K42FS" ||
        skip "an ordinary user cannot run the build tree's k42fs"
    chown 65534 "$S/src" "$S/run" # the mount point is root's: fusermount3 says no
    command -v fusermount3 >/dev/null || skip "no fusermount3"
    # its own line comes before ours
    local got=0
    timeout 20 setpriv --reuid=65534 --regid=65534 --clear-groups "$K42FS" -o "state=$S/run/state" \
        "$S/src" "$S/mnt" >"$S/out" 2>"$S/err" </dev/null 3>&- || got=$?
    cat "$S/err"
    [ $got = 1 ]
    [ "$(grep -c '^k42fs: ' "$S/err")" = 1 ]
    [ "$(grep -vc '^fusermount3: ' "$S/err")" = 1 ]
    [ ! -e "$S/run/state" ]
    run ! grep -q " $S/mnt " /proc/mounts
    # and a program of that name that is something else
    mkdir "$S/bin"
    printf '#!/bin/sh\nexit 3\n' >"$S/bin/fusermount3"
    chmod 755 "$S/bin/fusermount3"
    chown 65534 "$S/mnt"
    fails_with 1 'fusermount3' env PATH="$S/bin:/usr/bin:/bin" setpriv --reuid=65534 --regid=65534 --clear-groups \
        "$K42FS" -o "state=$S/run/state" "$S/src" "$S/mnt"
}

@test "mount(8)'s own words are swallowed" {
    k42_skip_unless_fuse
    k42_mount -o 'nofail,noauto,auto,_netdev,user,users,nouser,owner,group,defaults,rw,suid,dev,exec,x-foo=bar,x-systemd.automount,comment=x'
    touch "$S/mnt/works"
    [ -e "$S/src/works" ]
    run ! grep -E " $S/mnt .*(x-foo|comment|nofail)" /proc/mounts
    k42_umount
}

@test "options that mean something, mean it" {
    k42_skip_unless_fuse
    k42_mount -o 'ro,nosuid,nodev,noexec,attr_timeout=0.5,entry_timeout=0,max_threads=2,busy_poll=0,history=5'
    grep " $S/mnt " /proc/mounts | grep ro | grep nosuid | grep nodev | grep noexec
    run touch "$S/mnt/x"
    [ "$status" != 0 ]
    [[ $output == *'Read-only'* ]]
    k42_umount
}

@test "--version and --help" {
    run "$K42FS" --version
    [ "$status" = 0 ]
    [[ $output == k42fs\ * ]]
    run "$K42FS" --help
    [ "$status" = 0 ]
    [[ $output == *SOURCE*MOUNTPOINT* ]]
}
