#!/usr/bin/python3
"""kill -9 of stasis at any instant. A program that checks itself all the time runs meanwhile and must never notice;
afterwards checkpoint and restart work. $STASIS_KILLS is the number of instants (default 200)."""
import os
import random
import signal
import subprocess
import time
import unittest

from common import SubjectTest, outside, wait_for

KILLS = int(os.environ.get("STASIS_KILLS", "200"))
SEED = int(os.environ.get("STASIS_SEED", str(int(time.time()))))


class KillTest(SubjectTest):
    def setUp(self):
        super().setUp()
        self.random = random.Random(SEED)
        print(f"(STASIS_SEED={SEED})", end=" ", flush=True)

    def kill_after(self, delay, *args, whole_group):
        """Starts stasis, kills it after the delay; its status, or None when it was killed."""
        process = subprocess.Popen(self.box.line([self.box.binary, *args]), env=self.box.env, cwd=self.box.dir,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        time.sleep(delay)
        if whole_group:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        else:
            process.kill()
        status = process.wait()
        return None if status == -signal.SIGKILL else status

    def duration(self, *args):
        times = []
        for _ in range(5):
            times.append(self.box.stasis(*args).took)
        return sorted(times)[2]

    def kill_checkpoints(self, program, case, kills):
        self.start(program, case)
        normal = self.duration("checkpoint", "s")
        killed = 0
        for i in range(kills):
            # Half of them early, where the program is frozen and changed; the others anywhere.
            delay = self.random.uniform(0, normal * (0.4 if i % 2 else 1.1))
            if self.kill_after(delay, "checkpoint", "s", whole_group=i % 3 == 0) is None:
                killed += 1
            if i % 5 == 0:
                self.assert_lives(f"kill {i}, {delay * 1000:.1f} ms into a checkpoint")
            if i % 25 == 24:
                self.box.stasis("checkpoint", "s")
        self.assertGreater(killed, kills // 3, "too few were killed in the middle: this proves nothing")
        self.assert_lives(f"{killed} killed checkpoints")
        for entry in self.checkpoints():
            if entry["usable"]:
                last = entry
        self.box.stasis("verify", last["directory"], timeout=60)

        self.box.stasis("checkpoint", "s")
        self.assert_lives("the last checkpoint")
        self.box.save_and_kill("s")
        self.assertEqual(self.processes(), [])
        self.box.restart("s")
        self.assert_lives("the restart")
        self.verify_in_the_end()
        return killed

    def test_checkpoint_of_a_busy_program(self):
        killed = self.kill_checkpoints("busy", "everything", KILLS)
        print(f"({killed} of {KILLS} in the middle)", end=" ", flush=True)

    def test_checkpoint_of_one_that_sleeps(self):
        # Asleep in a system call nearly always: the other way to be stopped.
        self.kill_checkpoints("timers", "clocks_do_not_jump", max(KILLS // 4, 20))

    def test_checkpoint_of_threads(self):
        self.kill_checkpoints("threads", "many", max(KILLS // 4, 20))

    def test_checkpoint_during_a_fork_storm(self):
        self.kill_checkpoints("turmoil", "fork_storm", max(KILLS // 4, 20))

    def test_restart_leaves_nothing_behind(self):
        self.start("busy", "everything")
        self.box.save_and_kill("s")
        self.assertEqual(self.processes(), [])
        times = []
        for i in range(3):
            started = time.monotonic()
            self.box.restart("s", "--name", f"whole{i}")
            times.append(time.monotonic() - started)
            self.assert_lives("a restart")
            self.box.stasis("signal", f"whole{i}", "KILL", check=False)
            self.end_all()
        normal = sorted(times)[1]
        unfinished = 0
        for i in range(max(KILLS // 3, 30)):
            name = f"r{i}"
            delay = self.random.uniform(0, normal * 1.2)
            self.kill_after(delay, "restart", "s", "--name", name, whole_group=False)
            # Either it had come to its end, and the program lives without it; or there is nothing.
            for _ in range(200):
                left = self.processes()
                if not left or (self.place / "ping").exists() is False and self.answers(0.2):
                    break
                time.sleep(0.01)
            left = self.processes()
            if not left:
                unfinished += 1
                (self.place / "ping").unlink(missing_ok=True)
                continue
            self.assert_lives(f"the supervisor of a restart was killed after {delay * 1000:.1f} ms, "
                              f"{len(left)} processes")
            self.end_all()
        print(f"({unfinished} were unfinished)", end=" ", flush=True)
        self.assertGreater(unfinished, 5)
        self.box.restart("s", "--name", "last")
        self.assert_lives("all that")
        self.verify_in_the_end()

    def end_all(self):
        def gone():
            for pid in outside.having_in_environment(f"SUBJECT_DIR={self.place}"):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not outside.having_in_environment(f"SUBJECT_DIR={self.place}")

        wait_for("all are gone", gone, 10)

    def test_supervisor_dies(self):
        """launch stands by the program and is not needed by it."""
        self.start("pipes", "between_processes")
        session = self.box.session("s")
        inside = {p["host_pid"] for p in session["processes"]}
        for pid in outside.having_in_environment(f"SUBJECT_DIR={self.place}"):
            try:
                is_ours = os.readlink(f"/proc/{pid}/exe").startswith(str(self.box.binary))
                numbers = outside.read(f"/proc/{pid}/status").partition("NSpid:")[2].split("\n")[0].split()
            except OSError:
                continue
            # Not the session's init: when the kernel loses that it ends the whole namespace.
            if is_ours and pid not in inside and len(numbers) == 1:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        self.assert_lives("the death of its supervisor")
        self.box.stasis("checkpoint", "s", "--stop")
        wait_for("it is gone", lambda: not self.processes(), 10)
        self.box.restart("s")
        self.assert_lives("the restart")
        self.verify_in_the_end()


if __name__ == "__main__":
    unittest.main()
