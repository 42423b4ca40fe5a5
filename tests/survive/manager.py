#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""manager.py SOCKET COMMAND…: plays the service manager of one service.

Starts COMMAND with $NOTIFY_SOCKET and whatever is in the descriptor store, as systemd does; a service that is
killed or that is restarted (SIGHUP to us) is started again.  Prints a line for each thing that happens:
"ready PID", "ended STATUS", "kept NAMES…"."""
import array
import os
import select
import signal
import socket
import sys

path, command = sys.argv[1], sys.argv[2:]
store = {}
service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
service.bind(path)
wake_in, wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
signal.set_wakeup_fd(wake_out)
signal.signal(signal.SIGCHLD, lambda *_: None)
restart = False


def on_hup(*_):
    global restart
    restart = True
    os.kill(child, signal.SIGTERM)


signal.signal(signal.SIGHUP, on_hup)


def say(*words):
    print(*words, flush=True)


def start():
    names, fds = [], []
    for name, numbers in store.items():
        for number in numbers:
            names.append(name)
            fds.append(number)
    pid = os.fork()
    if pid == 0:
        # out of the way first, so that none is overwritten before it is moved
        fds = [os.dup(fd) for fd in fds]
        high = []
        for fd in fds:
            import fcntl
            high.append(fcntl.fcntl(fd, fcntl.F_DUPFD, 500))
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i)
            os.set_inheritable(3 + i, True)
        os.closerange(3 + len(high), 1000)
        os.environ["NOTIFY_SOCKET"] = path
        if high:
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)),
                              LISTEN_FDNAMES=":".join(names))
        os.execv(command[0], command)
    return pid


def receive():
    data, ancillary, _, _ = service.recvmsg(4096, 4096, socket.MSG_DONTWAIT)
    fds = array.array("i")
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(body[:len(body) - len(body) % fds.itemsize])
    words = dict(line.split("=", 1) for line in data.decode().splitlines())
    if "FDSTORE" in words:
        store.setdefault(words["FDNAME"], []).extend(fds)
        fds = []
    elif "FDSTOREREMOVE" in words:
        for fd in store.pop(words["FDNAME"], []):
            os.close(fd)
    for fd in fds:
        os.close(fd)
    if words.get("READY") == "1":
        say("ready", words["MAINPID"])


child = start()
while True:
    select.select([service, wake_in], [], [])
    try:
        while True:
            os.read(wake_in, 100)
    except BlockingIOError:
        pass
    try:
        while True:
            receive()
    except BlockingIOError:
        pass
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == child:
        say("ended", os.waitstatus_to_exitcode(status))
        say("kept", *sorted(store))
        if restart or os.WIFSIGNALED(status):
            restart = False
            child = start()
        else:
            break
for numbers in store.values():
    for number in numbers:
        os.close(number)
