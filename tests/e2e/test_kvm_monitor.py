"""The monitor of tests/kvm without stasis: its guests run, notice what is wrong, and do not notice signals and stops,
nor that their machine is made anew with the state it has."""
import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import kvm_harness
from kvm_harness import MONITOR, Output


class Monitor(unittest.TestCase):
    PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
    GUESTS = ["pio", "mmio", "smp", "timer", "deadline", "pit", "registers", "clock", "msi", "msr", "memory"]

    def setUp(self):
        kvm_harness.need_monitor()

    @contextlib.contextmanager
    def running(self, *options):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "output"
            with open(path, "wb") as output:
                process = subprocess.Popen([MONITOR, *options], stdin=subprocess.DEVNULL, stdout=output)
            try:
                yield process, Output(self, path)
            finally:
                process.kill()
                process.wait()

    def run_to_end(self, *options):
        return subprocess.run([MONITOR, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, check=False)

    def test_every_guest(self):
        for guest in self.GUESTS:
            for variant in ([], ["--vcpus", "2"], ["--split", "--vcpus", "2"]):
                with self.subTest(guest=guest, variant=variant):
                    with self.running("--guest", guest, *variant) as (_, output):
                        output.reach(6)
                        output.whole()

    def test_seconds(self):
        done = self.run_to_end("--guest", "pio", "--seconds", "3")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("TICK 2 ", done.stdout)

    def test_what_is_wrong_is_noticed(self):
        wrong = [(guest, "--break-sequence") for guest in ("pio", "mmio", "msr")]
        wrong += [("registers", f"--disturb={what}") for what in ("general", "vector", "debug", "lapic", "msr")]
        wrong += [("timer", "--disturb=timer"), ("pit", "--disturb=pic"), ("clock", "--disturb=clock"),
                  ("memory", "--disturb=memory")]
        for guest, how in wrong:
            with self.subTest(guest=guest, how=how):
                done = self.run_to_end("--guest", guest, how, "--seconds", "6")
                if done.returncode != 77:
                    self.assertEqual(done.returncode, 1, done.stdout[-500:])
                    self.assertRegex(done.stdout, r"(?m)^BAD .*\n\Z")

    def test_a_processor_that_waits(self):
        for guest in ("sipi-wait", "init-wait"):
            for variant in ([], ["--split"], ["--reborn", "30"]):
                with self.subTest(guest=guest, variant=variant), tempfile.NamedTemporaryFile("w") as typed:
                    with self.running("--guest", guest, "--input", typed.name, *variant) as (_, output):
                        output.reach(4)
                        self.assertIn("processors 1 ", output.lines()[-1][1])
                        typed.write("x")
                        typed.flush()
                        output.go_on(6)
                        self.assertRegex(output.lines()[-1][1], r"processors 2 counts \d+ [1-9]")
                        output.whole()

    def vcpus(self, process):
        return [int(task.name) for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()
                if (task / "comm").read_text().startswith("vcpu")]

    def survives(self, what, *options):
        for guest in ("pio", "mmio", "timer", "registers", "msi"):
            with self.subTest(guest=guest), self.running("--guest", guest, "--vcpus", "2", *options) as running:
                process, output = running
                output.reach(2)
                vcpus = self.vcpus(process)
                self.assertEqual(len(vcpus), 2)
                for number in range(60):
                    what(process, vcpus[number % 2])
                output.go_on(3)
                output.whole()

    def stop_and_continue(self, process, _):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.005)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.005)

    def signal_thread(self, process, thread):
        libc = ctypes.CDLL(None, use_errno=True)
        self.assertEqual(libc.tgkill(process.pid, thread, signal.SIGUSR1), 0)
        time.sleep(0.003)

    def seize_thread(self, _, thread):
        """As a debugger does, or a checkpoint."""
        libc = ctypes.CDLL(None, use_errno=True)
        for request in (self.PTRACE_SEIZE, self.PTRACE_INTERRUPT):
            self.assertEqual(libc.ptrace(request, thread, None, None), 0, os.strerror(ctypes.get_errno()))
        os.waitpid(thread, self.WALL)
        self.assertEqual(libc.ptrace(self.PTRACE_DETACH, thread, None, None), 0)
        time.sleep(0.003)

    def test_stops(self):
        self.survives(self.stop_and_continue)

    def test_signals(self):
        self.survives(self.signal_thread)

    def test_signals_with_signal_mask(self):
        self.survives(self.signal_thread, "--signal-mask")

    def test_tracer(self):
        self.survives(self.seize_thread)

    def test_tracer_with_signal_mask_and_kicks(self):
        self.survives(self.seize_thread, "--signal-mask", "--kick-ms", "2")

    def test_reborn(self):
        """The monitor itself makes another machine with the state of the one that runs, again and again: what the
        kernel tells is enough, and the guests hold across a restore that is right."""
        kinds = [("pio",), ("pio", "--no-irqchip"), ("pio", "--sync-regs"), ("msr",), ("mmio", "--kick-ms", "3"),
                 ("smp",), ("timer",), ("timer", "--split"), ("deadline",), ("pit",), ("registers",),
                 ("registers", "--no-irqchip"),
                 ("registers", "--split"), ("clock",), ("msi",), ("msi", "--split"), ("msi", "--pin"),
                 ("memory", "--dirty-log"), ("memory", "--memfd", "--dirty", "500")]
        for kind in kinds:
            with self.subTest(kind=kind):
                with self.running("--vcpus", "2", "--reborn", "20", "--guest", *kind) as (_, output):
                    output.reach(12)
                    output.whole()


if __name__ == "__main__":
    unittest.main()
