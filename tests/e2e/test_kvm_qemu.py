"""QEMU with KVM, and the boot ROMs of tests/e2e/guests in it: real mode with PIC, PIT and HLT, and long mode with
memory that is checked. The console is a file of the session, so that the ticks in it must come one after the other
whatever happens."""
import pathlib
import subprocess
import tempfile
import unittest

import kvm_harness
from harness import find_program, reserve_huge_pages, wait_for
from test_virtual_machines import Guests, MachineTest

# This is QEMU's own limit where KVM offers the bit in CPUID and not the MSR behind it: it ends with an assertion.
HOST = "host,arch-capabilities=off"
MICROVM = "microvm,pit=on,pic=on,rtc=on"


class KvmMachineTest(MachineTest):
    def sandbox(self):
        return kvm_harness.sandbox()

    def through(self, rom, machine, processor="qemu64", chip="on", processors=1, options=()):
        self.start("-bios", Guests.make(rom), "-cpu", processor, "-smp", processors, *options, machine=machine,
                   accelerator=f"kvm,kernel-irqchip={chip}")
        self.through_it_all()
        if rom == "memory.rom":
            self.assertIn("CHECK OK", self.console().read_text())


class RealMode(KvmMachineTest):
    def test_pc(self):
        self.through("interrupts.rom", "pc")

    def test_pc_split(self):
        self.through("interrupts.rom", "pc", chip="split")

    def test_pc_with_chips_of_the_monitor(self):
        self.through("interrupts.rom", "pc", "qemu64,-apic", "off")

    def test_q35_host_two_processors(self):
        self.through("interrupts.rom", "q35", HOST, processors=2)

    def test_q35_host_split_two_processors(self):
        self.through("interrupts.rom", "q35", HOST, "split", 2)

    def test_microvm(self):
        self.through("interrupts.rom", MICROVM, "kvm64")

    def test_microvm_split_two_processors(self):
        self.through("interrupts.rom", MICROVM, "kvm64", "split", 2)


class LongMode(KvmMachineTest):
    def test_pc_two_processors(self):
        self.through("memory.rom", "pc", "kvm64", processors=2)

    def test_pc_host_split(self):
        self.through("memory.rom", "pc", HOST, "split")

    def test_q35(self):
        self.through("memory.rom", "q35")

    def test_q35_split_two_processors(self):
        self.through("memory.rom", "q35", HOST, "split", 2)

    def test_microvm_host_two_processors(self):
        self.through("memory.rom", MICROVM, HOST, processors=2)

    def test_microvm_split(self):
        self.through("memory.rom", MICROVM, "qemu64", "split")

    def test_shared_memory(self):
        self.through("memory.rom", "q35", HOST, options=(
            "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-machine", "memory-backend=ram"))

    def test_reserved_huge_pages(self):
        reserve_huge_pages(80, self.addCleanup)
        self.through("memory.rom", "q35", HOST, options=(
            "-object", "memory-backend-memfd,id=ram,size=64M,share=on,hugetlb=on", "-machine", "memory-backend=ram"))

    def test_devices(self):
        """Disk, network and screen are there, and make ioeventfds, coalesced zones and threads."""
        disk = self.box.dir / "disk"
        self.box.run("truncate", "-s", "16M", disk)
        self.through("memory.rom", "q35", HOST, processors=2, options=(
            "-drive", f"if=none,id=d,file={disk},format=raw", "-object", "iothread,id=io", "-device",
            "virtio-blk-pci,drive=d,iothread=io", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-vga",
            "std", "-vnc", f"unix:{self.box.dir}/vnc"))


class OrdinaryUser(KvmMachineTest):
    def sandbox(self):
        return kvm_harness.sandbox_of_user(self)

    def test_real_mode(self):
        self.through("interrupts.rom", "pc")

    def test_long_mode(self):
        self.through("memory.rom", "q35", HOST, processors=2)


class WithoutStasis(unittest.TestCase):
    """Each of the machines runs here at all."""

    def ticks(self, machine, rom, processor, chip, processors):
        with tempfile.TemporaryDirectory() as directory:
            console = pathlib.Path(directory) / "console"
            process = subprocess.Popen(
                [find_program("qemu-system-x86_64"), "-accel", f"kvm,kernel-irqchip={chip}", "-M", machine, "-m", "64",
                 "-nodefaults", "-display", "none", "-serial", f"file:{console}", "-bios", Guests.make(rom), "-cpu",
                 processor, "-smp", str(processors)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_for("ticks", lambda: console.exists() and b"TICK 3" in console.read_bytes())
            finally:
                process.kill()
                process.wait()

    def test_every_machine(self):
        kvm_harness.need()
        kinds = (("qemu64", "on", 1), ("kvm64", "split", 2), (HOST, "on", 2), (HOST, "split", 1))
        for rom in ("interrupts.rom", "memory.rom"):
            for machine in ("pc", "q35", MICROVM):
                for kind in kinds:
                    with self.subTest(rom=rom, machine=machine, kind=kind):
                        self.ticks(machine, rom, *kind)


if __name__ == "__main__":
    unittest.main()
