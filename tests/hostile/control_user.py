#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""control_user.py SOCKET PID HANDLE: an ordinary user at the control socket, who wants to see what others have open,
take it from them, and end or change the mount."""
import json
import os
import socket
import sys

where, pid, handle = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def ask(verb, **args):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(where)
        s.sendall(json.dumps({"verb": verb, "args": args}).encode() + b"\n")
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    return json.loads(answer)


me = os.getuid()
assert me != 0
for verb in "list", "history":
    for args in {}, {"identity": True}, {"uid": 0}, {"may_all": True}:
        answer = ask(verb, **args)
        assert answer["ok"], answer
        assert all(row["uid"] == me for row in answer["result"]), (verb, answer)
refused = [("show", {"handle": handle}), ("umount", {}), ("sync", {}), ("upgrade", {}), ("upgrade", {"program": "/bin/true"}),
           ("failpoint", {}), ("failpoint", {"points": "message"}), ("allow", {"path": "/f"}),
           ("revoke", {"path": "/f"}), ("revoke", {"path": "/f", "block": True}), ("revoke", {"path_hex": "2f66"}),
           ("revoke", {"path": "/../f"}), ("allow", {"pid": pid})]
for tree in False, True:
    refused += [("revoke", {"handle": handle, "tree": tree}), ("revoke", {"pid": pid, "tree": tree}),
                ("revoke", {"pid": pid, "tree": tree, "block": True}), ("revoke", {"pid": 1, "tree": tree})]
refused += [("restrict", {"handle": handle, "rights": "r"}), ("restrict", {"pid": pid, "rights": "-"})]
for verb, args in refused:
    answer = ask(verb, **args)
    assert answer["ok"] is False, (verb, args, answer)
    assert isinstance(answer["error"], str) and "\n" not in answer["error"]
