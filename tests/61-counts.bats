#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# P4: a descriptor that is not touched after fork costs no message, k touched cost k, exactly.
# P6: the rows of `k42ctl list` equal reality.
#
# fork/touch.c does what the test says, one step at a time; the daemon's counts are asked for at its
# control socket, which costs no request on the mount.  `lazy_reopens` counts handles made: one for
# each description and process, however many descriptors, threads or calls.

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

# begin COUNT: a mount with COUNT files, opened by the process r as descriptors 0 to COUNT-1.
begin() {
    make_files "$1"
    k42_mount
    start_touch
    t r open "$S/mnt" "$1"
    [ "$T" = 0 ]
}

# finish: r ends, and nothing is left of anybody.
finish() {
    t r exit
    wait "$TOUCH_JOB"
    k42_counts_zero
    check
}

# sharing_of PID PATH
sharing_of() { rows pid="$1" path="$2" -- sharing; }

@test "P4: a child that touches nothing, 5,000 descriptors open: no request at all" {
    [ "$(ulimit -Hn)" -ge 6000 ] || skip "the hard limit of open files is $(ulimit -Hn)"
    begin 5000
    mark
    stats_now "$S/before"
    child c
    gone c r
    sleep 0.5
    stats_now "$S/after"
    run "$COUNTS" diff "$S/before" "$S/after" forget batch_forget
    echo "$output"
    [ "$status" = 0 ] && [ -z "$output" ]
    reopens_are 0
    check
    # three generations of them, a hundred at a time
    stats_now "$S/before"
    child c
    child g c
    t g forks 50
    t c forks 50
    gone g c
    gone c r
    stats_now "$S/after"
    run "$COUNTS" diff "$S/before" "$S/after" forget batch_forget
    echo "$output"
    [ -z "$output" ]
    reopens_are 0
    finish
}

@test "P4: k touched cost k: 1, 7 and 5,000; touched twice cost no more" {
    [ "$(ulimit -Hn)" -ge 6000 ] || skip "the hard limit of open files is $(ulimit -Hn)"
    begin 5000
    child c1
    mark
    t c1 touch 4711 1
    reopens_are 1
    messages_are 1
    t c1 touch 4711 1 50
    reopens_are 1
    messages_are 1
    check
    child c7
    mark
    t c7 touch 100 7
    t c7 touch 100 7
    reopens_are 7
    messages_are 7
    child all
    mark
    t all touch 0 5000
    reopens_are 5000
    messages_are 5000
    check
    t all touch 0 5000
    reopens_are 5000
    messages_are 5000
    gone all r
    gone c7 r
    gone c1 r
    finish
}

@test "P4: every kind of lock is a touch" {
    local call
    k42_mount
    echo text >"$S/src/f"
    for call in 'flock(f, fcntl.LOCK_EX)' 'lockf(f, fcntl.LOCK_EX)' \
        'fcntl(f, 37, struct.pack("hhqqi4x", 1, 0, 0, 0, 0))'; do # F_OFD_SETLK
        mark
        "$K42RUN" python3 - "$S/mnt/f" <<EOP
import fcntl, os, struct, sys
f = open(sys.argv[1], "r+b", buffering=0)
if os.fork() == 0:
    fcntl.$call
    os._exit(0)
assert os.wait()[1] == 0
EOP
        reopens_are 1
    done
}

@test "P4: a second fork without a touch in between leaves the bits as they were" {
    begin 20
    child c
    child g c
    mark
    t g touch 0 7
    reopens_are 7
    messages_are 7
    t c touch 5 7
    reopens_are 14
    messages_are 14
    # what a child has touched is not touched by its children
    child h g
    mark
    t h touch 0 20
    reopens_are 20
    messages_are 20
    t g touch 0 7
    t c touch 5 7
    reopens_are 20
    messages_are 20
    check
    gone h g
    gone g c
    gone c r
    finish
}

@test "P4: the parent's touches after its fork cost nothing, while the child lives and after" {
    begin 10
    child c
    mark
    t r touch 0 10
    t c touch 0 3
    t r touch 0 10
    reopens_are 3
    messages_are 3
    gone c r
    t r touch 0 10
    reopens_are 3
    messages_are 3
    finish
}

@test "P4: descriptors of one description: one handle, at most a message each" {
    begin 2
    t r dup 0
    t r dup 0
    t r dup 0
    child c
    mark
    t c touch 0 5 3
    reopens_are 2
    messages_at_most 5
    # copies that the child makes of a touched descriptor
    t c dup 0
    t c touch 5 1
    t c dup2 1 5
    t c touch 5 1
    reopens_are 2
    messages_at_most 7
    list
    [ "$(rows pid="$(rows path=/f00001 -- pid | sort -n | tail -n 1)")" = 2 ]
    check
    gone c r
    finish
}

@test "P4: a copy of an untouched descriptor is touched once" {
    begin 3
    child c
    mark
    t c dup 0
    t c close 0
    reopens_are 0
    t c touch 3 1
    reopens_are 1
    t c dup2 1 2
    t c touch 2 1
    reopens_are 2
    t c touch 1 1
    reopens_are 2
    check
    gone c r
    finish
}

@test "P4: what the child opens itself costs nothing, on a number that it had inherited, too" {
    begin 3
    child c
    t c number 0
    local number=$T
    mark
    t c close 0
    # the numbers of the control FIFOs that it has closed come first
    local own
    for i in 1 2 3 4 5; do
        t c path "$S/mnt/f00002"
        own=$T
        t c number "$own"
        [ "$T" = "$number" ] && break
    done
    [ "$T" = "$number" ]
    t c touch "$own" 1
    reopens_are 0
    messages_are 0
    t c touch 1 1
    reopens_are 1
    messages_are 1
    check
    gone c r
    finish
}

@test "P4: a new image's inherited descriptors" {
    begin 10
    child c
    mark
    t c exec
    reopens_are 0
    messages_are 0
    t c touch 0 3
    reopens_are 3
    messages_are 3
    # the same process: its handles are there already
    t c exec
    t c touch 0 4
    reopens_are 4
    messages_at_most 7
    # without the shim there is nobody to touch; it works
    t c exec-cleared
    t c touch 0 10
    reopens_are 4
    messages_at_most 7
    check
    gone c r
    finish
}

@test "P4: the opener's new image makes no handle" {
    begin 4
    mark
    t r exec
    t r touch 0 4
    reopens_are 0
    messages_at_most 4
    list
    [ "$(rows pid="$R")" = 4 ]
    finish
}

@test "P4: a descriptor that came over a socket" {
    begin 1
    child c
    t r path "$S/mnt/f00000"
    mark
    t r send "$T"
    t c recv
    reopens_are 0
    messages_are 0
    t c touch "$T" 1
    reopens_are 1
    messages_are 1
    t c touch "$T" 1
    reopens_are 1
    messages_are 1
    check
    gone c r
    finish
}

@test "P4: stdio in the child" {
    begin 2
    t r stream 0
    t r getc 0 3
    [ "$T" = f00 ]
    child c
    mark
    t c getc 0 3
    [ "$T" = 000 ]
    t c seek 0 0
    t c getc 0 1
    reopens_are 1
    messages_are 1
    t c stream 1
    t c getc 1 6
    [ "$T" = f00001 ]
    t c getc 1 500
    reopens_are 2
    messages_are 2
    check
    gone c r
    finish
}

@test "P4: eight threads of a child touch one descriptor at the same time" {
    begin 8
    child c
    mark
    for i in 0 1 2 3 4 5 6 7; do t c threads "$i" 8; done
    reopens_are 8
    messages_at_most 64
    check
    gone c r
    finish
}

@test "P4: a directory" {
    make_files 50
    k42_mount
    start_touch
    t r path "$S/mnt" dir
    t r dir 0
    t r next 0 5
    child c
    mark
    t c next 0 100
    reopens_are 1
    messages_are 1
    list
    [ "$(rows type=DIR)" = 2 ]
    check
    gone c r
    finish
}

@test "P6: lineage: three generations" {
    begin 1
    child c
    local c=$T
    child g c
    local g=$T
    t c touch 0 1
    t g touch 0 1
    list
    [ "$(rows path=/f00000)" = 3 ]
    local rh ch gh
    rh=$(rows pid="$R" -- handle)
    ch=$(rows pid="$c" -- handle)
    gh=$(rows pid="$g" -- handle)
    [ "$(rows pid="$R" -- parent)" = None ]
    [ "$(rows pid="$c" -- parent)" = "$rh" ]
    [ "$(rows pid="$g" -- parent)" = "$ch" ]
    [ "$gh" != "$ch" ] && [ "$ch" != "$rh" ]
    [ "$(rows pid="$c" -- ppid)" = "$R" ]
    [ "$(rows pid="$g" -- ppid)" = "$c" ]
    [ "$(rows pid="$g" -- comm)" = touch ]
    [ "$(rows pid="$g" -- exe)" = "$(readlink -f "$FORK/touch")" ]
    # what the process is told is what the list says
    t g token 0
    [ "$T" = "$gh $ch shared" ]
    check
    gone g c
    gone c r
    finish
}

@test "P6: lineage: the child in between had not touched; the grandparent's handle is the parent" {
    begin 1
    child c
    child g c
    local g=$T
    t g touch 0 1
    list
    [ "$(rows pid="$g" -- parent)" = "$(rows pid="$R" -- handle)" ]
    gone g c
    gone c r
    finish
}

@test "P6: lineage is left behind: the parent has ended and its handle is gone" {
    begin 1
    child c
    local c=$T
    t c touch 0 1
    list
    local ch
    ch=$(rows pid="$c" -- handle)
    child g c
    local g=$T
    gone c r
    for ((i = 0; i < 50; i++)); do
        list
        [ "$(rows pid="$c")" = 0 ] && break
        sleep 0.1
    done
    [ "$(rows pid="$c")" = 0 ]
    t g touch 0 1
    list
    [ "$(rows pid="$g" -- parent)" = "$ch" ]
    check
    t g exit
    finish
}

@test "P6: lineage is left behind by the opener, too" {
    begin 1
    list
    local rh
    rh=$(rows pid="$R" -- handle)
    child c
    local c=$T
    t r exit
    wait "$TOUCH_JOB"
    for ((i = 0; i < 50; i++)); do
        list
        [ "$(rows pid="$R")" = 0 ] && break
        sleep 0.1
    done
    [ "$(rows pid="$R")" = 0 ]
    t c touch 0 1
    list
    [ "$(rows)" = 1 ]
    [ "$(rows pid="$c" -- parent)" = "$rh" ]
    check
    t c exit
    k42_counts_zero
}

@test "P6: sharing: non-shared, shared, non-shared" {
    begin 2
    list
    [ "$(sharing_of "$R" /f00000)" = non_shared ]
    child c
    local c=$T
    list
    [ "$(sharing_of "$R" /f00000)" = non_shared ]
    t c touch 0 1
    list
    [ "$(sharing_of "$R" /f00000)" = shared ]
    [ "$(sharing_of "$c" /f00000)" = shared ]
    [ "$(sharing_of "$R" /f00001)" = non_shared ]
    gone c r
    for ((i = 0; i < 50; i++)); do
        list
        [ "$(rows pid="$c")" = 0 ] && break
        sleep 0.1
    done
    [ "$(rows)" = 2 ]
    [ "$(sharing_of "$R" /f00000)" = non_shared ]
    finish
}

@test "P6: who closes its copy loses its row, the other keeps its own" {
    begin 2
    child c
    local c=$T
    t c touch 0 2
    list
    [ "$(rows)" = 4 ]
    t r close 0
    list
    [ "$(rows pid="$R")" = 1 ]
    [ "$(rows pid="$c")" = 2 ]
    [ "$(sharing_of "$c" /f00000)" = non_shared ]
    t c close 1
    list
    [ "$(rows pid="$c")" = 1 ]
    [ "$(rows pid="$R" -- path)" = /f00001 ]
    check
    # the child goes on, and its child has it as parent
    child g c
    local g=$T
    t g touch 0 1
    list
    [ "$(rows pid="$g" -- parent)" = "$(rows pid="$c" -- handle)" ]
    check
    gone g c
    gone c r
    finish
}

@test "P6: one copy of two closed: the row stays" {
    begin 1
    t r dup 0
    t r close 0
    list
    [ "$(rows pid="$R")" = 1 ]
    check
    finish
}

@test "P6: k42ctl check is right while processes come and go" {
    begin 50
    for c in a b c; do child "$c"; t "$c" touch 0 20; done
    check
    t a close 0 10
    t r close 30 20
    t b exec
    check
    t b touch 25 5
    t c path "$S/mnt/f00049" rw
    check
    for c in a b c; do gone "$c" r; done
    check
    finish
}
