#!/usr/bin/python3
"""What a session is across checkpoint and restart: who it belongs to, how it ends, its timer, its terminal."""
import ctypes
import json
import os
import signal
import subprocess
import threading
import time
import unittest
from pathlib import Path

from harness import ProgramTest, Terminal, wait_for

COUNTER = "i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.01; done"


class SessionTest(ProgramTest):
    def count(self):
        path = self.box.dir / "count"
        return int((path.exists() and path.read_text()) or 0)

    def goes_on(self):
        before = wait_for("it counts", self.count)
        wait_for("it goes on", lambda: self.count() > before)

    def record(self, name):
        return json.loads((self.box.home / "sessions" / name / "session.json").read_text())

    def popen(self, *args, **more):
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        process = subprocess.Popen(self.box.line([self.box.binary, *args]), env=self.box.env, cwd=self.box.dir, **more)
        self.addCleanup(self.finish, process)
        return process

    @staticmethod
    def finish(process):
        process.kill()
        process.communicate()

    def code(self, *args):
        return self.box.stasis(*args, check=False).returncode

    def background(self, *args):
        """Without a terminal, and with nothing of ours open."""
        process = self.popen(*args, stdout=subprocess.DEVNULL)
        self.assertEqual((process.wait(30), process.stderr.read()), (0, b""))

    def checkpoints(self, name):
        directory = self.box.home / "store" / name
        return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit()) if directory.exists() else []


class Life(SessionTest):
    def test_nobody_waits_with_the_waiting_child_of_a_vfork(self):
        turmoil = Path(os.environ["STASIS_BUILD"]) / "tests" / "subjects" / "turmoil"
        self.box.launch("v", "env", f"SUBJECT_DIR={self.box.dir}", str(turmoil), "vfork_whose_child_waits")
        wait_for("it is in vfork()", (self.box.dir / "in-vfork").exists)
        begun = time.monotonic()
        refused = self.box.stasis("checkpoint", "v", check=False)
        self.assertEqual(refused.returncode, 4)
        self.assertRegex(refused.stderr, r"waits in vfork\(\) until its child, task \d+ \(turmoil\)")
        # Who waits for others has some ten seconds of patience.
        self.assertLess(time.monotonic() - begun, 6)

    def test_foreground_learns_that_it_was_stopped(self):
        process = self.popen("launch", "--name", "s", "--", "sh", "-c", COUNTER)
        self.goes_on()
        self.box.stasis("checkpoint", "s", "--stop")
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(err, b"stasis: s was checkpointed and stopped; 'stasis restart s' continues it\n")
        stopped_at = self.count()
        process = self.popen("restart", "s")
        wait_for("it goes on", lambda: self.count() > stopped_at)
        self.box.stasis("signal", "s", "USR1")
        self.assertEqual(process.wait(30), -signal.SIGUSR1)

    def test_exit_status_after_restart(self):
        self.box.launch("s", "sh", "-c", "while ! test -e go; do sleep 0.01; done; exit 21")
        self.box.save_and_kill("s")
        process = self.popen("restart", "s")
        wait_for("it runs", lambda: self.box.session("s"))
        self.box.write("go", "")
        self.assertEqual(process.wait(30), 21)

    def test_signals_are_forwarded_after_restart(self):
        self.box.launch("s", "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.01; done")
        time.sleep(0.2)
        self.box.save_and_kill("s")
        process = self.popen("restart", "s")
        wait_for("it runs", lambda: self.box.session("s"))
        process.terminate()
        self.assertEqual(process.wait(30), 9)

    def test_restart_supervisor_is_killed(self):
        self.box.launch("s", "sh", "-c", COUNTER)
        self.goes_on()
        self.box.save_and_kill("s")
        process = self.popen("restart", "s")
        wait_for("it runs", lambda: self.box.session("s"))
        process.kill()
        process.wait()
        self.goes_on()
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.goes_on()

    def test_restart_of_what_runs(self):
        self.box.launch("s", "sleep", "300")
        self.box.stasis("checkpoint", "s")
        self.assertEqual(self.code("restart", "s", "--background"), 6)
        self.box.restart("s", "--name", "t")
        self.assertEqual(self.code("restart", "s@1", "--name", "t", "--background"), 6)
        for name in "s", "t":
            self.assertEqual([p["comm"] for p in self.box.session(name)["processes"]], ["sleep"])
        # The copy has checkpoints of its own.
        self.box.stasis("checkpoint", "t")
        self.assertEqual((self.checkpoints("s"), self.checkpoints("t")), ([1], [1]))

    def test_ids_and_directories(self):
        self.box.launch("s", "sleep", "300")
        for _ in range(3):
            self.box.stasis("checkpoint", "s")
        self.assertEqual(self.checkpoints("s"), [1, 2, 3])
        self.box.restart("s@2", "--name", "two")
        self.box.restart(str(self.box.home / "store" / "s" / "3"), "--name", "three")
        self.assertEqual(self.code("restart", "s@9", "--name", "nine", "--background"), 3)
        self.assertEqual(self.code("restart", "nobody", "--background"), 3)
        self.assertEqual(self.code("checkpoint", "nobody"), 3)
        self.assertFalse((self.box.home / "sessions" / "nine").exists())

    def test_failed_restart_leaves_nothing(self):
        self.box.launch("s", "sh", "-c", COUNTER)
        self.goes_on()
        self.box.save_and_kill("s")
        before = (self.box.home / "sessions" / "s" / "session.json").read_text()
        manifest = self.box.home / "store" / "s" / "1" / "manifest"
        content = manifest.read_bytes()
        manifest.write_bytes(content[:-100] + bytes(255 - byte for byte in content[-100:]))
        self.assertEqual(self.code("restart", "s", "--background"), 7)
        self.assertEqual(self.code("restart", "s", "--name", "new", "--background"), 7)
        self.assertFalse((self.box.home / "sessions" / "new").exists())
        self.assertEqual((self.box.home / "sessions" / "s" / "session.json").read_text(), before)
        manifest.write_bytes(content)
        self.box.restart("s")
        self.goes_on()

    def test_own_store(self):
        store = self.box.dir / "elsewhere"
        self.background("launch", "--name", "s", "--store", "elsewhere", "--background", "--", "sleep", "300")
        self.box.save_and_kill("s")
        self.assertTrue((store / "s" / "1" / "manifest").exists())
        self.box.restart("s")  # the record knows where
        self.box.save_and_kill("s")
        self.assertTrue((store / "s" / "2").exists())
        (self.box.home / "sessions" / "s" / "session.json").unlink()
        self.assertEqual(self.code("restart", "s", "--background"), 3)
        self.box.restart("s", "--store", str(store))

    def test_names_with_checkpoints_are_taken(self):
        self.background("launch", "--background", "--", "sleep", "300")
        self.box.save_and_kill("sleep")
        self.background("launch", "--background", "--", "sleep", "300")
        self.assertTrue(self.box.session("sleep-2"))
        self.assertIsNone(self.box.session("sleep"))

    def test_pipes_are_those_of_restart(self):
        process = self.popen("launch", "--name", "s", "--", "cat", stdin=subprocess.PIPE)
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"one\n")
        self.box.stasis("checkpoint", "s", "--stop")
        self.assertEqual(process.wait(30), 0)
        process = self.popen("restart", "s", stdin=subprocess.PIPE)
        out, err = process.communicate(b"two\n", timeout=30)
        self.assertEqual((process.returncode, out, err), (0, b"two\n", b""))

    def test_nobody_else_works_on_it(self):
        self.box.launch("s", "/usr/bin/python3", "-c",
                        "import time; x = bytearray(b'x') * (200 << 20); print('ready', flush=True); time.sleep(300)")
        wait_for("it is ready", lambda: "ready" in (self.box.dir / "s.output").read_text())
        crowd = [self.popen("checkpoint", "s") for _ in range(6)]
        codes = {process.wait(60) for process in crowd}
        self.assertEqual(codes, {0, 6})


class Sleep(SessionTest):
    def test_somebody_sends_what_threads_report_by(self):
        """SIGURG, which they ignore: it must not be taken for the end of what they do for a checkpoint."""
        threads = 60
        self.box.write("many.py", f"""
import ctypes, threading, time
SET, GET, SLACK = 29, 30, 123456  # PR_SET_TIMERSLACK, PR_GET_TIMERSLACK
libc = ctypes.CDLL(None)
libc.prctl(SET, SLACK)  # those that it makes inherit it
def count():
    while True:
        time.sleep(0.001)
        if libc.prctl(GET) != SLACK:
            open("wrong", "w").close()
for number in range({threads}):
    threading.Thread(target=count, daemon=True).start()
open("ready", "w").close()
while True:
    open("count", "w").write(str(time.monotonic_ns()))
    time.sleep(0.01)
""", 0o644)
        self.box.launch("many", "/usr/bin/python3", "many.py")
        wait_for("it is ready", (self.box.dir / "ready").exists)
        task = Path("/proc") / str(self.box.session("many")["processes"][0]["host_pid"]) / "task"
        over = threading.Event()

        def pester():
            while not over.is_set():
                for tid in task.iterdir():
                    ctypes.CDLL(None).syscall(234, int(task.parent.name), int(tid.name), int(signal.SIGURG))  # tgkill
        pest = threading.Thread(target=pester)
        pest.start()
        try:
            for _ in range(15):
                self.box.stasis("checkpoint", "many")
            self.goes_on()
        finally:
            over.set()
            pest.join()
        saved = json.loads(self.box.stasis("inspect", "many", "--json").stdout)
        self.assertEqual(len(saved["processes"][0]["threads"]), threads + 1)
        self.box.save_and_kill("many")
        for number in range(1, 17, 5):
            self.box.restart(f"many@{number}", "--name", f"many-{number}")
        time.sleep(0.5)
        self.goes_on()
        self.assertFalse((self.box.dir / "wrong").exists())

    def test_one_sleep_and_many_checkpoints(self):
        """It ends when it would have ended, whichever of the checkpoints it goes on from."""
        whole = 3.0
        self.box.launch("s", "sleep", whole)
        begun = time.monotonic()
        for number in range(1, 4):
            time.sleep(0.5)
            self.box.stasis("checkpoint", "s")
        slept = time.monotonic() - begun
        self.box.stasis("checkpoint", "s", "--stop")
        for what, left in ("s", whole - slept), ("s@2", whole - 1.0):
            started = time.monotonic()
            self.box.stasis("restart", what)
            took = time.monotonic() - started
            self.assertGreater(took, left - 0.3, what)
            self.assertLess(took, left + 0.8, what)


class Timer(SessionTest):
    def test_interval_and_keep(self):
        timer = ["--interval", "1s", "--keep", "2"]
        self.background("launch", "--name", "s", *timer, "--background", "--", "sleep", "300")
        self.box.stasis("checkpoint", "s", "--tag", "mine")
        wait_for("three more are made and one is removed", lambda: self.checkpoints("s")[-1:] >= [4]
                 and len(self.checkpoints("s")) == 3)
        self.assertEqual(self.checkpoints("s")[0], 1)
        init = self.record("s")["init_pid"]
        supervisor = int(Path(f"/proc/{init}/stat").read_text().rsplit(")", 1)[1].split()[1])
        self.assertEqual(Path(f"/proc/{supervisor}/comm").read_text(), f"{self.box.binary.name[:15]}\n")
        os.kill(supervisor, signal.SIGKILL)
        time.sleep(0.1)
        self.assertTrue(self.box.session("s"))
        self.box.save_and_kill("s")
        # The timer goes on when the session does.
        last = self.checkpoints("s")[-1]
        self.box.restart("s")
        wait_for("it is saved again", lambda: self.checkpoints("s")[-1] > last)

    def test_what_keeps_the_timer_from_saving_is_shown(self):
        path = self.box.write("written", "x" * 100_000, 0o666)
        self.background("launch", "--name", "s", "--interval", "1s", "--files-limit", "64K", "--background", "--", "sh", "-c",
                        "exec 5<> written; sleep 300")

        def failure():
            return self.box.session("s")["interval_failure"]
        wait_for("it fails", failure)
        self.assertIn("written", failure()["message"])
        since = failure()["since"]
        said = self.box.stasis("ps").stderr
        self.assertIn("s: its checkpoints by interval fail since", said)
        self.assertIn("--files-limit", said)
        path.write_text("")  # now it may be copied
        wait_for("it is saved", lambda: self.checkpoints("s"))
        wait_for("nothing is wrong any more", lambda: failure() is None)
        self.assertNotIn("interval", self.box.stasis("ps").stderr)
        path.write_text("x" * 100_000)
        wait_for("it fails again", failure)
        self.assertGreaterEqual(failure()["since"], since)

    def test_supervisor_in_the_background_ends_with_the_session(self):
        self.background("launch", "--name", "s", "--interval", "1h", "--background", "--", "sleep", "300")
        init = self.record("s")["init_pid"]
        supervisor = int(Path(f"/proc/{init}/stat").read_text().rsplit(")", 1)[1].split()[1])
        self.box.stasis("signal", "s", "TERM")

        def has_ended():
            try:
                return Path(f"/proc/{supervisor}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                return True
        wait_for("it ends", has_ended)


class TheTerminal(SessionTest):
    def test_background_terminal_after_restart(self):
        process = self.popen("launch", "--background", "--name", "s", "--", "bash", "--norc", "--noprofile", "-i",
                             stdin=subprocess.PIPE)
        self.assertEqual(process.wait(30), 0)
        terminal = Terminal(self.box, "attach", "s")
        terminal.send("x=5150\n")
        terminal.expect("x=5150\r\n")
        terminal.send("\x1d")
        self.assertEqual(terminal.end(), 0)
        self.box.save_and_kill("s")
        process = self.popen("restart", "s", "--background", stdin=subprocess.PIPE)
        self.assertEqual(process.wait(30), 0)
        terminal = Terminal(self.box, "attach", "s", rows=40, columns=100)
        terminal.send("echo value $x; stty size; tty\n")
        terminal.expect("value 5150\r\n40 100\r\n/dev/pts/\\d+\r\n")
        terminal.send("exit 3\n")
        self.assertEqual(terminal.end(), 3)

    def test_stopped_at_a_terminal(self):
        import termios
        terminal = Terminal(self.box, "launch", "--name", "s", "--", "cat")
        wait_for("it is raw", terminal.is_raw)
        terminal.send("a\n")
        terminal.expect("a\r\na\r\n")
        self.box.stasis("checkpoint", "s", "--stop")
        terminal.expect("'stasis restart s' continues it")
        wait_for("the terminal is as before", lambda: termios.tcgetattr(terminal.master)[3] & termios.ICANON)
        self.assertEqual(terminal.end(), 0)

    def test_terminal_to_no_terminal(self):
        """A program that had a terminal goes on where there is none: its terminal talks to plain pipes."""
        terminal = Terminal(self.box, "launch", "--name", "s", "--", "cat")
        wait_for("it is raw", terminal.is_raw)
        terminal.send("one\n")
        terminal.expect("one\r\none\r\n")
        self.box.save_and_kill("s")
        self.assertEqual(terminal.end(), 0)
        process = self.popen("restart", "s", stdin=subprocess.PIPE)
        process.stdin.write(b"two\n")
        process.stdin.flush()
        self.assertEqual([process.stdout.readline() for _ in range(2)], [b"two\r\n", b"two\r\n"])
        process.stdin.write(b"\x04")
        process.stdin.flush()
        self.assertEqual(process.wait(30), 0)


if __name__ == "__main__":
    unittest.main()
