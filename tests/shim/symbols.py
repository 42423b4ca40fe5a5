#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""symbols.py LIBRARY NOT_INTERCEPTED: every function of libc that does I/O on a descriptor, or makes or
ends one, is intercepted by LIBRARY or stands in NOT_INTERCEPTED with a reason.  (A fortified or renamed
variant that is forgotten bypasses the shim.)"""
import re
import subprocess
import sys

PATTERN = re.compile(r"""^(__)?(
    p?read(v|64|v64|v2|v64v2)? | p?write(v|64|v64|v2|v64v2)? | __?p?read(64)?_chk | readahead
  | lseek(64)? | llseek | ftruncate(64)? | (posix_)?fallocate(64)? | fsync | fdatasync | sync_file_range | syncfs
  | mmap(64)? | sendfile(64)? | copy_file_range | splice | vmsplice | tee
  | getdents(64)? | getdirentries(64)? | (fd)?opendir | readdir(64)?(_r)? | closedir | seekdir | rewinddir | scandir(at)?(64)?
  | open(at)?(64)?(_2)? | creat(64)? | open_by_handle_at | mko?stemps?(64)? | f(re)?open(64)? | fdopen | tmpfile(64)? | fclose
  | close | closefrom | close_range | dup[23]? | fcntl(64)? | v?fork | _Fork | posix_spawnp? | popen | system | daemon | forkpty
  | flock | lockf(64)? | aio_(read|write|fsync)(64)? | lio_listio(64)? | n?ftw(64)? | fts(64)?_(open|read|children) | glob(64)?
  | shm_open | memfd_create | posix_fadvise(64)? | clone | fcloseall | v?dprintf(_chk)?
  | _IO_(f(d|re)?open | fclose | popen | proc_open | proc_close | file_(f?open|attach|read|write|seek|close))
)(_nocancel)?$""", re.X)


def symbols(path):
    out = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True)
    for line in out.stdout.splitlines():
        kind, name = line.split()[-2:]
        if kind in "TWi" and "GLIBC_PRIVATE" not in name:
            yield name.split("@")[0]


def libc_path():
    for line in open("/proc/self/maps"):
        if "libc.so.6" in line:
            return line.split()[-1]
    sys.exit("SKIP: this python3 does not use glibc")


library, listed_in = sys.argv[1:]
wanted = {s for s in symbols(libc_path()) if PATTERN.match(s)}
intercepted = set(symbols(library))
listed = {}
for line in open(listed_in):
    if line.strip() and not line.startswith("#"):
        name, _, reason = line.strip().partition("\t")
        listed[name] = reason
wrong = [f"{s}: not intercepted and not listed" for s in sorted(wanted - intercepted - set(listed))]
wrong += [f"{s}: listed, but intercepted" for s in sorted(set(listed) & intercepted)]
wrong += [f"{s}: listed, but libc has no such function" for s in sorted(set(listed) - wanted)]
wrong += [f"{s}: listed without a reason" for s, r in sorted(listed.items()) if not r]
print("\n".join(wrong) or f"{len(wanted)} functions: {len(wanted & intercepted)} intercepted, {len(listed)} listed")
sys.exit(bool(wrong))
