# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process says to the daemon to have a descriptor opened again: REOPEN_BY_DAEMON, as
lazy/protocol.h specifies it."""
import array
import socket
import struct

GOOD = struct.pack("=HHIii", 1, 16, 0, 0, 0)


def ask(where, body, *fds, with_answer=True):
    """The answer's error and descriptor; None if there is none."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.settimeout(20)
    passed = list(fds) + ([theirs.fileno()] if with_answer else [])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(where)
        s.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] * bool(passed))
    theirs.close()
    data, fds, _, _ = socket.recv_fds(mine, 64, 4)
    mine.close()
    if not data:
        assert not fds
        return None
    version, length, flags, error, reserved = struct.unpack("=HHIii", data)
    assert (version, length, flags, reserved) == (1, 16, 0, 0), data
    assert len(fds) == (error == 0)
    return error, fds[0] if fds else None
