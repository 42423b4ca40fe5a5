# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers of the control socket that a daemon must survive.  Argument: the socket's path."""
import json
import os
import random
import socket
import sys
import threading
import time

PATH = sys.argv[1]


def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(PATH)  # blocks while the queue is full
    s.settimeout(20)
    return s


def ask(data):
    with connect() as s:
        try:
            s.sendall(data)
        except BrokenPipeError:
            pass
        answer = b""
        while True:
            try:
                piece = s.recv(65536)
            except ConnectionResetError:
                break
            if not piece:
                break
            answer += piece
    return json.loads(answer)


def good():
    answer = ask(b'{"verb":"status","args":{}}\n')
    if not answer["ok"] and "too many" in answer["error"]:
        return False
    assert answer["ok"], answer
    return True


def must_refuse(data):
    answer = ask(data)
    assert answer["ok"] is False and isinstance(answer["error"], str), (data[:80], answer)
    assert "\n" not in answer["error"]


random.seed(42)
for bad in (b"\n", b"\0\n", b"[]\n", b"nonsense\n", b'{"verb":"list"\n', b'{"verb":"\xff"}\n',
            b'{"verb":"umount\\u0000"}\n', b"[" * 60000 + b"\n", b'{"a":' * 10000 + b"\n",
            b"x" * 70000, b"x" * 1000000):
    must_refuse(bad)
for _ in range(500):
    noise = bytes(random.randrange(256) for _ in range(random.randrange(1, 300)))
    must_refuse(noise.replace(b"\n", b" ") + b"\n")
assert good()

# leave at every point
for i in range(300):
    s = connect()
    if i % 3:
        s.sendall(b'{"verb":"list","args":{}}\n'[: random.randrange(1, 27)])
    s.close()
assert good()

# silent peers and peers that do not read, as many as are let in, then more; root's own count too
silent = [connect() for _ in range(40)]
assert good()
more = [connect() for _ in range(60)]
for s in silent + more:
    s.close()
deadline = time.time() + 10
while not good():
    assert time.time() < deadline, "connections that were closed still count"
    time.sleep(0.05)

# a flood from several threads
errors = []


def flood():
    try:
        for _ in range(100):
            with connect() as s:
                s.sendall(random.choice([b'{"verb":"list"}\n', b"nonsense\n", b'{"verb":"stats"}\n', b"{"]))
    except Exception as e:  # a refusal is an answer, not an exception
        if not isinstance(e, (BrokenPipeError, ConnectionResetError)):
            errors.append(e)


threads = [threading.Thread(target=flood) for _ in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
assert not errors, errors
deadline = time.time() + 20
while not good():
    assert time.time() < deadline
    time.sleep(0.05)

# said after ten seconds of silence
s = connect()
before = time.time()
s.sendall(b'{"verb"')
answer = s.recv(65536)
assert b"no request" in answer, answer
assert 8 < time.time() - before < 15
