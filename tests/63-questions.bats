#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Six questions that K42 left open, asked on its mailing list on 2006-09-15, and our answers.  Each test
# fails if K42's behaviour came back.  The second (bits lost while other threads do I/O) is about the
# shim's table alone and is tested beside the shim.

load lib
load fork/fork

setup() {
    k42_skip_unless_fuse
    k42_scratch
}
teardown() {
    stop_touch
    k42_cleanup
}

# the_same_stats BEFORE AFTER KEY…
the_same_stats() {
    python3 - "$@" <<'PY'
import json, sys
a, b = json.load(open(sys.argv[1])), json.load(open(sys.argv[2]))
bad = ["%s: %s, then %s" % (k, a[k], b[k]) for k in sys.argv[3:] if a[k] != b[k]]
sys.exit("\n".join(bad) or 0)
PY
}

# settled FILE: the stats into FILE when nobody holds anything and no client is known any more.
settled() {
    local i
    k42_counts_zero
    for ((i = 0; i < 100; i++)); do
        stats_now "$1"
        [ "$(stat_now clients)" = 0 ] && return 0
        sleep 0.1
    done
    cat "$1" >&2
    return 1
}

# K42: "Why is the client state stored twice, as marshalled bytes and in the xhandle?"
@test "q1: state once: a message has 64 bytes, however much state the descriptor has" {
    command -v strace >/dev/null || skip "no strace"
    strace -o /dev/null true || skip "strace may not trace here"
    local deep=$S/src name i
    name=$(printf 'n%.0s' $(seq 200))
    for ((i = 0; i < 15; i++)); do
        (cd "$deep" && mkdir "$name") && deep=$deep/$name
    done
    mkdir "$S/src/big"
    make_files 10000 "$S/src/big"
    make_files 1 "$deep"
    k42_mount
    start_touch strace -f -e trace=ioctl -o "$S/trace" "$K42RUN" --
    t r path "$S/mnt${deep#"$S/src"}/f00000"
    t r path "$S/mnt/big" dir
    t r dir 1
    for ((i = 0; i < 50; i++)); do t r next 1 100; done
    child c
    run ! grep '0x4b, 0xa0' "$S/trace"
    mark
    t c touch 0 1
    t c next 1 200
    for ((i = 0; i < 30; i++)); do t c next 1 200; done
    reopens_are 2
    gone c r
    t r exit
    wait "$TOUCH_JOB"
    [ "$(grep -c '0x4b, 0xa0' "$S/trace")" = 2 ]
    [ "$(grep -c '_IOC(_IOC_READ|_IOC_WRITE, 0x4b, 0xa0, 0x40)' "$S/trace")" = 2 ]
    k42_counts_zero
}

@test "q1: state once: every copy of a descriptor leads to the same handle and the same counters" {
    make_files 2
    k42_mount -o io=counted
    start_touch
    t r open "$S/mnt" 1
    t r dup 0
    child c
    local c=$T token
    t c token 0
    token=$T
    t c token 1
    [ "$T" = "$token" ]
    t c dup 1
    t c token 2
    [ "$T" = "$token" ]
    t r send 0
    t c recv
    t c token 3
    [ "$T" = "$token" ]
    t c exec
    for i in 0 1 2 3; do
        t c token "$i"
        [ "$T" = "$token" ]
    done
    # 10 + 20 + 30 + 40 bytes through four descriptors, of one row
    for i in 0 1 2 3; do t c read "$i" $(((i + 1) * 10)); done
    t r read 1 7
    list
    [ "$(rows)" = 2 ]
    [ "$(rows pid="$c" -- handle)" = "${token%% *}" ]
    [ "$(rows pid="$c" -- reads read_bytes)" = "4 100" ]
    [ "$(rows pid="$R" -- reads read_bytes)" = "1 7" ]
    k42_check
    gone c r
    t r exit
    k42_counts_zero
}

# K42: "After a fork the parent has to re-open its files, too."
@test "q3: a parent's fork costs the parent nothing: 1,000 forks, no message, no request" {
    make_files 50
    k42_mount
    start_touch
    t r open "$S/mnt" 50
    t r touch 0 50
    mark
    stats_now "$S/before"
    t r forks 1000
    stats_now "$S/after"
    run "$COUNTS" diff "$S/before" "$S/after" forget batch_forget
    echo "$output"
    [ -z "$output" ]
    t r touch 0 50
    t r forks 10
    t r touch 0 50
    reopens_are 0
    messages_are 0
    # a child that has touched is a parent, too
    child c
    t c touch 0 50
    reopens_are 50
    messages_are 50
    t c forks 100
    t c touch 0 50
    reopens_are 50
    messages_are 50
    gone c r
    t r exit
    k42_counts_zero
}

# entries PROCESS INDEX: what is left of a directory, one name a line.
entries() {
    while t "$1" next "$2" 200 && [ -n "$T" ]; do tr ' ' '\n' <<<"$T"; done
}

# K42: "Marshalled data of more than 512 bytes overruns a buffer"; it was seen with an open directory.
@test "q4: an open directory goes over fork: every entry exactly once, in the right order" {
    mkdir "$S/src/big"
    make_files 10000 "$S/src/big"
    python3 -c '
import os, sys
print("\n".join(sorted(os.listdir(sys.argv[1]) + [".", ".."])))' "$S/src/big" >"$S/all"
    start_touch env
    t r path "$S/src/big" dir
    t r dir 0
    entries r 0 >"$S/native"
    t r exit
    wait "$TOUCH_JOB"
    cmp <(sort "$S/native") "$S/all"
    rm -r "$S/ctl"
    for before in 0 5 150 3333; do
        k42_mount
        start_touch
        t r path "$S/mnt/big" dir
        t r dir 0
        : >"$S/got"
        for ((i = before; i > 0; i -= 200)); do
            t r next 0 $((i < 200 ? i : 200))
            tr ' ' '\n' <<<"$T" >>"$S/got"
        done
        child c
        entries c 0 >>"$S/got"
        same_output "$S/native" "$S/got" 6
        gone c r
        t r exit
        wait "$TOUCH_JOB"
        rm -r "$S/ctl"
        k42_counts_zero
        k42_umount
    done
}

@test "q4: every length, version, flag and unknown request is answered as protocol.h says" {
    make_files 1
    mkdir "$S/src/d"
    k42_mount
    # so that the kernel knows the nodes before we count
    stat "$S/mnt/f00000" "$S/mnt/d" >/dev/null
    settled "$S/before"
    local pid=$K42_PID
    timeout 300 "$FORK/messages" "$S/mnt/f00000" "$S/mnt/d" || { echo "messages: $?"; return 1; }
    settled "$S/after"
    the_same_stats "$S/before" "$S/after" handles descriptions clients lazy_reopens
    [ "$(id -u)" != 0 ] || k42_objects_are_one # what the kernel has cached changes at any time
    k42_find_worker && [ "$K42_PID" = "$pid" ]
    k42_check
}

# K42: "Who frees the marshalled data?"
@test "q5: after thousands of children that fork, touch and end, nothing is left" {
    local each=${K42_SOAK:+2500}
    each=${each:-500}
    make_files 16
    k42_mount
    timeout 60 "$K42RUN" -- "$FORK/storm" fork "$S/mnt" 4 5
    settled "$S/before"
    timeout 600 "$K42RUN" -- "$FORK/storm" fork "$S/mnt" 4 "$each"
    k42_counts_zero
    settled "$S/after"
    the_same_stats "$S/before" "$S/after" handles descriptions clients
    [ "$(id -u)" != 0 ] || k42_objects_are_one # what the kernel has cached changes at any time
    [ "$(stat_now fds)" -le $(($(python3 -c 'import json,sys;print(json.load(open(sys.argv[1]))["fds"])' "$S/before") + 64)) ]
    # the storm did what it is for
    [ "$(stat_now lazy_reopens)" -gt $((4 * each)) ]
    k42_check
}

# K42: "decRefCount reads the count again after dropping the lock."
@test "q6: a storm of threads that fork, touch, dup, close and end at the same time" {
    make_files 16
    k42_mount
    timeout 60 "$K42RUN" -- "$FORK/storm" threads "$S/mnt" 2 2
    settled "$S/before"
    timeout 600 "$K42RUN" -- "$FORK/storm" threads "$S/mnt" 4 250
    k42_counts_zero
    settled "$S/after"
    the_same_stats "$S/before" "$S/after" handles descriptions clients
    [ "$(id -u)" != 0 ] || k42_objects_are_one # what the kernel has cached changes at any time
    k42_check
}

@test "q6: the holder of a description and its children go at the same time" {
    make_files 16
    k42_mount
    for _ in 1 2 3 4 5; do
        timeout 120 "$K42RUN" -- "$FORK/storm" threads "$S/mnt" 4 20 3>&- &
        first=$!
        timeout 120 "$K42RUN" -- "$FORK/storm" fork "$S/mnt" 4 100 3>&- &
        second=$!
        list
        wait "$first"
        wait "$second"
    done
    k42_counts_zero
    k42_check
}
