#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# A mount survives those who serve it: they are killed and replaced, and no system call of anybody fails.
# With K42_SOAK set the storms are long ones.

load lib

CHECKER=$K42_BUILD/tests/survive/checker
# of each of the three classes: three minutes in all; in soak an hour, or K42_SOAK seconds if that is more than 1
SECONDS_OF_A_STORM=60
[ -z "${K42_SOAK:-}" ] || SECONDS_OF_A_STORM=1200
[ "${K42_SOAK:-1}" = 1 ] || SECONDS_OF_A_STORM=$((K42_SOAK / 3))
[ -z "${K42_SOAK:-}" ] || K42_DAEMON_TIMEOUT=$((SECONDS_OF_A_STORM * 3 + 600))

setup() {
    k42_skip_unless_fuse
    k42_scratch
    PIDS=()
}
teardown() {
    [ ${#PIDS[@]} = 0 ] || kill "${PIDS[@]}" 2>/dev/null || true
    k42_cleanup
}

needs_resend() {
    timeout 20 "$K42CTL" status "$S/mnt" | grep -q '^  resend: yes' || skip "this kernel cannot send requests again"
}

# serving: the worker that serves; the one in waiting has another name.
serving() { pgrep -P "$K42_HOLDER" -x k42fs | tail -n 1; }

# kill_until: until the process $1 ends, the worker is killed after $2 to $3 milliseconds.
kill_until() {
    local kills=0 worker
    while kill -0 "$1" 2>/dev/null; do
        sleep "$(printf '0.%03d' $(($2 + RANDOM % ($3 - $2))))"
        worker=$(serving) && [ -n "$worker" ] || continue
        kill -KILL "$worker" 2>/dev/null && kills=$((kills + 1))
    done
    echo "$kills kills"
    [ "$kills" -ge 5 ]
}

# What ordinary programs do, again and again, in directory $1, until the file $1/stop is there.
programs() {
    local i=0 dir=$1
    set -e
    cp -r "$K42_TOP/fusefs" "$S/sample"
    (cd "$S" && find sample -type f -exec sha256sum {} +) >"$S/sums"
    mkdir "$dir/c"
    printf 'int part(int);\nint main(void) { return part(%s) == ROUND + 1 ? 0 : 1; }\n' ROUND >"$dir/c/main.c"
    printf 'int part(int n);\nint part(int n) { return n + 1; }\n' >"$dir/c/part.c"
    printf 'CFLAGS = -O1 -DROUND=$(ROUND)\nprogram: main.o part.o\n\t$(CC) -o $@ main.o part.o\n' >"$dir/c/Makefile"
    mkdir "$dir/git" && git -C "$dir/git" init -q && git -C "$dir/git" config user.email a@b &&
        git -C "$dir/git" config user.name a
    sqlite3 "$dir/db" 'create table t(i integer primary key, v text)'
    while [ ! -e "$dir/stop" ]; do
        i=$((i + 1))
        tar -C "$S" -cf - sample | tar -C "$dir" -xf -
        (cd "$dir" && sha256sum --quiet -c "$S/sums")
        rm -r "$dir/sample"
        echo "$i" >"$dir/git/file$((i % 5))"
        git -C "$dir/git" add -A
        git -C "$dir/git" commit -q -m "commit $i"
        sqlite3 "$dir/db" "insert into t(v) values ('$i')"
        make -s -C "$dir/c" -j2 ROUND="$i" && "$dir/c/program"
        rm "$dir/c/"*.o "$dir/c/program"
    done
    git -C "$dir/git" fsck --strict
    [ "$(git -C "$dir/git" rev-list --count HEAD)" = "$i" ]
    [ "$(sqlite3 "$dir/db" 'pragma integrity_check')" = ok ]
    [ "$(sqlite3 "$dir/db" 'select count(*) from t')" = "$i" ]
    echo "programs: $i rounds"
}

storm() {
    local before after checker status=0 seed=${K42_SEED:-$RANDOM} seconds=$SECONDS_OF_A_STORM
    command -v git >/dev/null && command -v sqlite3 >/dev/null && command -v make >/dev/null ||
        skip "no git, no sqlite3 or no make"
    # two processes that start anew each time cost a sanitizer's run its time
    k42_mount -o "io=$1"
    needs_resend
    k42_expect_log 'the worker was killed by signal 9'
    mkdir "$S/mnt/checked" "$S/mnt/programs"
    (programs "$S/mnt/programs") >"$S/programs" 2>&1 3>&- &
    PIDS+=($!)
    timeout $((seconds * 3 + 60)) "$CHECKER" --seed="$seed" --seconds="$seconds" "$S/mnt/checked" 2>&1 3>&- &
    checker=$!
    kill_until "$checker" 50 500
    touch "$S/src/programs/stop"
    wait "$checker" || status=$?
    wait "${PIDS[0]}" || status=$?
    PIDS=()
    cat "$S/programs"
    [ $status = 0 ] || { grep -v 'was killed by signal 9' "$S/log.0"; return 1; }
    [ "$(timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"restarts" *: *\([0-9]*\).*/\1/p')" -ge 5 ]
    timeout 20 "$K42CTL" status "$S/mnt" | grep '^last_death: was killed by signal 9'
    k42_counts_zero
    k42_check
    k42_umount
    [ ! -e "$S/state" ]
}

@test "a storm: class fast" { storm fast; }
@test "a storm: class cached" { storm cached; }
@test "a storm: class counted" { storm counted; }

# nobody's mount in class $1: he has no file handles and no passthrough, and every open file is parked.
storm_of_nobody() {
    local checker worker holder kills=0 status=0 i
    k42_nobody_mount "io=$1"
    holder=$(as_nobody timeout 20 "$K42CTL" status --json "$S/mnt" |
        sed -n 's/.*"holder_pid" *: *\([0-9]*\).*/\1/p')
    as_nobody mkdir "$S/mnt/checked"
    as_nobody timeout 120 "$CHECKER" --seed="$SEED" --seconds="$SECONDS_OF_A_STORM" "$S/mnt/checked" 2>&1 &
    checker=$!
    while kill -0 "$checker" 2>/dev/null; do
        sleep "$(printf '0.%03d' $((50 + RANDOM % 450)))"
        worker=$(pgrep -P "$holder" -x k42fs | tail -n 1)
        [ -z "$worker" ] || ! kill -KILL "$worker" 2>/dev/null || kills=$((kills + 1))
    done
    wait "$checker" || status=$?
    echo "$kills kills"
    for i in {1..100}; do # the exit of a process is told a moment later
        as_nobody timeout 20 "$K42CTL" stats "$S/mnt" >"$S/stats"
        [ "$(grep -cE '^ *(handles|descriptions): 0$' "$S/stats")" = 2 ] && break
        sleep 0.1
    done
    as_nobody timeout 20 fusermount3 -u "$S/mnt"
    wait "$K42_KEEPER" || status=$?
    [ "$kills" -ge 3 ] && [ "$status" = 0 ]
}

@test "a storm on an ordinary user's mount" {
    local SEED=${K42_SEED:-$RANDOM} SECONDS_OF_A_STORM=${K42_SOAK:+300}
    SECONDS_OF_A_STORM=${SECONDS_OF_A_STORM:-5}
    k42_skip_unless_nobody_mounts
    as_nobody test -x "$CHECKER" || skip "an ordinary user cannot run the build tree's checker"
    export SEED SECONDS_OF_A_STORM CHECKER
    run k42_in_namespace 450 storm_of_nobody counted
    echo "$output"
    grep -v 'was killed by signal 9' "$S/log.user" && return 1
    [ "$status" = 0 ]
    # nothing of his is open any more, and nothing of it is left
    cat "$S/stats"
    [ "$(grep -cE '^ *(handles|descriptions): 0$' "$S/stats")" = 2 ]
    [ ! -e "$S/run/state" ]
}

@test "the numbers in status: who serves, restarts, why the last one died" {
    local first
    k42_mount
    first=$K42_WORKER
    [ "$(ps -o ppid= -p "$first" | tr -d ' ')" = "$K42_HOLDER" ]
    k42_kill_worker
    [ "$K42_WORKER" != "$first" ]
    timeout 20 "$K42CTL" status "$S/mnt" >"$S/status"
    grep -q "^holder_pid: $K42_HOLDER\$" "$S/status"
    grep -q "^worker_pid: $K42_WORKER\$" "$S/status"
    grep -q '^restarts: 1$' "$S/status"
    grep -q '^last_death: was killed by signal 9 (KILL)$' "$S/status"
    k42_expect_log 'the worker was killed by signal 11'
    kill -SEGV "$K42_WORKER"
    timeout 20 ls "$S/mnt"
    timeout 20 "$K42CTL" status "$S/mnt" | grep '^last_death: was killed by signal 11 (SEGV)$'
}

@test "k42ctl while the worker is killed" {
    local i killer
    k42_mount
    k42_expect_log 'the worker was killed by signal 9'
    (for ((i = 0; i < 15; i++)); do
        sleep 0.2; kill -KILL $(serving)
    done) >/dev/null 2>&1 3>&- &
    killer=$!
    while kill -0 "$killer" 2>/dev/null; do
        timeout 30 "$K42CTL" list "$S/mnt"
        timeout 30 "$K42CTL" stats "$S/mnt" >/dev/null
        timeout 30 "$K42CTL" status "$S/mnt" >/dev/null
    done
}

# upgraded N: so many upgrades, and no process but the two.
upgraded() {
    [ "$(timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"upgrades" *: *\([0-9]*\).*/\1/p')" = "$1" ]
}

@test "thirty upgrades while files are written" {
    local i n=${K42_SOAK:+300} checker status=0
    n=${n:-30}
    k42_mount
    needs_resend
    k42_expect_log 'another program has taken over'
    mkdir "$S/mnt/checked"
    cp "$K42FS" "$S/k42fs.new"
    timeout 600 "$CHECKER" --seconds=500 --actors=1 --processes=1 "$S/mnt/checked" >"$S/said" 2>&1 3>&- &
    checker=$!
    PIDS+=("$checker")
    for ((i = 1; i <= n; i++)); do
        timeout 60 "$K42CTL" upgrade "$S/mnt" "$S/k42fs.new" >/dev/null
    done
    upgraded "$n"
    kill -TERM "$(pgrep -P "$checker")"
    wait "$checker" || status=$?
    PIDS=()
    cat "$S/said"
    [ $status = 0 ]
    k42_find_worker
    [ "$(readlink "/proc/$K42_WORKER/exe")" = "$S/k42fs.new" ]
    [ "$(pgrep -c -P "$K42_HOLDER" -x k42fs)" = 1 ]
    [ "$(pgrep -c -P "$K42_HOLDER")" -le 2 ]
    timeout 20 "$K42CTL" status "$S/mnt" | grep '^restarts: 0$'
    k42_counts_zero
}

# stalls OPTION…: what tests/survive/stalls says of clients on the mount.  In soak with priority, because the goals
# are about us and not about what else the machine does.
stalls() {
    local first=()
    [ -z "${K42_SOAK:-}" ] || [ "$(id -u)" != 0 ] || first=(nice -n -20)
    mkdir "$S/beside"
    run -0 timeout 2400 "${first[@]}" "$K42_BUILD/tests/survive/stalls" --holder="$K42_HOLDER" --ctl="$K42CTL" \
        --binary="$S/k42fs.new" --beside="$S/beside" "$@" "$S/mnt"
    echo "# $BATS_TEST_DESCRIPTION" >&3
    printf '#   %s\n' "${lines[@]}" >&3
}

# Who serves, and will serve, with the same priority.
with_priority() {
    [ -z "${K42_SOAK:-}" ] || [ "$(id -u)" != 0 ] || renice -n -20 -p "$K42_HOLDER" "$K42_WORKER" >/dev/null
}

@test "how long a client waits: upgrades" {
    local n=${K42_SOAK:+1000} checker
    k42_mount
    needs_resend
    k42_expect_log 'another program has taken over'
    with_priority
    cp "$K42FS" "$S/k42fs.new"
    mkdir "$S/mnt/checked"
    timeout 2600 "$CHECKER" --seconds=2500 --actors=1 --processes=1 "$S/mnt/checked" 2>&1 3>&- &
    checker=$!
    PIDS+=("$checker")
    stalls --upgrade="${n:-30}" --every=60 --goal=50
    upgraded "${n:-30}"
    kill -TERM "$(pgrep -P "$checker")"
    wait "$checker"
    PIDS=()
    timeout 20 "$K42CTL" status "$S/mnt" | grep '^restarts: 0$'
    k42_counts_zero
}

@test "how long a client waits: kills" {
    local n=${K42_SOAK:+1000}
    k42_mount
    needs_resend
    k42_expect_log 'the worker was killed by signal 9'
    with_priority
    stalls --kill="${n:-60}" --every=100 --goal=100
    k42_counts_zero
}

# waiting: the worker in waiting, once there is one that status knows of.
waiting() {
    local i pid
    for ((i = 0; i < 400; i++)); do
        pid=$(timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"waiting_pid" *: *\([0-9]\+\).*/\1/p')
        [ -z "$pid" ] || [ "$pid" = "${1:-}" ] || { echo "$pid"; return; }
        sleep 0.05
    done
    return 1
}

@test "the worker in waiting: takes over, and is replaced when it dies" {
    local next other
    k42_mount
    next=$(waiting)
    [ "$(cat "/proc/$next/comm")" = k42fs-waiting ]
    # it has no part in the mount
    run ! grep -q fuse <(readlink "/proc/$next/fd"/*)
    kill -KILL "$next"
    other=$(waiting "$next")
    k42_kill_worker
    [ "$K42_WORKER" = "$other" ]
    timeout 20 "$K42CTL" status "$S/mnt" | grep '^restarts: 1$'
    # and when both die at once
    next=$(waiting)
    kill -KILL "$next" "$K42_WORKER"
    timeout 20 ls "$S/mnt"
    k42_find_worker
    [ "$K42_WORKER" != "$next" ]
}

@test "a worker in waiting that hangs: another one is started" {
    local next
    k42_mount
    k42_expect_log 'the worker in waiting was killed by signal 9'
    k42_expect_log 'the worker was killed by signal 9'
    next=$(waiting)
    kill -STOP "$next"
    kill -KILL "$K42_WORKER"
    timeout 20 ls "$S/mnt"
    k42_find_worker
    [ "$K42_WORKER" != "$next" ]
    [ ! -e "/proc/$next" ]
    # nor is one left when the mount ends
    next=$(waiting "$next")
    kill -STOP "$next"
    k42_umount
    [ ! -e "/proc/$next" ]
}

@test "a crash after each request: the mount is given up; kills are not counted" {
    local status=0 i keeper
    k42_mount
    keeper=${K42_DAEMONS[-1]%%:*}
    k42_expect_log '.'
    for ((i = 0; i < 20; i++)); do # no fault of ours
        timeout 20 ls "$S/mnt" >/dev/null
        kill -KILL "$(serving)" || true
    done
    timeout 20 ls "$S/mnt"
    for ((i = 0; i < 200; i++)); do
        timeout 20 ls "$S/mnt" >/dev/null || break
        kill -0 "$keeper" 2>/dev/null || break
        kill -SEGV "$(serving)" || true
    done
    wait "$keeper" || status=$?
    [ $status = 1 ]
    grep "mnt: 15 workers in a row failed, .* the mount is given up" "$S/log.0"
    # and the line that it is given up; more, if one lived for long because we were slow
    [ "$(grep -c 'signal 11' "$S/log.0")" -ge 16 ]
    [ ! -e "$S/state" ]
    run ! mountpoint -q "$S/mnt"
}

@test "an upgrade by signal" {
    k42_mount
    k42_expect_log 'another program has taken over'
    local old=$K42_WORKER i
    exec 6<"$K42_TESTS/lib.bash" 7>"$S/mnt/held"
    kill -USR2 "$K42_HOLDER"
    for ((i = 0; i < 200; i++)); do upgraded 1 && break; sleep 0.05; done
    k42_find_worker
    [ "$K42_WORKER" != "$old" ]
    echo more >&7
    exec 6<&- 7>&-
    [ "$(cat "$S/src/held")" = more ]
    # nobody has died
    timeout 20 "$K42CTL" status "$S/mnt" | grep '^last_death: -$'
}

@test "a program that cannot take over: the one before goes on" {
    local bad
    k42_mount
    k42_expect_log 'the other program cannot take over'
    exec 7>"$S/mnt/held"
    printf '\177ELF' >"$S/garbage"
    chmod 755 "$S/garbage"
    for bad in /bin/true /bin/false "$S/garbage"; do
        run -1 timeout 60 "$K42CTL" upgrade "$S/mnt" "$bad"
        [[ $output == *"did not take over"* ]]
        echo "$bad" >&7
    done
    chmod 644 "$S/garbage"
    run -1 timeout 60 "$K42CTL" upgrade "$S/mnt" "$S/garbage"
    [[ $output == *"ermission"* ]]
    run -1 timeout 60 "$K42CTL" upgrade "$S/mnt" "$S/none"
    exec 7>&-
    [ "$(wc -l <"$S/src/held")" = 3 ]
    timeout 20 "$K42CTL" status "$S/mnt" >"$S/status"
    cat "$S/status"
    grep '^downgrades: 3$' "$S/status"
    grep '^upgrades: 0$' "$S/status"
    k42_find_worker
    [ "$(readlink "/proc/$K42_WORKER/exe")" = "$(realpath "$K42FS")" ]
}

@test "umount while there is no worker, and while it hangs" {
    k42_mount
    k42_expect_log 'the worker was killed by signal 9'
    kill -STOP "$K42_WORKER"
    timeout 20 umount "$S/mnt" &
    PIDS+=($!)
    sleep 0.2
    kill -KILL "$K42_WORKER"
    wait "${PIDS[0]}"
    PIDS=()
    local keeper=${K42_DAEMONS[0]%%:*}
    wait "$keeper"
    [ ! -e "$S/state" ]
}

@test "SIGTERM while the worker is killed" {
    local round # (run sets i)
    k42_expect_log 'the worker was killed by signal 9'
    for round in 1 2 3; do
        k42_mount
        kill -KILL "$K42_WORKER"
        kill -TERM "$K42_HOLDER"
        wait "${K42_DAEMONS[-1]%%:*}"
        [ ! -e "$S/state" ]
        run ! mountpoint -q "$S/mnt"
    done
}

@test "workers that always fail: the mount is given up, cleanly" {
    local status=0
    k42_mount
    k42_expect_log '.'
    # another version's: no worker of this one can go on
    printf '\377\0\0\0' | dd of="$S/state/keep" conv=notrunc bs=1 seek=8 status=none
    kill -KILL "$K42_WORKER"
    wait "${K42_DAEMONS[-1]%%:*}" || status=$?
    [ $status = 1 ]
    grep "mnt: 15 workers in a row failed, .* the mount is given up" "$S/log.0"
    [ ! -e "$S/state" ]
    run ! mountpoint -q "$S/mnt"
}

@test "the holder is killed: the worker ends the mount, and nothing is left" {
    local i
    k42_mount
    kill -KILL "$K42_HOLDER"
    for ((i = 0; i < 100; i++)); do [ -e "/proc/$K42_WORKER" ] || break; sleep 0.1; done
    [ ! -e "/proc/$K42_WORKER" ]
    run ! mountpoint -q "$S/mnt"
    [ ! -e "$S/state" ]
}

@test "holder and worker are killed: said everywhere, cleared by k42ctl umount" {
    local link
    k42_mount
    link=/run/k42fs/@$(stat -c '%Hd:%Ld' "$S/mnt")
    k42_kill_daemon
    for verb in status list stats; do
        run -1 timeout 20 "$K42CTL" $verb "$S/mnt"
        [[ $output == *"is dead"*"k42ctl umount"* ]]
    done
    run -1 timeout 20 "$K42FS" -o "state=$S/state2" "$S/src" "$S/mnt"
    [[ $output == *"dead FUSE mount"* ]]
    run -0 timeout 20 "$K42CTL" umount "$S/mnt"
    run ! mountpoint -q "$S/mnt"
    [ ! -e "$S/state" ]
    [ "$(id -u)" != 0 ] || [ ! -L "$link" ]
}

# managed: a daemon under a service manager that keeps its descriptors; its lines are in $S/managed.
managed() {
    timeout 200 python3 "$K42_TESTS/survive/manager.py" "$S/notify" "$K42FS" -f -o "fdstore,state=$S/state" "$S/src" "$S/mnt" \
        >"$S/managed" 2>"$S/log.managed" </dev/null 3>&- &
    MANAGER=$!
    PIDS+=("$MANAGER")
    manager_said 1 '^ready'
}

# manager_said N REGEX: waits until N lines match.
manager_said() {
    local i
    for ((i = 0; i < 200; i++)); do
        [ "$(grep -c "$2" "$S/managed")" -ge "$1" ] && return
        sleep 0.05
    done
    cat "$S/managed" "$S/log.managed"
    return 1
}

@test "a service manager keeps the mount: restarts and kill -9 of the holder" {
    local i
    [ "$(id -u)" = 0 ] || skip "not root"
    managed
    # held: by name, unlinked, and one that goes on being written to
    exec 6<>"$S/mnt/held" 7>"$S/mnt/gone"
    rm "$S/mnt/gone"
    for ((i = 1; i <= 4; i++)); do
        if [ $((i % 2)) = 1 ]; then
            kill -HUP "$(pgrep -P "$MANAGER" -f manager.py)"
        else
            kill -KILL "$(timeout 20 "$K42CTL" status --json "$S/mnt" | sed -n 's/.*"holder_pid" *: *\([0-9]*\).*/\1/p')"
        fi
        manager_said $((i + 1)) '^ready'
        echo "$i" >&6
        echo "$i" >&7
        timeout 20 ls "$S/mnt" | grep -q '^held$'
    done
    grep -q 'k42-control k42-fuse k42-lock k42-source k42-state' <(sed 's/k42-p-[^ ]* *//g' "$S/managed")
    [ "$(cat "$S/src/held" | wc -l)" = 4 ]
    [ "$(stat -L -c %s /proc/self/fd/7)" = 8 ]
    exec 6<&- 7>&-
    timeout 30 "$K42CTL" umount "$S/mnt"
    manager_said 1 '^kept$'
    wait "$MANAGER" || true
    PIDS=()
    run ! mountpoint -q "$S/mnt"
    [ ! -e "$S/state" ]
}
