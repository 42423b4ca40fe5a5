#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# programs.sh DIR: real programs that fork and inherit, in an empty directory DIR.  The output says what
# they saw and must not depend on the place: whoever runs it compares it with another place's.
# Programs that are not there are left out, which is the same everywhere on one machine.
set -u
cd "$1" || exit 1
here=$PWD
export LC_ALL=C TZ=UTC HOME=$PWD
say() { echo "== $*"; }

say shell: one offset for several commands
(echo a; echo b; /bin/echo c) >f
(echo d; exec /bin/echo e) >>f
cat f
while read -r line; do echo "<$line>"; [ "$line" = c ] && break; done <f
{ read -r one; (read -r two; echo "$two"); read -r three; echo "$one $three"; } <f
exec 5<f
read -r x <&5; (read -r y <&5; echo "$y"); /bin/sh -c 'read -r z <&5; echo "$z"'; read -r w <&5; echo "$x $w"
exec 5<&-

say pipes and filters
seq 1 20000 >numbers
sort -rn numbers | head -n 3
sort numbers | uniq | wc -l
split -l 5000 numbers part.
cat part.* | cmp - numbers && echo split and joined
find . -type f -name 'part.*' | sort | xargs -n 1 -P 4 cksum | sort
dd if=numbers of=copy bs=1000 skip=3 count=5 status=none; cksum <copy
(dd bs=100 count=1 status=none; dd bs=100 count=1 status=none) <numbers | cksum
gzip -n <numbers | gzip -d | cksum
mkdir tree && cp part.* tree/ && tar cf tree.tar --sort=name --owner=0 --group=0 --mtime=@0 tree
tar xf tree.tar --one-top-level=again && diff -r tree again/tree && echo tarred
(cd tree && tar cf - .) | (mkdir piped && cd piped && tar xf -) && diff -r tree piped && echo piped

say locks
flock -n f -c 'flock -n f true && echo wrong || echo held'
(flock -n 9 && /bin/sh -c 'flock -n f true && echo wrong || echo held') 9<f

say python
python3 - <<'PY'
import multiprocessing, os, sqlite3, subprocess, zipfile
with open("py", "w+") as f:
    f.write("line %d\n" % 1)
    f.flush()
    if os.fork() == 0:
        f.write("child\n"); f.flush(); os._exit(0)
    os.wait()
    f.write("parent\n"); f.flush(); f.seek(0)
    print(f.read())
with open("numbers") as f:
    print(f.readline().strip(), subprocess.run(["head", "-c", "6"], stdin=f, capture_output=True).stdout)
    print(os.lseek(f.fileno(), 0, os.SEEK_CUR))
fd = os.open("numbers", os.O_RDONLY)
def at(i):
    return os.pread(fd, 5, i * 100).decode().split()[0]
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(sum(map(int, pool.map(at, range(500)))))
pid = os.posix_spawn("/usr/bin/cksum", ["cksum"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, fd, 0)])
os.waitpid(pid, 0)
print(os.lseek(fd, 0, os.SEEK_CUR))
with zipfile.ZipFile("z.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for i in range(50):
        z.writestr("m%d" % i, str(i) * 1000)
with zipfile.ZipFile("z.zip") as z:
    print(z.testzip(), sum(len(z.read(n)) for n in z.namelist()))
db = sqlite3.connect("db.sqlite")
db.execute("create table t (a int)")
db.executemany("insert into t values (?)", [(i,) for i in range(1000)])
db.commit(); db.close()
if os.fork() == 0:
    print(sqlite3.connect("db.sqlite").execute("select sum(a), count(*) from t").fetchone(), flush=True)
    os._exit(0)
os.wait()
PY

if command -v perl >/dev/null; then
    say perl
    perl -e 'open(my $f, "<", "f") or die; my $l = <$f>; print $l; $| = 1;
        if (fork == 0) { my @rest = <$f>; print scalar(@rest), "\n"; exit 0 } wait;
        open(my $p, "-|", "cat", "f"); print <$p>; close $p; print `wc -l <f`;'
fi

if command -v git >/dev/null; then
    say git
    export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
    export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
    git init -q -b main repo && cd repo && cp ../part.* . && git add . &&
        git -c user.name=n -c user.email=e commit -qm one && git rm -q part.aa &&
        git -c user.name=n -c user.email=e commit -qm two && git gc -q && git fsck && git log --format=%H
    git archive HEAD | tar t
    cd ..
fi

cd / && rm -rf "${here:?}"/* && echo done
