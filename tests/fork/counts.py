#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the scripts of this folder ask about counts and rows.

counts.py stats STATE-DIR             the daemon's stats, asked for at its control socket: that costs
                                      no request on the mount, so that "nothing happened" can be seen
counts.py diff BEFORE AFTER [KIND…]   the requests that came in between, as "kind=+n …"; KINDs are left out
counts.py rows LIST [KEY=VALUE…] [-- FIELD…]
                                      the rows of `k42ctl list --json` that match, FIELDs one row a line
                                      (without FIELDs: how many); path= compares the end of the path
"""
import json
import socket
import sys


def stats(state):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(state + "/control")
    s.sendall(b'{"verb":"stats","args":{}}\n')
    answer = b""
    while not answer.endswith(b"\n"):
        more = s.recv(65536)
        if not more:
            break
        answer += more
    answer = json.loads(answer)
    if answer.get("ok") is not True:
        sys.exit("counts.py: %s" % answer)
    print(json.dumps(answer["result"], sort_keys=True))


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def diff(before, after, without):
    a, b = load(before)["requests"], load(after)["requests"]
    out = ["%s=%+d" % (k, b.get(k, 0) - a.get(k, 0)) for k in sorted(set(a) | set(b))
           if k not in without and a.get(k, 0) != b.get(k, 0)]
    print(" ".join(out))


def matches(row, key, value):
    if key == "path":
        return row["path"].endswith(value)
    return str(row.get(key)) == value


def rows(path, args):
    fields = []
    if "--" in args:
        fields = args[args.index("--") + 1:]
        args = args[:args.index("--")]
    found = [r for r in load(path) if all(matches(r, *a.split("=", 1)) for a in args)]
    if not fields:
        print(len(found))
    for row in found if fields else []:
        print(" ".join(str(row[f]) for f in fields))


def main():
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb == "stats" and len(sys.argv) == 3:
        stats(sys.argv[2])
    elif verb == "diff" and len(sys.argv) >= 4:
        diff(sys.argv[2], sys.argv[3], sys.argv[4:])
    elif verb == "rows" and len(sys.argv) >= 3:
        rows(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(__doc__)


main()
