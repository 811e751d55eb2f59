#!/usr/bin/python3
"""The bar: at a terminal, for what takes over a second; nowhere else, and gone when it is done."""
import os
import re
import signal
import time
import unittest

from harness import ProgramTest, Terminal, wait_for

# In one piece, and more than one system call reads.
SIZE = 2200 << 20
# The page cache makes everything quick on a large machine; who stands still for so long takes over a second for certain.
STANDSTILL = 1.3

PROGRAM = """
import os, time
memory = bytearray(%d)
piece = b"0123456789abcdef" * (1 << 16)
for at in range(0, len(memory), 1 << 20):
    memory[at:at + (1 << 20)] = piece
print("begun", flush=True)
while True:
    time.sleep(0.05)
    with open("beat", "w") as file:
        file.write("x")
""" % SIZE


def holds_pages(pid):
    """Whether the process has a page file open."""
    try:
        return any("stasis-pages" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


class Progress(ProgramTest):
    def setUp(self):
        super().setUp()
        script = self.box.write("large.py", PROGRAM)
        output = self.box.launch("large", "/usr/bin/python3", script)
        wait_for("it has its memory", lambda: "begun" in output.read_text(), 120)

    def at_terminal(self, *args, begun):
        """All that the terminal shows of a command that was made to stand still once it had begun."""
        terminal = Terminal(self.box, *args, columns=100)
        pid = terminal.process.pid
        while not begun(pid):
            self.assertIsNone(terminal.process.poll(), f"{args[0]} was too quick to be stopped")
        still = [pid] + children(pid)
        for one in still:
            os.kill(one, signal.SIGSTOP)
        time.sleep(STANDSTILL)
        for one in still:
            os.kill(one, signal.SIGCONT)
        end = time.monotonic() + 120
        while terminal.process.poll() is None and time.monotonic() < end:
            terminal.read(0.05)
        while terminal.read(0.1):
            pass
        seen = terminal.seen
        self.assertEqual(terminal.process.poll(), 0, seen)
        os.close(terminal.master)
        return seen

    def assert_bar(self, seen, label):
        bars = re.findall(rf"\r\x1b\[K{label} \S* ?\[[#.]+\] ([\d.]+) (\w+) of ([\d.]+) GiB, \d+ s left", seen)
        self.assertTrue(bars, f"no bar in {seen!r}")
        # It is wiped, and what comes after it stands on a line of its own.
        self.assertNotIn("left", seen.rpartition("\r\x1b[K")[2])

    def test_bars(self):
        self.at_terminals()
        self.in_a_pipe()

    def at_terminals(self):
        seen = self.at_terminal("checkpoint", "large", begun=holds_pages)
        self.assert_bar(seen, "checkpoint")
        self.assertRegex(seen.rpartition("\x1b[K")[2], r"large@1: 1 process")
        self.assert_bar(self.at_terminal("verify", "large", begun=holds_pages), "verify")
        self.box.stasis("signal", "large", "KILL")
        self.box.assert_gone("large")

        # The one that shows it stands still; the one that reads goes on, and has told it meanwhile.
        beat = self.box.dir / "beat"
        beat.unlink()
        seen = self.at_terminal("restart", "large", "--memory=eager", "--background", begun=children)
        wait_for("it runs", beat.exists)
        self.assert_bar(seen, "restart")

    def in_a_pipe(self):
        for line in (["checkpoint", "large"], ["verify", "large"]):
            done = self.box.stasis(*line, timeout=120)
            self.assertNotIn("left", done.stderr)
            self.assertNotIn("\x1b", done.stderr + done.stdout)


if __name__ == "__main__":
    unittest.main()
