#!/usr/bin/python3
"""Virtual machines in user space: the emulator is a program like any other, and the engine has no line about it.

Two kinds of guests: boot ROMs that start in a blink (guests/tick.S), and Debian's kernel with an init that watches over
its memory, its processors and its disk (guests/init.c). What a guest prints goes to a file that the emulator writes, so
it, too, is of the instant of the checkpoint: whatever happens, the ticks in it must come one after the other."""
import os
import pathlib
import re
import signal
import socket
import sys
import tempfile
import unittest

from harness import TESTS, ProgramTest, find_program, free_port, wait_for

sys.path.insert(0, str(TESTS / "e2e" / "guests"))
import make_guests  # noqa: E402


class Guests:
    """Made once for all tests."""
    directory = None
    kernel = None

    @classmethod
    def make(cls, name):
        if cls.directory is None:
            cls.directory = tempfile.TemporaryDirectory(prefix="stasis-guests-", dir="/var/tmp")
            os.chmod(cls.directory.name, 0o755)
        path = pathlib.Path(cls.directory.name) / name
        try:
            if name == "kernel":
                kernel, _ = make_guests.find_kernel()
                return kernel
            if not path.exists():
                if name == "initramfs":
                    make_guests.initramfs(path, make_guests.find_kernel()[1])
                else:
                    make_guests.rom(path, {"interrupts.rom": "-DINTERRUPTS", "memory.rom": "-DMEMORY=8"}[name])
                os.chmod(path, 0o644)
        except make_guests.Missing as missing:
            raise unittest.SkipTest(f"needs {missing}")
        return path


class MachineTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.emulator = find_program("qemu-system-x86_64")
        self.store = self.box.dir / "store"

    def console(self, name="vm"):
        return self.box.dir / f"{name}.console"

    def start(self, *options, machine="pc", memory=64, name="vm", serial=None, flags=(), accelerator="tcg"):
        self.box.output = self.box.dir / f"{name}.output"
        with open(self.box.output, "ab") as output:
            if self.box.user:
                os.chown(self.box.output, self.box.user.pw_uid, self.box.user.pw_gid)
            self.box.stasis("launch", "--name", name, "--store", self.store, "--background", *flags, "--",
                            self.emulator, "-accel", accelerator, "-M", machine, "-m", memory, "-nodefaults",
                            "-display", "none", "-no-reboot", "-serial", serial or f"file:{self.console(name)}", *options,
                            stdout=output)

    def boot_rom(self, rom="interrupts.rom", *options, machine="pc", **more):
        if machine.startswith("microvm"):
            machine = "microvm,pit=on,pic=on,rtc=on"
        # Without a local APIC the PIC is the one that interrupts the processor.
        processor = "qemu64,-apic" if rom == "interrupts.rom" else "qemu64"
        self.start("-bios", Guests.make(rom), "-cpu", processor, *options, machine=machine, **more)

    def boot_linux(self, *options, machine="q35", words="", memory=192, **more):
        if machine.startswith("microvm"):
            machine = "microvm,pit=on,pic=on,rtc=on"
            words += " tsc_early_khz=2000000"
        self.start("-kernel", Guests.make("kernel"), "-initrd", Guests.make("initramfs"), "-cpu", "qemu64", "-append",
                   f"console=ttyS0 quiet panic=-1 tickms=50 fill=8{words}", *options, machine=machine, memory=memory,
                   **more)

    # --- what the guest says

    def ticks(self, name="vm"):
        try:
            text = self.console(name).read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return []
        self.assertNotIn("BAD", text)
        # The last line may be half.
        return [int(found[1]) for found in re.finditer(r"TICK (\d+)[^\n]*\n", text)]

    def last(self, name="vm"):
        ticks = self.ticks(name)
        return ticks[-1] if ticks else -1

    def reach(self, tick, name="vm", seconds=60):
        wait_for(f"the guest's tick {tick}", lambda: self.last(name) >= tick, seconds)

    def go_on(self, ticks=5, name="vm"):
        self.reach(self.last(name) + ticks, name)

    def whole(self, name="vm"):
        ticks = self.ticks(name)
        self.assertEqual(ticks, list(range(len(ticks))))

    # --- steps

    def checkpoint(self, *flags, name="vm"):
        return self.box.stasis("checkpoint", name, *flags)

    def kill(self, name="vm"):
        os.kill(self.box.session(name)["processes"][0]["host_pid"], signal.SIGKILL)
        self.box.assert_gone(name)

    def restart(self, *flags, what="vm"):
        with open(self.box.dir / "restart.output", "ab") as output:
            done = self.box.stasis("restart", what, "--background", *flags, check=False, stdout=output)
        said = (self.box.dir / "restart.output").read_text()
        self.assertEqual(done.returncode, 0, said)
        return said

    def through_it_all(self):
        """Checkpoint and go on; go on, be killed, and go on from the checkpoint; three times stopped and restarted."""
        self.reach(3)
        self.checkpoint()
        self.go_on(6)
        self.kill()
        self.restart()
        self.go_on(6)
        for _ in range(3):
            self.checkpoint("--stop")
            self.box.assert_gone("vm")
            self.restart()
            self.go_on(3)
        self.whole()


class Architecture(unittest.TestCase):
    def test_the_engine_knows_of_no_emulator(self):
        for directory in ("src", "include", "schema"):
            for path in (TESTS.parent / directory).rglob("*"):
                if path.is_file():
                    self.assertNotRegex(path.read_text(errors="replace").lower(), "qemu", path)


class BootRoms(MachineTest):
    def test_pc(self):
        self.boot_rom(machine="pc")
        self.through_it_all()

    def test_q35(self):
        self.boot_rom(machine="q35")
        self.through_it_all()

    def test_microvm(self):
        self.boot_rom(machine="microvm")
        self.through_it_all()

    def test_memory(self):
        self.boot_rom("memory.rom")
        self.through_it_all()
        self.assertIn("CHECK OK", self.console().read_text())

    def test_memory_that_is_shared(self):
        self.boot_rom("memory.rom", "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-machine",
                      "memory-backend=ram")
        self.through_it_all()
        self.assertIn("CHECK OK", self.console().read_text())

    def test_its_clock_does_not_see_the_time_between(self):
        """Timer interrupts of the guest are on the program's clock, which stands still while it does not run."""
        import time
        self.boot_rom()
        self.reach(3)
        self.checkpoint("--stop")
        time.sleep(3)
        self.restart()
        self.go_on(3)
        self.whole()
        jiffies = [int(j) for j in re.findall(r"jiffies=(\d+)\s", self.console().read_text())]
        self.assertEqual(jiffies, [10 * (i + 1) for i in range(len(jiffies))])

    def test_everything_listens_again(self):
        ports = {name: free_port() for name in ("monitor", "vnc")}
        while ports["vnc"] < 5900:
            ports["vnc"] = free_port()
        paths = {name: self.box.dir / name for name in ("qmp", "console.socket", "vnc")}
        self.boot_rom("interrupts.rom", "-qmp", f"unix:{paths['qmp']},server=on,wait=off", "-monitor",
                      f"tcp:127.0.0.1:{ports['monitor']},server=on,wait=off", "-vga", "std", "-vnc",
                      f"127.0.0.1:{ports['vnc'] - 5900}", serial=f"unix:{paths['console.socket']},server=on,wait=off")

        def connect(where):
            if isinstance(where, int):
                return socket.create_connection(("127.0.0.1", where), timeout=20)
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(20)
            connection.connect(str(where))
            return connection

        def until(connection, pattern):
            data = b""
            while not (found := re.search(pattern, data)):
                more = connection.recv(4096)
                self.assertTrue(more, data)
                data += more
            return found

        def everything():
            with connect(paths["qmp"]) as qmp:
                until(qmp, rb'"QMP"[^\n]*\n')
                qmp.sendall(b'{"execute": "qmp_capabilities"}\n{"execute": "query-status"}\n')
                self.assertEqual(until(qmp, rb'"status": "(\w+)"')[1], b"running")
            with connect(ports["monitor"]) as monitor:
                until(monitor, rb"\(qemu\)")
                monitor.sendall(b"info version\n")
                until(monitor, rb"\d+\.\d+")
            with connect(ports["vnc"]) as screen:
                self.assertEqual(until(screen, rb"RFB \d+\.\d+\n")[0][:4], b"RFB ")
            with connect(paths["console.socket"]) as console:
                return int(until(console, rb"TICK (\d+) jiffies=\d+\r\n")[1])

        wait_for("it listens", lambda: all(path.exists() for name, path in paths.items() if name != "vnc"))
        first = everything()
        with connect(paths["qmp"]) as client:  # a client stays connected while its server is saved
            until(client, rb'"QMP"[^\n]*\n')
            self.checkpoint()
            client.sendall(b'{"execute": "qmp_capabilities"}\n')
            until(client, rb'"return"')
            with connect(paths["console.socket"]) as console:
                second = int(until(console, rb"TICK (\d+) jiffies=\d+\r\n")[1])
        self.assertGreater(second, first)
        self.kill()
        self.restart()
        self.assertGreater(everything(), first)
        self.checkpoint("--stop")
        self.restart()
        everything()


class Disks(MachineTest):
    def image(self, kind, megabytes=16):
        path = self.box.dir / f"disk.{kind}"
        if kind == "raw":
            self.box.run("truncate", "-s", f"{megabytes}M", path)
        else:
            self.box.run(find_program("qemu-img"), "create", "-q", "-f", kind, path, f"{megabytes}M")
        return path

    def disk(self, kind, *more, bus="virtio-blk-pci"):
        path = self.image(kind)
        return ("-drive", ",".join([f"if=none,id=d,file={path},format={kind}", *more]), "-device", f"{bus},drive=d")

    def sound(self, kind):
        if kind == "qcow2":
            self.box.run(find_program("qemu-img"), "check", "-q", self.box.dir / "disk.qcow2")

    def through(self, kind, *more, **machine):
        bus = "virtio-blk-device" if machine.get("machine") == "microvm" else "virtio-blk-pci"
        self.boot_linux(*self.disk(kind, *more, bus=bus), words=" disk", **machine)
        self.through_it_all()
        text = self.console().read_text()
        self.assertIn("disk=yes", text)
        # As many good looks at the disk as there are ticks: it and the memory are of one instant.
        self.assertEqual(text.count("DISK OK"), len(self.ticks()))
        self.kill()
        self.sound(kind)

    def test_qcow2(self):
        self.through("qcow2")

    def test_qcow2_on_microvm(self):
        self.through("qcow2", machine="microvm")

    def test_raw_in_threads(self):
        self.through("raw", "aio=threads", machine="pc")

    def test_raw_with_native_requests(self):
        self.through("raw", "cache.direct=on", "aio=native", machine="pc")

    def test_snapshot(self):
        self.through("raw", "snapshot=on")
        self.assertEqual((self.box.dir / "disk.raw").read_bytes().strip(b"\0"), b"")

    def test_without_its_disk_a_guest_would_notice(self):
        self.boot_linux(*self.disk("raw"), words=" disk", flags=("--files=none",))
        self.reach(3)
        self.checkpoint()
        self.go_on(6)
        self.kill()
        self.restart()
        wait_for("the guest sees a disk that is newer than it", lambda: "DISK BAD" in self.console().read_text())

    def test_many_machines_of_one_checkpoint(self):
        self.boot_linux(*self.disk("qcow2"), words=" disk")
        self.reach(3)
        self.checkpoint()
        for name in ("one", "two"):
            self.restart("--name", name, what="vm@1")
        own = {name: self.store / name / "files-1" for name in ("one", "two")}

        def ticks(name):
            text = (own[name] / "vm.console").read_text()
            self.assertNotIn("BAD", text)
            return text.count("DISK OK")
        for name in own:
            wait_for(f"{name} goes on", lambda at=ticks(name): ticks(name) > at + 5)
        self.go_on()
        self.whole()
        for name in own:
            self.kill(name)
            self.box.run(find_program("qemu-img"), "check", "-q", own[name] / "disk.qcow2")

    def refused(self, *more, word):
        self.boot_rom("interrupts.rom", *self.disk("raw", "cache.direct=on", *more))
        try:
            self.reach(2, seconds=20)
        except AssertionError:
            self.skipTest(f"{more[0]} cannot be had here: {self.box.output.read_text()}")
        done = self.box.stasis("checkpoint", "vm", check=False)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn(word, done.stderr)
        self.assertFalse((self.store / "vm" / "1").exists())
        self.go_on()
        self.whole()

    def test_io_uring_is_refused_by_name(self):
        self.refused("aio=io_uring", word="io_uring")


class Processors(MachineTest):
    def others(self):
        return [int(n) for n in re.findall(r"other=(\d+)", self.console().read_text())]

    def test_two(self):
        self.boot_linux("-smp", "2")
        self.through_it_all()
        self.assertIn("processors=2", self.console().read_text())
        others = self.others()
        self.assertEqual(others, sorted(others))
        self.assertGreater(others[-1], others[-4])

    def test_two_on_pc_in_one_thread(self):
        self.boot_linux("-smp", "2", "-accel", "tcg,thread=single", machine="pc")
        self.through_it_all()


class Network(MachineTest):
    def echo(self, text):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(text)
                return connection.recv(100) == text
        except OSError:
            return False

    def test_the_guest_serves_again(self):
        self.port = free_port()
        self.boot_linux("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self.port}-:7", "-device",
                        "virtio-net-pci,netdev=n", words=" net")
        wait_for("the guest answers", lambda: self.echo(b"hello"), 60)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(b"before")
            self.assertEqual(client.recv(100), b"before")
            self.checkpoint()
            client.sendall(b"after")
            self.assertEqual(client.recv(100), b"after")
        self.kill()
        self.restart()
        wait_for("the guest answers again", lambda: self.echo(b"hello again"))
        self.checkpoint("--stop")
        self.restart()
        wait_for("and once more", lambda: self.echo(b"hello again"))
        self.go_on()
        self.whole()


if __name__ == "__main__":
    unittest.main()
