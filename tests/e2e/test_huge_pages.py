#!/usr/bin/python3
"""Reserved huge pages: root reserves some for the time of these tests, without which the subject has nothing to do."""
import os
import subprocess
import sys
import unittest

from harness import TESTS, ProgramTest, Sandbox, reserve_huge_pages, wait_for

FILE = """
import ctypes, mmap, os, sys, time
path = sys.argv[1]
file = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(file, 4 << 20)
memory = mmap.mmap(file, 4 << 20)
memory[:] = bytes(range(256)) * (4 << 12)
if len(sys.argv) > 2:
    os.unlink(path)
number = 0
while True:
    number += 1
    assert memory[:] == bytes(range(256)) * (4 << 12)
    print(number, flush=True)
    time.sleep(0.02)
"""


class HugePages(ProgramTest):
    @classmethod
    def setUpClass(cls):
        reserve_huge_pages(64, cls.addClassCleanup)

    def run_subject(self, *flags):
        done = subprocess.run([sys.executable, TESTS / "run_subject.py", "--build",
                               os.environ.get("STASIS_BUILD") or TESTS.parent / "build", "--jobs", "2", "--modes",
                               "continue,restart,generations,eager", *flags, "huge_pages"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_subject(self):
        self.assertIn(" 0 skipped", self.run_subject())

    def test_subject_as_user(self):
        user = os.environ.get("STASIS_TEST_USER")
        if not user:
            self.skipTest("no $STASIS_TEST_USER")
        self.run_subject("--as-user", user)

    def sandbox(self):
        return Sandbox(user=None)

    def check_file(self, *flags):
        place = self.box.dir / "huge"
        place.mkdir()
        subprocess.run(["mount", "-t", "hugetlbfs", "none", place], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        script = self.box.write("file.py", FILE, 0o644)
        output = self.box.dir / "output"
        self.box.stasis("launch", "--name", "huge", "--background", "--", "sh", "-c",
                        f"exec /usr/bin/python3 {script} {place}/file {' '.join(flags)} > {output}")

        def numbers():
            return output.read_text().count("\n") if output.exists() else 0
        wait_for("it counts", lambda: numbers() > 3)
        for _ in range(2):
            self.box.stasis("checkpoint", "huge", "--stop")
            before = numbers()
            if not flags:  # as after the host has been started anew
                (place / "file").unlink()
            self.box.stasis("restart", "huge", "--background")
            wait_for("it goes on", lambda: numbers() > before + 3)
        self.box.stasis("signal", "huge", "KILL")

    def test_removed_file(self):
        self.check_file("removed")

    def test_file(self):
        self.check_file()


if __name__ == "__main__":
    unittest.main()
