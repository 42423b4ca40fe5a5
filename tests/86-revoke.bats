#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Rights that only shrink, and what is taken back: k42ctl restrict, revoke and allow; k42run --rights.
# Longer with K42_SOAK.

load lib

setup() {
    k42_skip_unless_fuse
    k42_scratch
    BIN=$K42_BUILD/tests/revoke
    echo contents >"$S/src/f"
    export K42_MNT=$S/mnt
}
teardown() {
    exec 7>&- 8>&- 9>&-
    [ -z "${VICTIM:-}" ] || kill "$VICTIM" 2>/dev/null || true
    k42_cleanup
}

ctl() { timeout 30 "$K42CTL" "$@"; }

# What is in the file now, past the mount.
backing() { cat "$S/src/f"; }

# writes_to_7: may this shell write to its descriptor 7?
may_write() { printf x >&7; } 2>/dev/null
may_read() { dd bs=1 count=1 <&8 >/dev/null; } 2>/dev/null

# handle_of PID: its handle on a file.
handle_of() {
    ctl list --json "$S/mnt" | python3 -c '
import json, sys
print([h["handle"] for h in json.load(sys.stdin) if h["pid"] == int(sys.argv[1]) and h["type"] == "FILE"][0])' "$1"
}

# ---- restrict ----

@test "restrict: a handle keeps what it was left, and never gets it back" {
    k42_mount -o io=counted
    exec 7>>"$S/mnt/f"
    may_write
    h=$(handle_of $$)
    ctl restrict "$h" wd "$S/mnt"
    may_write
    [ "$(ctl show "$h" "$S/mnt" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["rights"])')" = wd ]
    run ctl restrict "$h" rwd "$S/mnt"
    [ "$status" = 1 ]
    [[ $output == *"only shrink"* ]]
    ctl restrict "$h" d "$S/mnt"
    run ! may_write
    run ! ctl restrict "$h" w "$S/mnt"

    # What a process has never touched is restricted, too, and what derives from it.
    exec 8<"$S/mnt/f" 7>>"$S/mnt/f"
    (
        ctl restrict "$BASHPID" rd "$S/mnt"
        may_read && ! may_write && ! (may_write) && (may_read)
    )
    may_write
    may_read
}

@test "restrict, revoke, allow: usage and errors are one line, with the status that is documented" {
    k42_mount -o io=counted
    local args
    for args in "1.1 x" "1.1" "nosuch r" "999999999 r" "1.77777 r" "/tmp r"; do
        # shellcheck disable=SC2086
        run --separate-stderr ctl restrict $args
        [ "$status" -ge 1 ] && [ "$status" -le 2 ]
        [ "${#stderr_lines[@]}" -ge 1 ] && [ -z "$output" ]
    done
    run --separate-stderr ctl restrict 1.77777 r "$S/mnt"
    [ "$status" = 1 ]
    [ "${#stderr_lines[@]}" = 1 ]
    run ctl revoke --tree "$S/mnt/f"
    [ "$status" = 2 ]
    run ctl revoke --block 1.1
    [ "$status" = 2 ]
    run ctl allow 1.1
    [ "$status" = 2 ]
    run ctl allow "$S/mnt/f"
    [ "$status" = 1 ]
    run ctl revoke "$S/mnt"
    [ "$status" = 1 ]
    run ctl revoke "$S/src/f" --state="$S/state"
    [ "$status" = 1 ]
    [[ $output == *"is not below"* ]]
}

# ---- what a program can do that wants to get round it ----

# hostile CLASS NAME VERB…: the expected table is tests/revoke/expect/CLASS-NAME.
hostile() {
    local name=$1-$2
    shift 2
    (cd "$S/mnt" && timeout 60 "$BIN/hostile" "$S/mnt/h" "$K42CTL" "$@") >"$S/got"
    diff "$K42_TESTS/revoke/expect/$name" "$S/got"
}

@test "hostile, counted: nothing gets round a restriction or a revocation" {
    k42_mount -o io=counted
    hostile counted restrict-rd restrict PID rd "$S/mnt"
    hostile counted restrict-r restrict PID r "$S/mnt"
    hostile counted restrict-wd restrict PID wd "$S/mnt"
    hostile counted revoke-process revoke PID "$S/mnt"
    hostile counted revoke-process revoke --tree PID "$S/mnt"
    hostile counted block-process revoke --block PID "$S/mnt"
    hostile counted revoke-file revoke "$S/mnt/h"
    hostile counted block-file revoke --block "$S/mnt/h"
    k42_counts_zero
    # A mapping that others keep in use is told of.
    K42_STAYS_MAPPED=1 run "$BIN/hostile" "$S/mnt/h2" "$K42CTL" revoke PID "$S/mnt"
    [ "$status" = 1 ]
    [[ $output == *"that others map, too"* ]]
}

@test "hostile, cached: a file is revoked; of rights, all but mappings are held" {
    k42_mount -o io=cached
    hostile cached restrict-rd restrict PID rd "$S/mnt"
    hostile cached revoke-file revoke "$S/mnt/h"
    hostile cached block-file revoke --block "$S/mnt/h"
    # A process or a handle is refused, with what to mount with.
    exec 7>>"$S/mnt/f"
    run --separate-stderr ctl revoke $$ "$S/mnt"
    [ "$status" = 1 ]
    [[ $stderr == *"-o io=counted"* ]]
    run ctl revoke "$(handle_of $$)" "$S/mnt"
    [ "$status" = 1 ]
    may_write
}

@test "where nothing can be held it is refused, with what to mount with" {
    k42_mount -o io=fast
    [ "$(ctl status --json "$S/mnt" | python3 -c 'import json,sys; print(json.load(sys.stdin)["class"])')" = fast ] ||
        skip "no passthrough here"
    exec 7>>"$S/mnt/f"
    local target
    for target in "revoke $S/mnt/f" "revoke $$ $S/mnt" "revoke $(handle_of $$) $S/mnt" "restrict $$ r $S/mnt"; do
        # shellcheck disable=SC2086
        run --separate-stderr ctl $target
        [ "$status" = 1 ]
        [ "${#stderr_lines[@]}" = 1 ]
        [[ $stderr == *"-o io=counted"* ]]
    done
    may_write
    # k42run --rights too; without the mounts of others
    unshare -m --propagation private true || skip "unshare may not"
    run unshare -m --propagation private bash -c '
        for m in $(awk "\$3 == \"fuse.k42fs\" { print \$2 }" /proc/self/mounts); do
            [ "$m" = "$1" ] || umount -l "$m"
        done
        exec "$2" --rights=r true' bash "$S/mnt" "$K42RUN"
    [ "$status" = 1 ]
    [[ $output == *"-o io=counted"* ]]
}

# ---- revoke ----

@test "p8: after revoke no byte moves, counted: file, process, tree, handle" {
    local rounds=1 what
    [ -z "${K42_SOAK:-}" ] || rounds=40
    k42_mount -o io=counted
    for what in process tree handle; do
        timeout 600 "$BIN/moves" "$S/mnt/p" "$what" "$rounds" "$K42CTL" "$S/mnt"
    done
    K42_BACKING=$S/src/p timeout 600 "$BIN/moves" "$S/mnt/p" file "$rounds" "$K42CTL"
    k42_counts_zero
}

@test "p8: after revoke no byte moves, cached: file" {
    local rounds=2
    [ -z "${K42_SOAK:-}" ] || rounds=80
    k42_mount -o io=cached
    K42_CACHED=1 K42_BACKING=$S/src/p timeout 600 "$BIN/moves" "$S/mnt/p" file "$rounds" "$K42CTL"
}

@test "p9: rights only shrink in random trees of dup, fork and restrict" {
    local rounds=2 i seed
    [ -z "${K42_SOAK:-}" ] || rounds=60
    k42_mount -o io=counted
    for ((i = 0; i < rounds; i++)); do
        seed=${K42_SEED:-$((RANDOM * 32768 + RANDOM))}
        timeout 120 "$BIN/shrink" "$S/mnt/s$i" "$S/mnt" 100 "$seed" "$K42CTL"
    done
}

@test "revoke FILE: whoever opens it later has a file that works, also in the same process" {
    local io
    for io in counted cached; do
        k42_mount -o "io=$io"
        exec 8<"$S/mnt/f" 7>>"$S/mnt/f"
        ctl revoke "$S/mnt/f"
        run ! may_write
        run ! may_read
        exec 8<"$S/mnt/f" 7>>"$S/mnt/f"
        may_write
        may_read
        [ "$(stat -c %i "$S/mnt/f")" = "$(stat -c %i "$S/src/f")" ]
        mv "$S/mnt/f" "$S/mnt/g"
        [ "$(cat "$S/mnt/g")" = "$(cat "$S/src/g")" ]
        mv "$S/mnt/g" "$S/mnt/f"
        exec 7>&- 8>&-
        k42_counts_zero
        k42_umount
    done
}

@test "revoke FILE: a name of any bytes, a link, a directory; with --block nobody opens it until allow" {
    local odd=$'\xff odd \x01"\\'
    k42_mount -o io=counted
    mkdir "$S/mnt/dir"
    echo 1 >"$S/mnt/dir/$odd"
    ln -s "$odd" "$S/mnt/dir/link"
    exec 7>>"$S/mnt/dir/$odd"
    ctl revoke "$S/mnt/dir/link"
    run ! may_write
    exec 7>>"$S/mnt/dir/$odd"
    ctl revoke --state="$S/state" "$S/mnt/dir/$odd"
    run ! may_write

    echo 2 >"$S/mnt/other"
    exec 7>>"$S/mnt/f"
    ctl revoke --block "$S/mnt/f"
    run ! may_write
    run cat "$S/mnt/f"
    [[ $output == *"Permission denied"* ]]
    run ! truncate -s 0 "$S/mnt/f"
    ln "$S/mnt/f" "$S/mnt/hard"
    run ! cat "$S/mnt/hard"
    [ "$(backing)" = contents ]
    cat "$S/mnt/other"
    ctl allow "$S/mnt/f"
    cat "$S/mnt/f" "$S/mnt/hard"
    run ! may_write
}

# tried WHAT N: waits until it is in $S/tries so often.
tried() {
    local i
    for ((i = 0; i < 400; i++)); do
        [ "$(grep -c "$1" "$S/tries")" -lt "$2" ] || return 0
        sleep 0.05
    done
    return 1
}

@test "revoke --tree: a blocked tree of processes opens nothing until allow; a handle goes with its children" {
    k42_mount -o io=counted
    (while :; do cat "$S/mnt/f" >/dev/null 2>&1 && echo good || echo bad; sleep 0.02; done) >>"$S/tries" &
    VICTIM=$!
    tried good 1
    ctl revoke --block --tree "$VICTIM" "$S/mnt"
    tried bad 1 # the try that the revocation came into is over
    : >"$S/tries"
    tried bad 5
    run grep -c good "$S/tries"
    [ "$output" = 0 ]
    cat "$S/mnt/f"
    ctl allow "$VICTIM" "$S/mnt"
    tried good 1
    kill "$VICTIM"
    wait "$VICTIM" 2>/dev/null || true
    run ctl allow "$$" "$S/mnt"
    [ "$status" = 1 ]

    # A handle with what derives from it.
    exec 7>>"$S/mnt/f"
    may_write
    # restrict makes the daemon look whose it is, so that each process gets a handle
    ctl restrict "$(handle_of $$)" rwdc "$S/mnt" 2>/dev/null || ctl restrict "$(handle_of $$)" wdc "$S/mnt"
    (may_write && echo written >>"$S/tries" && exec sleep 30) &
    VICTIM=$!
    tried written 1
    local child
    child=$(handle_of "$VICTIM")
    [ "$(ctl revoke --json "$(handle_of $$)" --tree "$S/mnt" | python3 -c 'import json,sys; print(json.load(sys.stdin)["handles"])')" = 2 ]
    [ "$(ctl show --json "$child" "$S/mnt" | python3 -c 'import json,sys; print(json.load(sys.stdin)["rights"])')" = - ]
}

@test "a mapping that nobody else looks at gets SIGBUS, cached and counted" {
    local io
    for io in cached counted; do
        k42_mount -o "io=$io"
        timeout 30 python3 - "$S/mnt/f" "$K42CTL" <<'PY'
import mmap, os, subprocess, sys
f = open(sys.argv[1], "r+b")
m = mmap.mmap(f.fileno(), 0)
m[0:1] = b"C"
assert m[0:1] == b"C"
subprocess.run([sys.argv[2], "revoke", sys.argv[1]], check=True)
pid = os.fork()
if pid == 0:
    m[0]
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 7, "no SIGBUS"
PY
        # what was stored before is in the file
        [ "$(backing)" = Contents ]
        k42_umount
    done
}

# ---- who may ----

@test "others may take from their own processes, and from nothing else" {
    [ "$(id -u)" = 0 ] || skip "needs root for two users"
    id -u nobody >/dev/null 2>&1 || skip "no user nobody"
    k42_mount -o io=counted
    chmod 666 "$S/src/f"
    as_nobody() { timeout 20 setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
    as_nobody true 2>/dev/null || skip "setpriv does not do it"
    as_nobody test -x "$K42CTL" || skip "the build tree is not for nobody"
    exec 7>>"$S/mnt/f"
    may_write
    local mine
    mine=$(handle_of $$)
    run as_nobody "$K42CTL" revoke "$mine" "$S/mnt"
    [ "$status" = 1 ] && [[ $output == *"not yours"* ]]
    run as_nobody "$K42CTL" revoke $$ "$S/mnt"
    [ "$status" = 1 ] && [[ $output == *"not yours"* ]]
    run as_nobody "$K42CTL" revoke --block "$S/mnt/f"
    [ "$status" = 1 ] && [[ $output == *"root and the owner"* ]]
    run as_nobody "$K42CTL" allow "$S/mnt/f"
    [ "$status" = 1 ]
    may_write
    as_nobody sh -c 'exec 7>>"$1"; printf x >&7 || exit 1; "$2" revoke $$ "$3" || exit 2; ! printf y >&7' sh \
        "$S/mnt/f" "$K42CTL" "$S/mnt"
}

# ---- what survives ----

@test "blocked files and processes come back with the next worker, and go with a clean end" {
    k42_mount -o io=counted
    sleep 100 &
    VICTIM=$!
    ctl revoke --block "$S/mnt/f"
    ctl revoke --block "$VICTIM" "$S/mnt"
    # With a process that has ended, and a line that never meant anything.
    echo "process 1 2 3 4 5 6" >>"$S/state/blocked"
    echo "file nonsense" >>"$S/state/blocked"
    k42_expect_log "1 lines make no sense"
    k42_kill_worker
    run ! cat "$S/mnt/f"
    ctl allow "$S/mnt/f"
    cat "$S/mnt/f"
    ctl allow "$VICTIM" "$S/mnt"
    run ctl allow 1 "$S/mnt"
    [ "$status" = 1 ]
    k42_umount
    [ ! -e "$S/state" ]
}

@test "a worker that is killed leaves revoked what was revoked" {
    k42_mount -o io=counted
    echo 2 >"$S/mnt/g"
    echo 3 >"$S/mnt/h"
    exec 7>>"$S/mnt/f" 8<"$S/mnt/g" 9<>"$S/mnt/h"
    ctl revoke --block "$S/mnt/f"
    ctl restrict "$$" wd "$S/mnt"
    ctl revoke "$S/mnt/h"
    local round
    for round in 1 2; do
        k42_kill_worker
        run ! may_write
        run ! may_read
        run ! cat "$S/mnt/f"
        # the file is another node's than the descriptor's, and stays it
        [ "$(cat "$S/mnt/h")" = "$((round + 2))" ]
        run ! sh -c 'cat <&9'
        run ! sh -c 'echo x >&9'
        echo $((round + 3)) >"$S/mnt/h"
        [ "$(cat "$S/src/h")" = "$((round + 3))" ]
        run ! sh -c 'cat </proc/self/fd/9'
    done
    exec 9>&-
    [ "$(backing)" = contents ]
}

# writer FILE: appends until it may not, then says so in $S/refused.
writer() {
    python3 - "$1" "$S/refused" <<'E' 3>&- &
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
while True:
    try:
        os.write(fd, b"x" * 100)
    except OSError as e:
        assert e.errno == 9, e
        break
open(sys.argv[2], "w").close()
time.sleep(60)
E
    VICTIM=$!
}

@test "revoke while the worker is killed in the middle of it: done when it says so, and else it can be asked again" {
    local io i status said size seed=${K42_SEED:-$RANDOM}
    echo "K42_SEED=$seed"
    RANDOM=$seed
    for io in counted cached; do
        k42_mount -o "io=$io"
        for ((i = 0; i < 8; i++)); do
            rm -f "$S/refused"
            : >"$S/src/w$i"
            writer "$S/mnt/w$i"
            while [ ! -s "$S/src/w$i" ]; do sleep 0.02; done
            timeout 60 "$K42CTL" revoke --wait "$S/mnt/w$i" >"$S/said" 2>&1 3>&- &
            said=$!
            sleep "0.00$((RANDOM % 10))"
            k42_kill_worker
            status=0
            wait "$said" || status=$?
            echo "$io $i: status $status $(cat "$S/said")"
            if [ "$status" != 0 ]; then
                [ "$status" = 1 ]
                [ -s "$S/said" ]
                ctl revoke --wait "$S/mnt/w$i"
            fi
            size=$(stat -c %s "$S/src/w$i")
            sleep 0.2
            [ "$(stat -c %s "$S/src/w$i")" = "$size" ]
            [ -e "$S/refused" ]
            kill "$VICTIM"
            wait "$VICTIM" 2>/dev/null || true
            VICTIM=
        done
        k42_counts_zero
        k42_umount
    done
}

@test "revoke --wait: waits for an operation that does not end, and without it says that there is one" {
    need_root "to mirror a file system whose daemon is stopped"
    local io below
    mkdir "$S/upper"
    for io in counted cached; do
        k42_mount -o io=counted "$S/src" "$S/mnt" "$S/state"
        below=$K42_WORKER
        echo contents >"$S/src/stuck"
        k42_mount -o "io=$io" "$S/mnt" "$S/upper" "$S/state2"
        python3 - "$S/upper/stuck" "$S/go" "$S/got" <<'E' 3>&- &
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
open(sys.argv[2], "w").close()
while os.path.exists(sys.argv[2]):
    time.sleep(0.01)
done = b""
try:
    done = b"%d" % os.pwrite(fd, b"C", 0)
    os.pwrite(fd, b"D", 0)
except OSError as e:
    done += b" errno %d" % e.errno
open(sys.argv[3], "wb").write(done)
E
        VICTIM=$!
        while [ ! -e "$S/go" ]; do sleep 0.05; done
        kill -STOP "$below"
        rm "$S/go"
        sleep 0.5
        run timeout 30 "$K42CTL" revoke "$VICTIM" "$S/upper"
        echo "$io, without: $status $output"
        if [ "$io" = counted ]; then
            [ "$status" = 1 ]
            [[ $output == *"still running"* ]]
            run timeout 3 "$K42CTL" revoke --wait "$VICTIM" "$S/upper"
            [ "$status" = 124 ]
        fi
        [ ! -e "$S/got" ]
        if [ "$io" = cached ]; then # a file only, whose path cannot be looked up below now
            kill -CONT "$below"
            timeout 30 "$K42CTL" revoke --wait "$S/upper/stuck"
        else
            timeout 30 "$K42CTL" revoke --wait "$VICTIM" "$S/upper" 3>&- &
            sleep 0.5
            kill -0 $!
            kill -CONT "$below"
            wait $!
        fi
        wait "$VICTIM"
        VICTIM=
        echo "$io: $(cat "$S/got")"
        [[ $(cat "$S/got") == *"errno 9" || $io == cached ]]
        rm "$S/got"
        k42_umount "$S/upper"
        k42_umount "$S/mnt"
    done
}

# ---- k42run --rights ----

@test "k42run --rights: children may do with what they inherit what they were left, and no more" {
    k42_mount -o io=counted
    local rights
    for rights in r rd w d; do
        timeout 20 "$K42RUN" --rights=$rights python3 - "$S/mnt/f" $rights 2>"$S/err" <<'PY'
import os, sys
path, rights = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
def may():
    done = ""
    for letter, fn in ("r", lambda: os.pread(fd, 1, 0)), ("w", lambda: os.pwrite(fd, b"c", 0)):
        try:
            fn()
            done += letter
        except OSError as e:
            assert e.errno == 9, e
    return done
def child(fn):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if fn() else 1)
    return os.waitpid(pid, 0)[1] == 0
data = rights.replace("d", "")
below = data if "d" in rights else ""
assert may() == "rw"
assert child(lambda: may() == data and child(lambda: may() == below)), rights
assert may() == "rw"
PY
    done

    # It holds for what COMMAND itself has inherited, and for programs without the shim.
    echo contents >"$S/src/f"
    exec 7>>"$S/mnt/f" 8<"$S/mnt/f"
    timeout 20 "$K42RUN" --rights=rd sh -c '
        printf 1 >&7 || exit 1
        env -i sh -c "printf 2 >&7" 2>/dev/null && exit 2
        env -i sh -c "dd bs=1 count=1 <&8 >/dev/null 2>&1" || exit 3
        printf 3 >&7' 2>"$S/err"
    may_write
    [ "$(backing)" = $'contents\n13x' ]
    run "$K42RUN" --rights=q true
    [ "$status" = 2 ]
}

@test "k42run --rights: a mount that the program does not use is sent nothing, and holds it all the same" {
    k42_mount -o io=counted
    local before i
    requests() {
        ctl stats --json "$S/mnt" | python3 -c '
import json, sys
v = json.load(sys.stdin)
print(v["requests"], v["lazy_reopens"])'
    }
    before=$(requests)
    for ((i = 0; i < 5; i++)); do timeout 20 "$K42RUN" --rights=r true; done
    [ "$(requests)" = "$before" ]
    timeout 20 "$K42RUN" --rights=r sh -c 'exec 7<>"$1"; (printf X >&7) 2>/dev/null; printf y >&7' sh "$S/mnt/f"
    [[ $(backing) == y* ]]
}
