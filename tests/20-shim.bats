#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# k42run, and the shim where there is no mount: nothing may change.

load lib

setup() { k42_scratch; }
teardown() { k42_cleanup; }

# The same commands with and without the shim, in directories of their own; output and status are equal.
same() {
    local with
    for with in native shim; do
        rm -rf "$S/$with" && mkdir "$S/$with"
        local run=(); [ $with = native ] || run=("$K42RUN" --)
        local status=0
        (cd "$S/$with" && timeout 60 "${run[@]}" bash -c "$1" >"$S/$with.out" 2>"$S/$with.err" </dev/null) || status=$?
        echo "status $status" >>"$S/$with.out"
    done
    diff "$S/native.out" "$S/shim.out"
    diff "$S/native.err" "$S/shim.err"
    diff -r "$S/native" "$S/shim"
}

@test "k42run: the status is the command's" {
    run -0 "$K42RUN" true
    run -7 "$K42RUN" sh -c 'exit 7'
    run -143 bash -c '"$K42RUN" sh -c "kill -TERM \$\$"'
    run -127 "$K42RUN" "$S/no such command"
    touch "$S/not executable"
    run -126 "$K42RUN" "$S/not executable"
}

@test "k42run: usage errors are one line and status 2" {
    local args
    for args in "" "--nonsense true" "--fork=privat true" "--fork=x true" "--fork"; do
        run --separate-stderr -2 "$K42RUN" $args
        [ "${#stderr_lines[@]}" = 1 ]
        [[ ${stderr_lines[0]} == "k42run: "* ]]
    done
    run -0 "$K42RUN" --version
    run -0 "$K42RUN" --help
}

@test "k42run: the command's own options and a former LD_PRELOAD stay" {
    run -0 "$K42RUN" echo --version -- --fork=x
    [ "$output" = "--version -- --fork=x" ]
    run -0 "$K42RUN" --fork=shared -- printenv K42_FORK
    [ "$output" = shared ]
    run -0 "$K42RUN" --fork=private printenv K42_FORK
    [ "$output" = private ]
    run -0 env K42_FORK=private "$K42RUN" printenv K42_FORK
    [ "$output" = private ]
    run -1 env -u K42_FORK "$K42RUN" printenv K42_FORK
    run -0 env LD_PRELOAD=libm.so.6 "$K42RUN" printenv LD_PRELOAD
    [ "$output" = "$K42SHIM:libm.so.6" ]
    run -0 "$K42RUN" "$K42RUN" printenv LD_PRELOAD
    [ "$output" = "$K42SHIM" ]
    run -0 env LD_PRELOAD="$K42SHIM.1" "$K42RUN" printenv LD_PRELOAD
    [ "${lines[-1]}" = "$K42SHIM:$K42SHIM.1" ] # another library, whose name begins like that
}

@test "k42run --check: dynamic, script, static, missing" {
    run -0 "$K42RUN" --check cat
    [[ $output == *"dynamically linked"*"stdio: covered"*"T read"*"B open"*"covered: yes"* ]]
    printf '#!/bin/sh\n' >"$S/script" && chmod +x "$S/script"
    run -0 "$K42RUN" --check "$S/script"
    [[ $output == *"a script for /bin/sh"*"covered: yes"* ]]
    echo 'int main(void) { return 0; }' >"$S/s.c"
    cc -static -o "$S/static" "$S/s.c"
    run -1 "$K42RUN" --check "$S/static"
    [[ $output == *"statically linked"*"covered: no"* ]]
    run -127 "$K42RUN" --check "$S/missing"
    printf 'a\0b\n' >"$S/other" && chmod +x "$S/other"
    run -1 "$K42RUN" --check "$S/other"
    echo 'echo run by sh' >"$S/plain" && chmod +x "$S/plain"
    run -0 "$K42RUN" --check "$S/plain"
    [[ $output == *"a script for /bin/sh"*"covered: yes"* ]]
    run -0 "$K42RUN" "$S/plain"
    [ "$output" = "run by sh" ]
}

@test "k42run --check: the fork mode" {
    run -0 env -u K42_FORK "$K42RUN" --check cat
    [[ $output == *"fork: as the mount says"* ]]
    run -0 "$K42RUN" --fork=private --check cat
    [[ $output == *"fork: private"*"T read"*"covered: yes"* ]]
    run -0 env K42_FORK=private "$K42RUN" --fork=shared --check cat
    [[ $output == *"fork: shared"* ]]
}

@test "k42run --check: setuid, as the user who would get the rights" {
    [ "$(id -u)" = 0 ] || skip "not root: cannot make a setuid program of somebody else's"
    cp /bin/cat "$S/setuid" && chmod 4755 "$S/setuid"
    chmod 755 "$S"
    # the build tree may be closed to others: a copy is not
    mkdir -p "$S/b/ctl" "$S/b/shim" && cp "$K42RUN" "$S/b/ctl" && cp "$K42SHIM" "$S/b/shim"
    run -1 setpriv --reuid=65534 --regid=65534 --clear-groups "$S/b/ctl/k42run" --check "$S/setuid"
    [[ $output == *"setuid: the loader ignores preloads"* ]]
}

@test "a static program runs as ever" {
    printf '#include <stdio.h>\nint main(void) { puts("static"); return 3; }\n' >"$S/s.c"
    cc -static -o "$S/static" "$S/s.c"
    run -3 "$K42RUN" "$S/static"
    [ "$output" = static ]
}

@test "shells, pipelines and their descriptors" {
    same 'exec 5>f; echo one >&5; (echo two >&5; echo three >>f); exec 5>&-; cat f; while read -r l; do echo "$l."; done <f'
    same 'seq 20000 | sort -rn | awk "NR % 1000 == 0" | tee t | sed s/0/o/ | xz | xz -d | tr o 0 | md5sum; cmp t t'
    same 'cat <<<here; cat <(echo a) <(echo b); echo "$(echo c | rev)"; exec 3<>rw; echo x >&3; ls /proc/self/fd | wc -l'
    same 'diff <(echo a) <(echo b); ls /nowhere; false'
}

@test "tar, git, perl, find" {
    same 'mkdir d; for i in $(seq 50); do echo $i >d/$i; done; tar -cf - d | (mkdir e; tar -C e -xf -); diff -r d e/d && echo same; rm -r d e'
    same 'export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE=@1+0000 GIT_COMMITTER_DATE=@1+0000; git init -q r; cd r; echo x >x; git add x; git -c user.name=a -c user.email=a@b commit -qm x; git fsck; git rev-parse HEAD; cd ..; rm -rf r'
    same 'perl -e "open F, q(>), q(f); print F 1..100; close F; if (my \$p = fork) { waitpid \$p, 0 } else { open F, q(<), q(f); print scalar <F>; exit }; print qq(\n)"'
    same 'mkdir -p a/b/c; touch a/b/c/f; find . -type f; find . -name c -printf "%p\n"'
}

@test "python3: fork, subprocess, threads, descriptors beyond 1,024" {
    same 'python3 - <<EOP
import os, resource, subprocess, threading
s, h = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(h, 4096), h))
fds = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(2000)]
first = os.read(fds[1500], 10)
pid = os.fork()
if pid == 0:
    assert os.pread(fds[1500], 10, 0) == first and os.read(fds[1999], 10) == first
    os.closerange(3, 3000)
    os._exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(subprocess.run(["cat"], input=b"through", capture_output=True).stdout)
seen = []
ts = [threading.Thread(target=lambda: seen.append(os.pread(fds[7], 4, 0))) for _ in range(20)]
[t.start() for t in ts]; [t.join() for t in ts]
print(len(seen), set(seen) == {first[:4]})
os.dup2(fds[3], 3500); os.set_inheritable(3500, True)
print(subprocess.run(["sh", "-c", "head -c 4 <&\$0 2>/dev/null || head -c 4 /proc/self/fd/3500", "3500"], close_fds=False, capture_output=True).stdout)
EOP'
}

@test "k42run: without the library, or with one that cannot be preloaded, nothing is run" {
    mkdir -p "$S/alone/ctl" "$S/with space/ctl" "$S/with space/shim"
    cp "$K42RUN" "$S/alone/ctl" && cp "$K42RUN" "$S/with space/ctl"
    cp "$K42SHIM" "$S/with space/shim"
    run --separate-stderr -1 "$S/with space/ctl/k42run" touch "$S/ran"
    [[ $stderr == "k42run: "*"space or colon" ]]
    if [ ! -e /usr/local/lib/k42fs/libk42shim.so ] && ! ls /usr/local/lib/*/k42fs/libk42shim.so >/dev/null 2>&1; then
        run --separate-stderr -1 "$S/alone/ctl/k42run" touch "$S/ran"
        [[ $stderr == "k42run: libk42shim.so: not found"* ]]
    fi
    [ ! -e "$S/ran" ]
}

@test "k42run: the process, its signals and its descriptors are the command's own" {
    # the same process: what is sent to it reaches the command
    "$K42RUN" sh -c 'trap "exit 9" USR1; echo >"$0"; while :; do sleep 0.05; done' "$S/up" 3>&- &
    local pid=$! i status=0
    for ((i = 0; i < 200; i++)); do [ -s "$S/up" ] && break; sleep 0.05; done
    kill -USR1 $pid
    wait $pid || status=$?
    [ $status = 9 ]
    # what it inherits, and nothing else
    ls /proc/self/fd >"$S/native"
    "$K42RUN" ls /proc/self/fd >"$S/shim"
    diff "$S/native" "$S/shim"
    # signals that were ignored stay so
    run -0 bash -c 'trap "" HUP; "$K42RUN" sh -c "kill -HUP \$\$; exit 0"'
    # 128 + n, as a shell says it
    local n
    for n in 1 6 9 13 14 15; do
        run -$((128 + n)) bash -c '"$K42RUN" sh -c "kill -$0 \$\$" & wait $!' $n
    done
}

@test "k42run --check: a script of a script, and one without a covered end" {
    cc -static -x c -o "$S/static" - <<<'int main(void) { return 0; }' || skip "cannot link statically"
    printf '#!%s\n' "$S/static" >"$S/one" && printf '#! %s -x\n' "$S/one" >"$S/two"
    chmod +x "$S/one" "$S/two"
    run -1 "$K42RUN" --check "$S/two"
    [[ $output == *"$S/two: a script for $S/one"*"$S/one: a script for $S/static"*"statically linked"*"covered: no"* ]]
    printf '#!%s\n' "$S/loop" >"$S/loop" && chmod +x "$S/loop"
    run -1 timeout 10 "$K42RUN" --check "$S/loop"
    printf '#!/nowhere/sh\n' >"$S/lost" && chmod +x "$S/lost"
    run -1 "$K42RUN" --check "$S/lost"
    [[ $output == *"/nowhere/sh: cannot be read"* ]]
    head -c 40 /bin/cat >"$S/cut" && chmod +x "$S/cut"
    run -1 "$K42RUN" --check "$S/cut"
    : >"$S/empty" && chmod +x "$S/empty"
    run -0 "$K42RUN" --check "$S/empty" # to execvp() a script, if a short one
    run -0 "$K42RUN" "$S/empty"
}

@test "programs that close everything, become daemons, read in handlers: with k42run as without" {
    local case
    for case in atfork borrowed raw-clone close-all signals spawns daemons errors stdio; do
        run -0 timeout 60 "$K42_BUILD/tests/shim/quirks" $case
        run -0 timeout 60 "$K42RUN" "$K42_BUILD/tests/shim/quirks" $case
    done
}

@test "make, rsync, sqlite3, dd, xargs, coprocesses" {
    same 'printf "all: a b\n\tcat a b >c\na b:\n\techo \$@ >\$@\n" >Makefile; make -j3 -s; cat c; make -s; rm Makefile'
    same 'mkdir d; for i in $(seq 30); do seq $i >d/$i; done; rsync -a d/ e; rsync -ac --itemize-changes d/ e; diff -r d e && echo same'
    same 'sqlite3 db "create table t(x); insert into t values(1),(2); select sum(x) from t"; sqlite3 db "pragma integrity_check"; rm db'
    same 'dd if=/dev/zero bs=1000 count=100 2>/dev/null | dd bs=777 2>/dev/null | wc -c; seq 100 | xargs -n 7 -P 1 echo | md5sum'
    same 'coproc cat; echo through >&"${COPROC[1]}"; read -r l <&"${COPROC[0]}"; echo "$l"; exec {COPROC[1]}>&-; wait'
    same 'exec 9>lock; flock 9; (flock -n 9 && echo shared; flock -u 9); exec 8>lock; flock -n 8 && echo free'
    same 'ulimit -n 20; for i in $(seq 30); do eval "exec {f$i}<>f" 2>/dev/null || { echo "full"; break; }; done'
}

@test "files of a disk file system cost no message" {
    command -v strace >/dev/null || skip "no strace"
    case $(stat -f -c %T "$S") in ext2/ext3|xfs) ;; *) skip "the scratch directory is on $(stat -f -c %T "$S")" ;; esac
    local file=$S/file number='0x4b, 0xa0'
    trace() { # FILE: how many messages a shell and its children send about it
        echo content >"$1"
        strace -f -e trace=ioctl -o "$S/trace" "$K42RUN" bash -c \
            'exec 7<"$0"; (read -r l <&7; echo $l); cat <&7' "$1" >/dev/null
        grep -c "$number" "$S/trace"
    }
    # a file without a device is asked about: what follows would be seen
    case $(stat -f -c %T /dev/shm) in
    tmpfs) [ "$(trace "/dev/shm/${S##*/}" || true)" -gt 0 ]; rm "/dev/shm/${S##*/}" ;;
    *) echo "# /dev/shm is no tmpfs: not compared" >&3 ;;
    esac
    [ "$(trace "$file" || true)" = 0 ]
}

# least COMMAND…: the least of the numbers that several runs print.
least() {
    local i n least=
    for ((i = 0; i < 12; i++)); do
        n=$("$@")
        [ -n "$least" ] && [ "$n" -ge "$least" ] || least=$n
    done
    echo "$least"
}

# A page costs more than all else that the library does at a fork, and unlike time it can be counted.  The least of
# several runs, because where a page of the stack ends is another place in each.
@test "a fork with nothing of a mount open copies no page for the library in the parent" {
    local faults=$K42_BUILD/tests/shim/fork_faults without with mode
    without=$(least "$faults" /dev/null)
    for mode in shared private ""; do
        with=$(K42_FORK=$mode least timeout 60 "$K42RUN" "$faults" /dev/null)
        echo "200 forks, K42_FORK='$mode': $with page faults, $without without the library"
        [ "$with" -le $((without + 20)) ]
    done
}
