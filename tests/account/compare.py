# SPDX-License-Identifier: LGPL-2.1-or-later
"""compare.py LEDGER-LINES LIST.json HISTORY.json: what the processes say, against what k42ctl says.

MAPPINGS in the environment: compare these, too.  Prints each difference; status 1 if there is one."""
import collections
import json
import os
import sys

mappings = bool(os.environ.get("MAPPINGS"))
truth, calls = {}, {}
for line in open(sys.argv[1]):
    pid, path, reads, read_bytes, writes, write_bytes, maps, mapped, pieces = line.split()
    key = int(pid), path
    truth[key] = [int(read_bytes), int(write_bytes)] + ([int(maps), int(mapped)] if mappings else [])
    if pieces == "0":
        calls[key] = [int(reads), int(writes)]
told = collections.defaultdict(lambda: [0] * (4 if mappings else 2))
told_calls = collections.defaultdict(lambda: [0, 0])
for name in sys.argv[2:4]:
    for row in json.load(open(name)):
        if row["type"] != "FILE":
            continue
        # "…": a file that was revoked has no name at a worker that came later.
        key = row["pid"], row["path"] if row["path"] != "/…" else None
        for i, column in enumerate(("read_bytes", "write_bytes") + (("mappings", "mapped_bytes") if mappings else ())):
            told[key][i] += row[column]
        for i, column in enumerate(("reads", "writes")):
            told_calls[key][i] += row[column]
# The history may not know the file of a handle that was closed before its row was written, nor a program the process
# that was gone: what may be among those is compared as one sum.
def merge(key):
    gone = (None, None)
    for table in (truth, told):
        if key in table:
            sums = table.pop(key)
            table[gone] = [a + b for a, b in zip(table.get(gone, [0] * len(sums)), sums)]
    calls.pop(key, None)
    told_calls.pop(key, None)


nameless = [key for key in told if None in key]
for key in [key for key in set(truth) | set(told) if any(n[0] in (None, key[0]) for n in nameless)]:
    if key != (None, None) and (key not in told or truth.get(key) != told[key] or None in key):
        merge(key)
wrong = 0
for key in sorted(set(truth) | set(told), key=str):
    for what, ours, theirs in (("bytes", truth.get(key, [0] * len(told[key])), told[key]),
                               ("calls", calls.get(key, told_calls[key]), told_calls[key])):
        if ours != theirs:
            wrong += 1
            print("%s %s %s: the process says %s, k42ctl says %s" % (*key, what, ours, theirs))
print("%d processes and files, %d bytes, %d wrong" % (len(truth), sum(sum(v[:2]) for v in truth.values()), wrong))
sys.exit(1 if wrong or not truth else 0)
