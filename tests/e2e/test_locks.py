#!/usr/bin/python3
"""Locks that somebody outside has taken while the session was not there."""
import fcntl
import os
import unittest

from harness import ProgramTest, wait_for

HOLDER = """import fcntl, sys, time
file = open("data", "r" if sys.argv[1] == "lease" else "r+")
if sys.argv[1] == "record":
    fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
elif sys.argv[1] == "whole":
    fcntl.flock(file, fcntl.LOCK_EX)
else:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("holding", flush=True)
while True:
    time.sleep(0.1)
"""


class Locks(ProgramTest):
    def hold(self, kind):
        data = self.box.write("data", "x" * 100, 0o644)
        output = self.box.launch("s", "/usr/bin/python3", self.box.write("holder.py", HOLDER), kind)
        wait_for("the program has its lock", lambda: "holding" in output.read_text())
        if kind == "lease":  # which opening for writing would break
            return None
        ours = open(data, "r+")
        self.addCleanup(ours.close)
        return ours

    def refused(self, *texts):
        before = (self.box.dir / "s.output").read_text()
        done = self.box.stasis("restart", "s", "--background", check=False)
        self.assertNotEqual(done.returncode, 0)
        for text in (str(self.box.dir / "data"), f"process {os.getpid()}", *texts):
            self.assertIn(text, done.stderr)
        self.assertEqual((self.box.dir / "s.output").read_text(), before)
        self.box.assert_gone("s")

    def test_record_lock_that_is_taken(self):
        ours = self.hold("record")
        self.box.save_and_kill("s")
        fcntl.lockf(ours, fcntl.LOCK_SH, 1, 14)
        self.refused("bytes 5 to 14")
        fcntl.lockf(ours, fcntl.LOCK_UN, 1, 14)
        self.box.restart("s")
        with self.assertRaises(BlockingIOError):
            fcntl.lockf(ours, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 14)
        fcntl.lockf(ours, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 15)

    def test_lock_of_a_description_that_is_taken(self):
        ours = self.hold("whole")
        self.box.save_and_kill("s")
        fcntl.flock(ours, fcntl.LOCK_EX)
        self.refused("the whole file")
        fcntl.flock(ours, fcntl.LOCK_UN)
        self.box.restart("s")
        with self.assertRaises(BlockingIOError):
            fcntl.flock(ours, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def test_lease_that_cannot_be_had(self):
        self.hold("lease")
        self.box.save_and_kill("s")
        data = str(self.box.dir / "data")
        with open(data, "r+"):
            done = self.box.stasis("restart", "s", "--background", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("lease", done.stderr)
            self.assertIn(data, done.stderr)
            self.box.assert_gone("s")
        self.box.restart("s")
        with self.assertRaises(BlockingIOError):
            os.close(os.open(data, os.O_WRONLY | os.O_NONBLOCK))


if __name__ == "__main__":
    unittest.main()
