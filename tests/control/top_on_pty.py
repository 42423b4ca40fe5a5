# SPDX-License-Identifier: LGPL-2.1-or-later
"""k42ctl top on a terminal: what is seen, keys, another size, signals, a daemon that goes away.

top_on_pty.py K42CTL MOUNTPOINT DAEMON_PID: ends the daemon as its last act.
"""
import fcntl, os, pty, re, select, signal, struct, sys, termios, time

CTL, MOUNT, DAEMON = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Top:
    def __init__(self, *options, columns=100):
        self.seen = b""
        self.master, slave = pty.openpty()
        self.size(24, columns)
        self.before = termios.tcgetattr(slave)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            os.closerange(3, 50)
            os.environ.update(TERM="xterm", LC_ALL="C.UTF-8")
            os.execv(CTL, [CTL, "top", "-d", "0.3", *options, MOUNT])
        self.slave = slave

    def size(self, lines, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, wait):
        while select.select([self.master], [], [], wait)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.seen += data

    def until(self, text, seconds=15):
        """Waits until `text` has been written since the last call, and forgets all before it."""
        end = time.time() + seconds
        while text not in self.seen:
            assert time.time() < end, (text, self.seen)
            self.read(0.1)
        self.seen = self.seen[self.seen.index(text) + len(text):]

    def key(self, key):
        """And then Ctrl-L: all is written again, not only what is different."""
        os.write(self.master, key + b"\x0c")

    def ended(self):
        """Waits for its end; the terminal must be as it was."""
        end = time.time() + 15
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            assert time.time() < end, "it does not end"
            self.read(0.05)
        self.read(0.1)
        assert b"\x1b[?1049l" in self.seen, ("the screen is not given back", self.seen)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"
        os.close(self.slave)
        os.close(self.master)
        return status


top = Top()
top.until(b"k42ctl top")
top.until(b"by rate")
top.until(b"HANDLE")
top.until(b"/busy")
assert b"\x1b[2J\x07" not in top.seen
top.until(b"q quit")
top.key(b"o")
top.until(b"op_rate")
top.key(b"R")
top.until(b"reversed")
top.key(b">")
top.until(b"read_rate")
top.key(b"\x1bOB ")  # down, and a look at once
top.size(10, 40)
os.kill(top.pid, signal.SIGWINCH)
top.until(b"k42ctl top")
top.size(2, 3)
os.kill(top.pid, signal.SIGWINCH)
top.read(0.5)
top.size(24, 100)
os.kill(top.pid, signal.SIGWINCH)
top.until(b"q quit")
top.key(b"q")
assert top.ended() == 0

for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    top = Top()
    top.until(b"q quit")
    if number == signal.SIGINT:
        top.key(b"\x03")
    else:
        os.kill(top.pid, number)
    status = top.ended()
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == number, status

top = Top("-n", "2")
assert top.ended() == 0

top = Top()
top.until(b"q quit")
children = [int(p) for p in os.popen("pgrep -P %d" % DAEMON).read().split()]
# The worker must not end the mount: so it is killed before its parent, because the kernel continues a stopped
# process whose parent ends.
for pid in [DAEMON, *children]:
    os.kill(pid, signal.SIGSTOP)
for pid in [*children, DAEMON]:
    os.kill(pid, signal.SIGKILL)
top.until(b"daemon")
top.key(b"w")  # it goes on
top.until(b"write_rate")
top.key(b"q")
status = top.ended()
assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1, status
