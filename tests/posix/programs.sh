#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# programs.sh NAME DIR: does an everyday job in DIR (made fresh) with everyday programs, and prints what came out.
# The output must not depend on where DIR is, so that it can be compared between a directory and a mount of it.
# Exits with 77 and a line "SKIP: why" if the job cannot be done on this machine.
set -eu -o pipefail
export LC_ALL=C LANG=C TZ=UTC
umask 022
top=$(cd "$(dirname "$0")/../.." && pwd)
python=/usr/bin/python3

need() {
    local word
    for word; do
        command -v "$word" >/dev/null || { echo "SKIP: no $word on this machine"; exit 77; }
    done
}

# A tree with every kind of file and attribute that an ordinary archive can hold.
make_tree() {
    local i
    mkdir -p "$1"/{a,b/c/d,empty}
    for i in $(seq 200); do printf 'file %d\n%*s\n' "$i" "$i" x >"$1/a/f$i"; done
    head -c 300000 /dev/zero | tr '\0' 'z' >"$1/b/large"
    truncate -s 1M "$1/b/c/sparse"
    printf middle | dd of="$1/b/c/sparse" bs=1 seek=500000 conv=notrunc status=none
    ln "$1/a/f1" "$1/b/hardlink"
    ln -s ../a/f2 "$1/b/symlink"
    ln -s nowhere "$1/b/dangling"
    mkfifo "$1/b/fifo"
    printf '#!/bin/sh\necho hello\n' >"$1/b/c/d/script"
    chmod 755 "$1/b/c/d/script"
    chmod 600 "$1/a/f3"
    chmod 444 "$1/a/f4"
    chmod 1777 "$1/empty"
    : >"$1/b/name with spaces"
    : >"$1/b/"$'new\nline'
    touch -d '2001-02-03 04:05:06.789012345' "$1/a/f5" "$1/b"
    # rsync compares whole seconds of what is not a regular file
    touch -h -d '1999-12-31 23:59:59' "$1/b/symlink" "$1/b/dangling" "$1/b/fifo"
    if command -v setfattr >/dev/null; then setfattr -n user.colour -v blue "$1/a/f6"; fi
    if command -v setfacl >/dev/null; then setfacl -m u:65534:r "$1/a/f7"; fi
    if [ "$(id -u)" = 0 ]; then chown 1234:5678 "$1/a/f8"; fi
}

# Everything that stat, getfattr and sha256sum know of a tree, times to the nanosecond for what is not a directory.
describe() {
    (
        cd "$1"
        find . ! -type d -printf '%y %m %n %U:%G %s %T@ %p -> %l\n' | sort
        find . -type d -printf '%y %m %U:%G %p\n' | sort
        find . -type f -print0 | sort -z | xargs -0 sha256sum
        if command -v getfattr >/dev/null; then getfattr -R -h -d -m - . 2>/dev/null | sort; fi
    )
}

prog_git() {
    need git
    export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
    git config --global user.name Tester
    git config --global user.email tester@example.org
    git config --global --add safe.directory '*'
    git config --global init.defaultBranch main
    local from=$top i
    if ! git -C "$top" rev-parse HEAD >/dev/null 2>&1; then
        git init -q made
        make_tree made
        git -C made add -A
        git -C made commit -qm first
        from=$PWD/made
    fi
    git clone -q "$from" clone
    cd clone
    git fsck --full 2>&1 | grep -v '^dangling' || true
    git checkout -q -b work
    for i in 1 2 3 4 5; do
        echo "line $i" >>added
        git add added
        git commit -qm "commit $i"
    done
    git mv added moved
    git commit -qam 'Move'
    git checkout -q -b side HEAD~3
    echo side >side
    git add side
    git commit -qm side
    git merge -q -m merged work
    git gc -q
    git fsck --full 2>&1 | grep -v '^dangling' || true
    git status --short
    git log -n 20 --format='%H %s'
    git ls-files -s | sha256sum
    git stash list
    git rebase -q HEAD~1 2>&1 || true
    git grep -c line -- moved
}

prog_tar() {
    make_tree tree
    tar -c --xattrs --acls --sort=name -f one.tar tree
    mkdir there back
    tar -x --xattrs --acls -p -f one.tar -C there
    describe tree >tree.txt
    describe there/tree >there.txt
    diff tree.txt there.txt && echo 'unpacked the same'
    tar -c --sort=name -C there tree | tar -x -p -C back
    (cd tree && find . -type f -print0 | sort -z | xargs -0 sha256sum) >sums
    (cd back/tree && sha256sum --quiet -c ../../sums) && echo 'piped the same'
    tar -d -f one.tar && echo 'tar finds no difference'
    tar -czf z.tar.gz tree && tar -tzf z.tar.gz | sort | sha256sum
    sha256sum <sums
}

prog_build() {
    local targets=()
    need meson ninja
    # the tracked files only: a checkout may have build trees beside them
    mkdir project
    if git -C "$top" rev-parse HEAD >/dev/null 2>&1; then
        (cd "$top" && git ls-files -z | xargs -0 cp --parents -t "$OLDPWD/project")
    else
        tar -c -C "$top" --exclude='./build*' . | tar -x -C project
    fi
    cd project
    meson setup build >setup.log 2>&1 || { tail -n 20 setup.log; return 1; }
    # all of it takes minutes
    [ -n "${K42_SOAK:-}" ] || targets=(ctl/k42run tests/posix/parity)
    ninja -C build "${targets[@]}" >ninja.log 2>&1 || { tail -n 20 ninja.log; return 1; }
    ninja -C build -n "${targets[@]}" 2>&1 | tail -n 1
    build/ctl/k42run --version
    build/tests/posix/parity --list | sha256sum
}

prog_sqlite() {
    need sqlite3
    local mode i
    for mode in delete wal truncate persist; do
        {
            echo "PRAGMA journal_mode=$mode;"
            echo 'CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);'
            for ((i = 0; i < 250; i++)); do
                echo "BEGIN; INSERT INTO t (v) VALUES ('row $i'); UPDATE t SET v = v || '.' WHERE id % 7 = $i % 7; COMMIT;"
            done
            echo 'SELECT count(*), sum(length(v)) FROM t; PRAGMA integrity_check;'
        } | sqlite3 -bail "db-$mode"
    done
    # four writers at once: every row must be there
    sqlite3 -bail shared 'PRAGMA journal_mode=wal; CREATE TABLE t (w, i);' >/dev/null
    for mode in 1 2 3 4; do
        (for ((i = 0; i < 25; i++)); do
            sqlite3 -cmd '.timeout 60000' shared "INSERT INTO t VALUES ($mode, $i);"
        done) &
    done
    wait
    sqlite3 shared 'SELECT w, count(*) FROM t GROUP BY w; PRAGMA integrity_check;'
}

prog_python() {
    need $python
    if $python -c 'import test.test_shutil' 2>/dev/null; then
        mkdir tmp
        TMPDIR=$PWD/tmp $python -m test -q --tempdir "$PWD/tmp" test_shutil test_tempfile test_zipfile 2>&1 |
            grep -o 'Result: .*\|^test .* failed.*' | sort -u
    fi
    cat >test_here.py <<'PY'
import fcntl, mailbox, mmap, multiprocessing, os, pathlib, shelve, shutil, sqlite3, tarfile, tempfile, unittest, zipfile
HERE = os.getcwd()


def append(n):
    with open("appended", "a") as f:
        f.write(f"{n}\n")


class Here(unittest.TestCase):
    def setUp(self):
        self.d = pathlib.Path(tempfile.mkdtemp(dir=HERE))

    def tearDown(self):
        shutil.rmtree(self.d)
        self.assertFalse(self.d.exists())

    def test_zipfile(self):
        with zipfile.ZipFile(self.d / "z.zip", "w", zipfile.ZIP_DEFLATED) as z:
            for i in range(100):
                z.writestr(f"m{i}", b"x" * i * 100)
        with zipfile.ZipFile(self.d / "z.zip", "a") as z:
            z.writestr("last", "l")
        with zipfile.ZipFile(self.d / "z.zip") as z:
            self.assertIsNone(z.testzip())
            self.assertEqual(len(z.namelist()), 101)

    def test_shutil(self):
        (self.d / "a" / "b").mkdir(parents=True)
        f = self.d / "a" / "b" / "f"
        f.write_bytes(os.urandom(3000000))
        f.chmod(0o640)
        os.utime(f, ns=(1234567890123456789, 987654321987654321))
        os.symlink("b/f", self.d / "a" / "l")
        shutil.copytree(self.d / "a", self.d / "c", symlinks=True)
        g = self.d / "c" / "b" / "f"
        self.assertEqual(f.read_bytes(), g.read_bytes())
        self.assertEqual(f.stat().st_mtime_ns, g.stat().st_mtime_ns)
        self.assertEqual(f.stat().st_mode, g.stat().st_mode)
        shutil.move(self.d / "c", self.d / "e")
        self.assertEqual(os.readlink(self.d / "e" / "l"), "b/f")
        shutil.make_archive(str(self.d / "t"), "gztar", self.d / "a")
        with tarfile.open(self.d / "t.tar.gz") as t:
            self.assertIn("./b/f", t.getnames())

    def test_tempfile(self):
        with tempfile.TemporaryFile(dir=self.d) as t:
            t.write(b"hidden")
            t.seek(0)
            self.assertEqual(t.read(), b"hidden")
        self.assertEqual(list(self.d.iterdir()), [])
        with tempfile.NamedTemporaryFile(dir=self.d) as t:
            self.assertTrue(os.path.exists(t.name))
        with tempfile.SpooledTemporaryFile(max_size=10, dir=self.d) as t:
            t.write(b"x" * 100)
            t.seek(0)
            self.assertEqual(len(t.read()), 100)

    def test_mailbox(self):
        for kind in (mailbox.Maildir, mailbox.mbox, mailbox.MH):
            box = kind(str(self.d / kind.__name__))
            box.lock()
            for i in range(20):
                box.add(f"Subject: {i}\n\nbody {i}\n")
            box.flush()
            box.remove(box.keys()[3])
            box.flush()
            box.unlock()
            box.close()
            self.assertEqual(len(kind(str(self.d / kind.__name__))), 19)

    def test_mmap(self):
        with open(self.d / "m", "w+b") as f:
            f.truncate(100000)
            with mmap.mmap(f.fileno(), 0) as m:
                m[50000:50005] = b"hello"
                m.flush()
                self.assertEqual(os.pread(f.fileno(), 5, 50000), b"hello")
                m.resize(200000)
                m[199999] = 1
            self.assertEqual(os.fstat(f.fileno()).st_size, 200000)

    def test_shelve_and_sqlite(self):
        with shelve.open(str(self.d / "s")) as s:
            for i in range(100):
                s[str(i)] = list(range(i))
        with shelve.open(str(self.d / "s")) as s:
            self.assertEqual(s["99"][-1], 98)
        db = sqlite3.connect(self.d / "db")
        with db:
            db.execute("create table t(x)")
            db.executemany("insert into t values(?)", ((i,) for i in range(1000)))
        self.assertEqual(db.execute("select sum(x) from t").fetchone()[0], 499500)
        db.close()

    def test_pool(self):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.map(append, range(400))
        with open("appended") as f:
            self.assertEqual(sorted(map(int, f)), list(range(400)))
        os.unlink("appended")

    def test_lock(self):
        with open(self.d / "l", "w") as f:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pid = os.fork()
            if pid == 0:
                with open(self.d / "l", "w") as g:
                    try:
                        fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os._exit(1)
                    except BlockingIOError:
                        os._exit(0)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)

PY
    $python -B -W ignore -m unittest -v test_here 2>&1 | sed 's/ in [0-9.]*s$//'
}

prog_cp() {
    make_tree tree
    cp -a tree copy
    describe tree >tree.txt
    describe copy >copy.txt
    diff tree.txt copy.txt && echo 'the same'
    cp -al tree linked
    [ "$(stat -c %h tree/a/f9)" = 2 ] && echo 'linked'
    cp --sparse=always tree/b/c/sparse sparse2
    stat -c '%s %b' tree/b/c/sparse sparse2
    cp --reflink=auto tree/b/large large2 && cmp tree/b/large large2 && echo 'reflink=auto copies'
    mv copy moved
    diff <(describe moved) copy.txt && echo 'moved'
    mv moved "$OUTSIDE/moved"
    diff <(describe "$OUTSIDE/moved") copy.txt && echo 'moved to another file system'
    mv "$OUTSIDE/moved" again
    diff <(describe again) copy.txt && echo 'and back'
    rm -rf again linked tree
    ls
}

prog_rsync() {
    need rsync
    make_tree tree
    rsync -aHAX tree/ copy/
    describe tree >tree.txt
    describe copy >copy.txt
    diff tree.txt copy.txt && echo 'the same'
    echo 'second run:'
    rsync -aHAXi tree/ copy/
    echo 'third run, by checksum:'
    rsync -aHAXic tree/ copy/
    echo more >>tree/a/f10
    touch -d '2020-01-01' tree/a/f10
    rm tree/a/f11
    chmod 700 tree/a/f12
    echo 'after three changes:'
    rsync -aHAXi --delete tree/ copy/ | grep -v '^\.d' || true
    rsync -aHAX --inplace --append tree/ copy/
    diff <(describe tree) <(describe copy) && echo 'the same again'
}

prog_find() {
    make_tree tree
    cd tree
    local p
    for p in '-type f' '-type d' '-type l' '-type p' '-size +100k' '-size -2' '-empty' '-perm 600' '-perm -1000' \
        '-perm /111' '-links +1' '-name *f1*' '-iname *F2*' '-newer a/f5' '-not -newer a/f5' '-mtime +1000' \
        '-maxdepth 1' '-mindepth 3' '-xtype l' '-lname *f2' '-samefile a/f1' '-readable' '-executable' '-writable' \
        '-user 0' '-nouser' '-path */c/*' '-regex .*f[0-9]' '-fstype none' '-mount' '-noleaf' '-depth' '-follow'; do
        echo "== $p"
        # shellcheck disable=SC2086
        (set -f; find . $p -print0 2>&1) | tr '\0\n' '\n?' | sort
    done
    find . -type f -name 'f1*' -delete
    find . | sort | sha256sum
    du -s --apparent-size a b/c
    ls -lRn --time-style=+%s . | awk '{ $6 = "-"; print }' | sha256sum
}

prog_perl() {
    need perl
    make_tree tree
    perl - <<'PL'
use strict; use warnings;
use Fcntl ':flock'; use File::Find; use File::Copy; use File::Temp; use File::stat ();
my @tests = qw(-e -f -d -l -p -S -b -c -r -w -x -o -R -W -X -O -z -s -u -g -k -T -B);
for my $p (qw(tree tree/a/f1 tree/a/f3 tree/a/f4 tree/b/symlink tree/b/dangling tree/b/c/d/script
              tree/b/c/sparse tree/empty tree/none)) {
    for my $t (@tests) {
        next if $p =~ /fifo/ && $t =~ /[TB]/;
        my $v = eval "$t '$p'";
        printf "%s %s %s\n", $t, $p, defined $v ? $v eq '' ? 'no' : $v : 'undef';
    }
}
my $n = 0;
find(sub { $n++ }, 'tree');
print "found $n\n";
copy('tree/b/large', 'large') or die $!;
move('large', 'larger') or die $!;
printf "%d\n", -s 'larger';
open my $f, '+<', 'larger' or die $!;
flock $f, LOCK_EX or die $!;
seek $f, -10, 2; read $f, my $b, 20; print length $b, "\n";
seek $f, 5, 0; print $f 'perl'; truncate $f, 100; close $f;
printf "%d\n", -s 'larger';
open $f, '<', 'larger'; local $/; print unpack('%32C*', <$f>), "\n"; close $f;
my $t = File::Temp->new(DIR => '.'); print $t 'x'; close $t;
print((stat $t->filename)[7], "\n");
opendir my $d, 'tree/a' or die $!; my @e = sort readdir $d; print scalar @e, "\n";
rewinddir $d; my @g = readdir $d; print scalar @g, "\n";
utime 1000, 2000, 'larger'; printf "%d %d\n", (stat 'larger')[8, 9];
PL
}

prog_make() {
    need make gcc
    local i
    {
        echo 'objects = $(patsubst %.c,%.o,$(wildcard m*.c))'
        echo 'program: main.o libm.a'
        printf '\tgcc -o $@ main.o libm.a\n'
        echo 'libm.a: $(objects)'
        printf '\trm -f $@\n\tar rcsD $@ $(sort $^)\n'
        echo '%.o: %.c all.h'
        printf '\tgcc -O1 -c -o $@ $<\n'
    } >Makefile
    echo '#define BASE 40' >all.h
    for i in $(seq 20); do echo "int m$i(void) { return $i; }" >m$i.c; done
    {
        echo '#include <stdio.h>'
        echo '#include "all.h"'
        for i in $(seq 20); do echo "int m$i(void);"; done
        printf 'int main(void) { int n = BASE;'
        for i in $(seq 20); do printf ' n += m%d();' "$i"; done
        echo ' printf("%d\n", n); return 0; }'
    } >main.c
    make -s -j4
    ./program
    make
    sleep 0.02
    echo '#define BASE 50' >all.h
    make -s -j4
    ./program
    touch -d '2000-01-01' m5.c
    make
    rm m7.o
    make -n | sort
}

prog_text() {
    local i
    seq 20000 | sed 's/^/line /' >lines
    sort -R --random-source=/dev/zero lines >shuffled
    sort -S 100k -T . -k2n shuffled | sha256sum
    sort -o shuffled -k2n shuffled && cmp lines shuffled && echo 'sorted in place'
    sed -i.bak 's/line 1\([0-9]*\)$/LINE \1/; 5000,6000d' shuffled
    sha256sum <shuffled
    cmp lines shuffled.bak && echo 'the backup is the original'
    grep -c 'LINE' shuffled
    grep -rn 'line 777$' . | sort
    awk '{ print > "awk-" ($2 % 7) }' lines
    wc -l awk-* | sed 's/^ *//'
    split -l 3000 lines part- && cat part-* | cmp - lines && echo 'split and joined'
    (echo first; echo second) >both
    { echo third; echo fourth; } >>both
    cat both
    while read -r i; do [ "$i" = third ] && break; done <both
    exec 5<both
    read -r i <&5
    (read -r i <&5; echo "the subshell read $i")
    read -r i <&5
    echo "then $i"
    exec 5<&-
    : >followed
    tail -f -n +1 --pid=$$ both >followed & i=$!
    echo fifth >>both
    for _ in $(seq 100); do grep -q fifth followed && break; sleep 0.1; done
    kill "$i"
    cat followed
    tac both | tee teed | rev
    comm -12 <(sort both) <(sort teed) | wc -l
    printf '%s\n' a b c >in-place && tr a-c x-z <in-place | cat >>in-place && cat in-place
    truncate -s 3 in-place && cat in-place
    shred -u in-place && (ls in-place 2>&1 || true) | sed 's/.*: //'
}

prog_dd() {
    dd if=/dev/zero bs=1k count=100 status=none | tr '\0' a >f
    printf XYZ | dd of=f bs=1 seek=1000 conv=notrunc status=none
    stat -c %s f
    printf tail | dd of=f oflag=append conv=notrunc status=none
    tail -c 10 f
    echo
    sha256sum <f
    dd if=f of=g bs=7777 status=none && cmp f g && echo same
    dd if=f of=g bs=4096 skip=3 seek=5 status=none && stat -c '%s' g
    dd if=f of=h bs=1k count=10 conv=fsync oflag=sync status=none && stat -c '%s' h
    dd if=f of=s bs=4k conv=sparse,notrunc status=none && cmp f s && echo 'sparse same'
    dd if=f of=c bs=64k conv=ucase status=none && head -c 5 c
    echo
    dd if=f of=x conv=excl status=none
    (dd if=f of=x conv=excl status=none 2>&1 || true) | sed 's/.*: //'
    (dd if=f of=none conv=nocreat status=none 2>&1 || true) | sed 's/.*: //'
    dd if=f bs=1k count=5 iflag=fullblock status=none | sha256sum
    fallocate -l 100k a && stat -c '%s' a
    fallocate -p -o 4096 -l 8192 f && sha256sum <f
}

prog_mmap() {
    need gcc
    cat >m.c <<'C'
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
/* Four processes fill a quarter each of a shared mapping; read() and another mapping must see all. */
int main(void)
{
        const size_t size = 4 << 20;
        int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0644), i, bad = 0;
        unsigned char *map, *other, buffer[4096];
        size_t at;

        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
                return 1;
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        other = mmap(NULL, size, PROT_READ, MAP_SHARED, open("mapped", O_RDONLY), 0);
        if (map == MAP_FAILED || other == MAP_FAILED)
                return 1;
        for (i = 0; i < 4; i++) {
                if (fork() == 0) {
                        memset(map + (size_t)i * size / 4, 'a' + i, size / 4);
                        _exit(0);
                }
        }
        while (wait(NULL) > 0)
                ;
        for (at = 0; at < size; at += sizeof buffer) {
                if (pread(fd, buffer, sizeof buffer, (off_t)at) != sizeof buffer)
                        return 2;
                bad += memcmp(buffer, map + at, sizeof buffer) != 0;
                bad += memcmp(buffer, other + at, sizeof buffer) != 0;
        }
        printf("%d bad, %c%c%c%c\n", bad, map[0], map[size / 4], map[size / 2], map[size - 1]);
        return msync(map, size, MS_SYNC) != 0;
}
C
    gcc -O1 -o m m.c
    ./m
    sha256sum <mapped
}

prog_append() {
    local p i
    for p in 1 2 3 4 5 6 7 8; do
        (for ((i = 0; i < 1000; i++)); do echo "process $p line $i of a thousand"; done) >>log &
    done
    wait
    wc -l <log
    sort log | sha256sum
    # and by one inherited descriptor
    exec 6>shared
    for p in 1 2 3 4; do
        (for ((i = 0; i < 500; i++)); do echo "process $p line $i" >&6; done) &
    done
    wait
    exec 6>&-
    sort shared | sha256sum
}

prog_flock() {
    need flock
    local p
    echo 0 >counter
    for p in 1 2 3 4 5 6; do
        (for ((i = 0; i < 30; i++)); do
            flock lock sh -c 'read n <counter; echo $((n + 1)) >counter'
        done) &
    done
    wait
    cat counter
    flock lock -c 'flock -n lock -c "echo wrong" || echo "held"'
    exec 7>lock
    flock 7
    (flock -n lock -c 'echo wrong' || echo 'held by a descriptor')
    exec 7>&-
    flock -n lock -c 'echo free'
    flock -s lock -c 'flock -s -n lock -c "echo shared"'
}

name=$1
mkdir "$2"
cd "$2"
# somewhere on another file system than the mount
OUTSIDE=$(mktemp -d "${TMPDIR:-/var/tmp}/k42prog.XXXXXX")
trap 'rm -rf "$OUTSIDE"' EXIT
"prog_$name"
