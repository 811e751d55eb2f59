#!/usr/bin/python3
"""Other kernels than that of this machine: Debian's own of now, the one before, and the next, in machines without KVM. Programs
that one of them has saved go on under another, with the vDSO that they have."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from harness import TESTS, find_program

sys.path.insert(0, str(TESTS / "e2e" / "guests"))
import make_guests  # noqa: E402

BUILD = pathlib.Path(os.environ.get("STASIS_BUILD") or TESTS.parent / "build")
PATIENCE_s = 500
JOB = "/stasis/tests/e2e/guests/kernel_job.py"
# Where kernels differ; STASIS_KERNEL_SUBJECTS="" takes all, which takes half an hour for each kernel.
SUBJECTS = "pipes/full threads/restartable_sequences memory_anonymous/private_content timers/posix events/eventfd"


class Kernels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.emulator = find_program("qemu-system-x86_64")
        directory = tempfile.TemporaryDirectory(prefix="stasis-kernels-", dir="/var/tmp")
        cls.addClassCleanup(directory.cleanup)
        cls.place = pathlib.Path(directory.name)
        cls.kernels = {}
        try:
            make_guests.debian_with_stasis(cls.place / "debian.qcow2", BUILD, TESTS, [])
        except make_guests.Missing as missing:
            raise unittest.SkipTest(f"needs {missing}")

    def kernel(self, suite):
        """Those of other suites are fetched: their archives may be gone some day."""
        if suite not in self.kernels:
            try:
                kernel, modules = make_guests.find_kernel() if suite == "bookworm" else make_guests.fetched_kernel(suite, self.place)
                initramfs = self.place / f"{suite}.initramfs"
                make_guests.initramfs(initramfs, modules, "mount_disk.c",
                                      make_guests.DISK_MODULES + make_guests.USUAL_MODULES)
            except make_guests.Missing as missing:
                self.skipTest(f"needs {missing}")
            self.kernels[suite] = kernel, initramfs
        return self.kernels[suite]

    def setUp(self):
        self.disk = self.place / f"{self.id()}.qcow2"
        subprocess.run([find_program("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.place / "debian.qcow2", self.disk],
                       check=True)
        self.addCleanup(self.disk.unlink)

    def run_in(self, suite, *job):
        """What the job says on this kernel, with the disk of the test."""
        kernel, initramfs = self.kernel(suite)
        # A time stamp counter that the kernel trusts, so that the vDSO is used at all. And QEMU 7.2 executes cmpxchg16b wrongly
        # as Linux 6.12 has it: sometimes that does not boot.
        words = f"console=ttyS0 quiet panic=-1 tsc=reliable job={':'.join(job)}"
        done = subprocess.run([self.emulator, "-accel", "tcg", "-M", "q35", "-cpu", "max,-cx16", "-smp", "2", "-m", "1024", "-nodefaults", "-display",
                               "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel, "-initrd", initramfs, "-append", words,
                               "-drive", f"file={self.disk},if=virtio,format=qcow2,cache=unsafe"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=PATIENCE_s)
        self.assertIn("JOB ENDED: 0", done.stdout, done.stdout[-6000:] + done.stderr)
        self.assertNotIn("BAD", done.stdout)
        return done.stdout

    def move(self, first, second):
        for suite, job in (first, "save"), (second, "go_on"):
            self.assertRegex(self.run_in(suite, JOB, job), "CLOCK tsc")

    def try_subjects(self, suite, subjects):
        subjects = os.environ.get("STASIS_KERNEL_SUBJECTS", subjects).split()
        said = self.run_in(suite, "/stasis/tests/run_subject.py", "--build", "/stasis/build", *subjects, "--modes", "restart,generations")
        self.assertRegex(said, r"\b0 failed")

    def test_programs_move_to_the_next_kernel(self):
        self.move("bookworm", "bookworm-backports")

    def test_programs_move_to_an_older_kernel(self):
        self.move("bookworm-backports", "bookworm")

    def test_a_kernel_without_what_came_later(self):
        """What it lacks is named, and what can be had without is there."""
        said = json.loads(re.search(r"CHECK (.*)", self.run_in("bullseye", JOB, "check"))[1])
        checks = {row["name"]: row for row in said["checks"]}
        for name in "page scan", "rseq registration", "mounts of programs":
            self.assertNotEqual(checks[name]["state"], "ok", checks[name])
            self.assertTrue(checks[name]["remedy"], checks[name])
        self.move("bullseye", "bullseye")

    def test_subjects_on_the_older_kernel(self):
        self.try_subjects("bullseye", SUBJECTS)

    def test_subjects_on_this_kernel(self):
        self.try_subjects("bookworm", SUBJECTS + " namespaces/host_names namespaces/bind_mounts")


if __name__ == "__main__":
    unittest.main()
