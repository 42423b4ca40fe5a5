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
    for args in "" "--nonsense true" "--fork=private true" "--fork=x true" "--fork"; do
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
    run -0 "$K42RUN" -- printenv K42_FORK
    [ "$output" = shared ]
    run -0 env LD_PRELOAD=libm.so.6 "$K42RUN" printenv LD_PRELOAD
    [ "$output" = "$K42SHIM:libm.so.6" ]
    run -0 "$K42RUN" "$K42RUN" printenv LD_PRELOAD
    [ "$output" = "$K42SHIM" ]
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
    printf 'nothing' >"$S/other" && chmod +x "$S/other"
    run -1 "$K42RUN" --check "$S/other"
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

@test "files of a disk file system cost no message" {
    command -v strace >/dev/null || skip "no strace"
    echo content >"$S/file"
    case $(stat -f -c %T "$S") in ext2/ext3|xfs) ;; *) skip "the scratch directory is on $(stat -f -c %T "$S")" ;; esac
    strace -f -e trace=ioctl -o "$S/trace" "$K42RUN" bash -c "exec 7<'$S/file'; (read -r l <&7; echo \$l); cat <&7"
    run ! grep -E "0x4b, 0xa0|_IOC_READ\|_IOC_WRITE, 0x4b" "$S/trace"
}
