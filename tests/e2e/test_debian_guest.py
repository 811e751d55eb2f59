#!/usr/bin/python3
"""A Debian in a machine without KVM, which installs packages and writes to a database on a qcow2 disk all the time, and looks
at both. Each checkpoint of its history is gone back to, and afterwards its file system is looked at as after a power
failure: the journal is replayed, and nothing else may need repair."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

from harness import TESTS, find_program, wait_for
from test_virtual_machines import MachineTest

sys.path.insert(0, str(TESTS / "e2e" / "guests"))
import make_guests  # noqa: E402

PATIENCE_s = 240
KINDS = ("PACKAGES", "DATABASE", "SUMS")


class Debian(MachineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix="stasis-debian-", dir="/var/tmp")
        cls.addClassCleanup(directory.cleanup)
        cls.place = pathlib.Path(directory.name)
        os.chmod(cls.place, 0o755)
        try:
            kernel, modules = make_guests.find_kernel()
            make_guests.initramfs(cls.place / "initramfs", modules, "mount_disk.c", make_guests.DISK_MODULES)
            make_guests.debian(cls.place / "debian.qcow2")
        except make_guests.Missing as missing:
            raise unittest.SkipTest(f"needs {missing}")
        cls.kernel = kernel

    def boot(self, *flags):
        disk = self.box.dir / "disk.qcow2"
        self.box.run(find_program("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.place / "debian.qcow2", disk)
        self.start("-kernel", self.kernel, "-initrd", self.place / "initramfs", "-append", "console=ttyS0 quiet panic=-1",
                   "-smp", "2", "-drive", f"file={disk},if=virtio,format=qcow2", machine="q35", memory=512, flags=flags)

    # How often the guest has done each of its things; they must come one after the other.
    def done(self, console=None):
        try:
            text = (console or self.console()).read_text(errors="replace")
        except FileNotFoundError:
            text = ""
        self.assertNotIn("BAD", text, text[-2000:])
        self.assertNotIn("EXT4-fs error", text)
        done = {}
        for kind in KINDS:
            numbers = [int(found[1]) for found in re.finditer(rf"{kind} (\d+)\r?\n", text)]
            self.assertEqual(numbers, list(range(len(numbers))), kind)
            done[kind] = len(numbers)
        return done

    def goes_on(self, console=None, kinds=KINDS):
        before = self.done(console)
        wait_for(f"the guest's next {', '.join(kinds)}",
                 lambda: all(self.done(console)[kind] > before[kind] for kind in kinds), PATIENCE_s)

    def sound(self, disk):
        """As after a power failure."""
        # A checkpoint that was under way when the machine was killed holds its files, and their locks, until it notices.
        locked = lambda: "lock" in self.box.run(find_program("qemu-img"), "check", "-q", disk, check=False).stderr
        wait_for("the lock of the disk", lambda: not locked(), PATIENCE_s)
        self.box.run(find_program("qemu-img"), "check", "-q", disk)
        raw = self.box.dir / "raw"
        self.box.run(find_program("qemu-img"), "convert", "-O", "raw", disk, raw)
        journal = subprocess.run(["/usr/sbin/e2fsck", "-p", raw], capture_output=True, text=True)
        self.assertIn(journal.returncode, (0, 1), journal.stdout)
        looked = subprocess.run(["/usr/sbin/e2fsck", "-fn", raw], capture_output=True, text=True)
        self.assertEqual(looked.returncode, 0, looked.stdout)
        raw.unlink()

    def test_history_and_generations(self):
        self.boot("--interval", "15s", "--keep", "3", "--files-limit", "2G")
        self.goes_on()
        listed = lambda: json.loads(self.box.stasis("list", "vm", "--json").stdout)
        wait_for("a history", lambda: len(listed()) >= 3, PATIENCE_s)
        self.kill()
        self.sound(self.box.dir / "disk.qcow2")
        older = sorted(checkpoint["id"] for checkpoint in listed())
        newest = older.pop()
        for number in older:
            self.goes_back_to(number, kinds=("DATABASE", "SUMS"))
        self.goes_back_to(newest, generations=2)

    def goes_back_to(self, number, generations=0, kinds=KINDS):
        name = f"back-{number}"
        self.restart("--name", name, what=f"vm@{number}")
        files = self.store / name / "files-1"
        for _ in range(generations):
            self.goes_on(files / "vm.console", ("DATABASE", "SUMS"))
            self.checkpoint("--stop", name=name)
            self.box.assert_gone(name)
            self.restart(what=name)
        self.goes_on(files / "vm.console", kinds)  # with all kinds: whatever of a package was begun at a checkpoint ends
        self.kill(name)
        self.sound(files / "disk.qcow2")
        self.box.stasis("rm", name, "--all", check=False)


del MachineTest  # its own tests are elsewhere

if __name__ == "__main__":
    unittest.main()
