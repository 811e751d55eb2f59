"""Machines with KVM: the monitor of tests/kvm and its guests, which check themselves - every access to a device comes
once, registers, clocks and memory are what they were - saved while they run, and brought back.

$STASIS_KVM_ROUNDS: how many checkpoints are taken one after the other (60)."""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import unittest

import kvm_harness
import outside
from harness import ProgramTest, wait_for
from kvm_harness import MONITOR, Output

ROUNDS = int(os.environ.get("STASIS_KVM_ROUNDS") or 60)
POWER_FAILURES = max(ROUNDS // 4, 12)


class KvmTest(ProgramTest):
    """Monitors under stasis."""

    def sandbox(self):
        return kvm_harness.sandbox()

    def setUp(self):
        kvm_harness.need_monitor()
        super().setUp()
        self.monitor = MONITOR
        if self.box.user and not outside.open_to_all(MONITOR):
            place = self.box.dir / "monitor"
            shutil.copytree(MONITOR.parent / "kvm", place / "kvm")
            os.chmod(place, 0o755)
            self.monitor = place / "kvm_monitor"
            shutil.copy2(MONITOR, self.monitor)

    def start(self, guest, *options):
        self.output = Output(self, self.box.launch("vm", self.monitor, "--guest", guest, *options))

    def checkpoint(self, *flags):
        self.box.stasis("checkpoint", "vm", *flags)

    def stop(self):
        self.checkpoint("--stop")
        self.box.assert_gone("vm")

    def restart(self, what="vm"):
        with open(self.box.dir / "restart.output", "ab") as output:
            done = self.box.stasis("restart", what, "--background", check=False, stdout=output)
        self.assertEqual(done.returncode, 0, (self.box.dir / "restart.output").read_text())

    def kill(self):
        os.kill(self.box.session("vm")["processes"][0]["host_pid"], signal.SIGKILL)
        self.box.assert_gone("vm")

    def through_it_all(self, guest, *options):
        """Saved and going on; two generations of stop and restart; and back to the first checkpoint."""
        self.start(guest, *options)
        self.output.reach(5)
        self.checkpoint()
        self.output.go_on()
        for _ in range(2):
            self.stop()
            self.restart()
            self.output.go_on()
        self.output.whole()
        self.kill()
        self.restart("vm@1")
        self.output.go_on()
        self.output.whole()


class Devices(KvmTest):
    """Every access once."""

    def test_ports(self):
        self.through_it_all("pio")

    def test_ports_of_two_processors(self):
        self.through_it_all("pio", "--vcpus", "2")

    def test_ports_with_split_chip(self):
        self.through_it_all("pio", "--vcpus", "2", "--split")

    def test_ports_without_chip(self):
        self.through_it_all("pio", "--vcpus", "2", "--no-irqchip")

    def test_ports_with_kicks(self):
        self.through_it_all("pio", "--vcpus", "2", "--kick-ms", "3")

    def test_ports_with_kicks_by_signal_mask(self):
        self.through_it_all("pio", "--vcpus", "2", "--kick-ms", "3", "--signal-mask")

    def test_ports_and_registers_in_the_shared_page(self):
        self.through_it_all("pio", "--vcpus", "2", "--sync-regs")

    def test_registers_of_the_monitor(self):
        """MSRs that a filter leaves to it."""
        self.through_it_all("msr", "--vcpus", "2")

    def test_memory_space(self):
        self.through_it_all("mmio")

    def test_memory_space_of_two_processors(self):
        self.through_it_all("mmio", "--vcpus", "2")

    def test_memory_space_with_memfd_and_kicks(self):
        self.through_it_all("mmio", "--vcpus", "2", "--memfd", "--kick-ms", "3")


class ManyCheckpoints(KvmTest):
    """One after the other, at any instant; every twentieth stops the machine, which is restarted."""

    def many(self, guest, *options):
        self.start(guest, "--vcpus", "2", *options)
        self.output.reach(3)
        order = random.Random(guest)
        for number in range(1, ROUNDS + 1):
            time.sleep(order.uniform(0, 0.03))
            if number % 20 == 0:
                self.stop()
                self.restart()
            else:
                self.checkpoint()
            if number > 1:
                self.box.stasis("rm", f"vm@{number - 1}")
            self.output.go_on(1)
        self.output.whole()

    def test_ports(self):
        self.many("pio")

    def test_memory_space(self):
        self.many("mmio")

    def test_interrupts_and_kicks(self):
        self.many("msi")


class Clones(KvmTest):
    def test_two_beside_each_other(self):
        """The second has event descriptors with other identities than the one that was saved, and is saved again."""
        self.start("msi")
        self.output.reach(5)
        self.stop()
        outputs = []
        for name in "one", "two":
            with open(self.box.dir / "restart.output", "ab") as said:
                self.box.stasis("restart", "vm@1", "--name", name, "--background", stdout=said)
            outputs.append(Output(self, self.box.home / "store" / name / "files-1" / "vm.output"))
        for output in outputs:
            output.go_on()
        self.box.save_and_kill("two")
        with open(self.box.dir / "restart.output", "ab") as said:
            self.box.stasis("restart", "two", "--background", stdout=said)
        for output in outputs:
            output.go_on(10)
            output.whole()


class Killed(KvmTest):
    """kill -9 of the checkpoint at any instant: no access is lost or doubled, no vCPU waits for ever."""

    def kill_checkpoints(self, guest, *options):
        kills, seed = ROUNDS, int(os.environ.get("STASIS_SEED") or time.time())
        print(f"(STASIS_SEED={seed})", end=" ", flush=True)
        chance = random.Random(seed)
        self.start(guest, *options)
        self.output.reach(3)
        normal = sorted(self.box.stasis("checkpoint", "vm").took for _ in range(3))[1]
        killed = 0
        for i in range(kills):
            process = subprocess.Popen(self.box.line([self.box.binary, "checkpoint", "vm"]), env=self.box.env,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Half of them early, where vCPUs are brought to a stop and asked.
            time.sleep(chance.uniform(0, normal * (0.4 if i % 2 else 1.1)))
            process.kill()
            killed += process.wait() == -signal.SIGKILL
            if i % 10 == 9:
                self.output.go_on(2)
        self.assertGreater(killed, kills // 3, "too few were killed in the middle: this proves nothing")
        self.output.go_on()
        self.stop()
        self.restart()
        self.output.go_on()
        self.output.whole()

    def test_ports(self):
        self.kill_checkpoints("pio", "--vcpus", 2)

    def test_interrupts(self):
        self.kill_checkpoints("timer")


class NothingIsLost(KvmTest):
    def usable(self):
        return [one["id"] for one in json.loads(self.box.stasis("list", "vm", "--json").stdout) if one["usable"]]

    def test_full_disk(self):
        """An increment that does not go in leaves the machine running, and what was saved before."""
        if os.getuid() != 0:
            self.skipTest("only root can mount a small file system")
        store = self.box.home / "store"
        store.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=180m,mode=700", "stasis-test", store], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(store)])
        self.start("memory", "--memory", "96", "--dirty", "2000")
        self.output.reach(5)
        self.checkpoint()
        with contextlib.suppress(OSError), open(store / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 16))
        for flags in (), ("--stop",):
            failed = self.box.stasis("checkpoint", "vm", *flags, check=False)
            self.assertEqual(failed.returncode, 1, failed.stderr)
            self.assertRegex(failed.stderr, "(?i)space")
            self.assertEqual(self.usable(), [1])
            self.output.go_on()
        (store / "filler").unlink()
        self.checkpoint()
        self.output.go_on()
        self.kill()
        for which in "vm@1", "vm":
            self.restart(which)
            self.output.go_on()
            self.output.whole()
            self.kill()

    def test_power_failure(self):
        """The checkpoint and the machine end at the same instant, wherever they are: the newest that is complete goes on."""
        seed = int(os.environ.get("STASIS_SEED") or time.time())
        print(f"(STASIS_SEED={seed})", end=" ", flush=True)
        chance = random.Random(seed)
        self.start("memory", "--memory", "96", "--dirty", "500")
        self.output.reach(3)
        normal = sorted(self.box.stasis("checkpoint", "vm").took for _ in range(3))[1]
        in_the_middle = 0
        for _ in range(POWER_FAILURES):
            process = subprocess.Popen(self.box.line([self.box.binary, "checkpoint", "vm"]), env=self.box.env,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, normal * 1.1))
            os.kill(self.box.session("vm")["processes"][0]["host_pid"], signal.SIGKILL)
            process.kill()
            in_the_middle += process.wait() == -signal.SIGKILL
            self.box.assert_gone("vm")
            before = self.usable()
            self.box.stasis("verify", f"vm@{before[-1]}")
            self.restart()
            self.output.go_on(2)
            self.output.whole()
            if len(before) > 3:
                self.box.stasis("rm", f"vm@{before[0]}")
        self.assertGreater(in_the_middle, POWER_FAILURES // 3, "too few were in the middle: this proves nothing")


class Refused(KvmTest):
    def test_machine_without_the_library(self):
        with open(self.box.dir / "vm.output", "ab") as output:
            self.box.stasis("launch", "--kvm=off", "--name", "vm", "--background", "--", self.monitor, "--guest", "pio",
                            stdout=output)
        self.output = Output(self, self.box.dir / "vm.output")
        self.output.reach(3)
        refused = self.box.stasis("checkpoint", "vm", check=False)
        self.assertEqual(refused.returncode, 4, refused.stderr)
        self.assertIn("--kvm=off", refused.stderr)
        self.output.go_on()
        self.output.whole()

    def test_the_library_is_where_kvm_is_wanted(self):
        for flags, there in ((), True), (("--kvm=off",), False):
            said = self.box.stasis("launch", *flags, "--", "sh", "-c", "echo =$LD_PRELOAD=").stdout
            self.assertEqual("libstasis-kvm.so" in said, there, said)
        self.box.env["LD_PRELOAD"] = "libc.so.6"
        said = self.box.stasis("launch", "--", "sh", "-c", "echo =$LD_PRELOAD=").stdout
        self.assertRegex(said, "=libc.so.6:.*libstasis-kvm.so=")

    def test_check_tells_of_kvm(self):
        rows = {row["name"]: row for row in json.loads(self.box.stasis("check", "--json").stdout)["checks"]}
        self.assertEqual(rows["KVM"]["state"], "ok", rows["KVM"])
        self.assertIn("KVM: TSC scaling", rows)


class Processors(KvmTest):
    def test_two(self):
        self.through_it_all("smp", "--vcpus", "2")
        self.assertIn("processors 2", self.output.lines()[-1][1])

    def test_two_with_split_chip_and_memfd(self):
        self.through_it_all("smp", "--vcpus", "2", "--split", "--memfd")
        self.assertIn("processors 2", self.output.lines()[-1][1])

    def waiting(self, guest, *options):
        typed = self.box.write("typed", "", 0o644)
        self.start(guest, "--input", typed, *options)
        self.output.reach(3)
        self.checkpoint()
        self.output.go_on()
        for _ in range(2):
            self.stop()
            self.restart()
            self.output.go_on()
        self.assertIn("processors 1 ", self.output.lines()[-1][1])
        typed.write_text("x")
        wait_for("the second processor counts",
                 lambda: re.search(r"processors 2 counts \d+ [1-9]", self.output.text()))
        self.stop()
        self.restart()
        self.output.go_on()
        self.output.whole()

    def test_one_that_waits_for_init(self):
        self.waiting("sipi-wait")

    def test_one_that_waits_for_sipi(self):
        self.waiting("init-wait")

    def test_one_that_waits_for_sipi_with_split_chip(self):
        self.waiting("init-wait", "--split")

    def test_registers(self):
        self.through_it_all("registers", "--vcpus", "2")

    def test_registers_with_split_chip(self):
        self.through_it_all("registers", "--split")

    def test_registers_without_chip(self):
        self.through_it_all("registers", "--no-irqchip")


class Interrupts(KvmTest):
    def test_local_timer(self):
        self.through_it_all("timer", "--vcpus", "2")

    def test_local_timer_with_split_chip(self):
        self.through_it_all("timer", "--split")

    def test_deadline_timer(self):
        self.through_it_all("deadline")

    def test_deadline_timer_with_split_chip(self):
        self.through_it_all("deadline", "--split")

    def test_pic_and_pit(self):
        self.through_it_all("pit")

    def of_monitor(self, *options):
        self.through_it_all("msi", *options)
        # Both go on in the monitor's own count as well.
        counts = re.findall(r"^KICKS (\d+) interrupts (\d+)\n", self.output.text(), re.MULTILINE)
        for kind in range(2):
            self.assertGreater(int(counts[-1][kind]), int(counts[-4][kind]))

    def test_messages(self):
        self.of_monitor()

    def test_messages_with_split_chip(self):
        self.of_monitor("--split", "--memfd")

    def test_pin(self):
        self.of_monitor("--pin")


class Time(KvmTest):
    def clocks(self):
        """Of the first processor, in seconds."""
        return [int(found) / 1e9 for _, rest in self.output.lines() for found in re.findall(r"clock (\d+)", rest)[:1]]

    def through(self, *options):
        """What passes while the machine is not running does not pass in it. That its TSC goes on from where it stood
        cannot be had everywhere (a KVM without VMX gives the guest the processor's own, whatever is set), but it
        may never go back, which the guest checks."""
        self.start("clock", "--jump", "3600", *options)
        self.output.reach(5)
        self.checkpoint()
        self.output.go_on()
        for _ in range(2):
            self.stop()
            time.sleep(4)
            self.restart()
            self.output.go_on()
        self.output.whole()
        clocks = self.clocks()
        steps = [after - before for before, after in zip(clocks, clocks[1:])]
        self.assertLess(max(steps), 3, clocks)

    def test_clocks(self):
        self.through()

    def test_clocks_of_two_processors(self):
        self.through("--vcpus", "2")

    def test_clocks_with_split_chip(self):
        self.through("--vcpus", "2", "--split")


class Memory(KvmTest):
    """Besides RAM a slot that can only be read, and one that moves."""

    def test_private(self):
        self.through_it_all("memory", "--memory", "96")

    def test_private_and_written_all_the_time(self):
        self.through_it_all("memory", "--memory", "96", "--dirty", "2000")

    def test_shared(self):
        self.through_it_all("memory", "--memory", "96", "--memfd", "--dirty", "500")

    def test_dirty_log(self):
        """The monitor's own log of what was written has all of it, across checkpoints and restarts."""
        self.through_it_all("memory", "--memory", "64", "--dirty-log")


class OrdinaryUser(KvmTest):
    def sandbox(self):
        return kvm_harness.sandbox_of_user(self)

    def test_ports(self):
        self.through_it_all("pio", "--vcpus", "2")

    def test_registers(self):
        self.through_it_all("registers", "--vcpus", "2")

    def test_messages(self):
        self.through_it_all("msi", "--split")

    def test_restart_by_who_may_not_open_the_device(self):
        """Said before anything is done; and it goes on when the device is there again."""
        self.start("pio")
        self.output.reach(3)
        self.stop()
        mode = kvm_harness.DEVICE.stat().st_mode & 0o777
        os.chmod(kvm_harness.DEVICE, 0o600)
        try:
            refused = self.box.stasis("restart", "vm", "--background", check=False)
        finally:
            os.chmod(kvm_harness.DEVICE, mode)
        self.assertEqual(refused.returncode, 5, refused.stderr)
        self.assertIn("/dev/kvm", refused.stderr)
        self.assertIn("stasis check", refused.stderr)
        self.assertIsNone((self.box.session("vm") or {}).get("processes") or None)
        self.restart()
        self.output.go_on()
        self.output.whole()


if __name__ == "__main__":
    unittest.main()
