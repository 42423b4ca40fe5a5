# SPDX-License-Identifier: LGPL-2.1-or-later
"""A descriptor whose last close waits: a socket that lingers, and has more to send than its peer takes."""
import socket
import struct


def lingering():
    """(the socket, what is to be kept for as long as it shall linger)"""
    listener = socket.create_server(("127.0.0.1", 0))
    lingers = socket.create_connection(listener.getsockname())
    lingers.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    lingers.setblocking(False)
    try:
        while True:
            lingers.send(bytes(1 << 20))
    except BlockingIOError:
        pass
    return lingers, (listener, listener.accept())
