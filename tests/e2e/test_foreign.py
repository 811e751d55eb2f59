#!/usr/bin/python3
"""checkpoint --pid: programs that stasis did not launch, of the ordinary user and of root."""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import unittest

from harness import ProgramTest, Redis, Sandbox, Terminal, find_program, free_port, wait_for

# Two children with a pipe between them; the second writes what it gets to the standard output of all. System calls
# are made without Python's own help against EINTR.
PIPELINE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
directory = sys.argv[1]
def producer(out):
    number = 0
    while not os.path.exists(directory + "/stop"):
        number += 1
        os.write(out, b"%d\\n" % number)
        if libc.usleep(5000) != 0:
            os._exit(3)
    os._exit(0)
def consumer(source):
    buffer = ctypes.create_string_buffer(4096)
    while True:
        size = libc.read(source, buffer, 4096)
        if size < 0:
            os._exit(4)
        if size == 0:
            os._exit(0)
        os.write(1, buffer.raw[:size])
read_end, write_end = os.pipe()
children = []
for work, end in (producer, write_end), (consumer, read_end):
    child = os.fork()
    if child == 0:
        os.close(read_end if end == write_end else write_end)
        work(end)
    children.append(child)
os.close(read_end)
os.close(write_end)
with open(directory + "/pids", "w") as pids:
    print(os.getpid(), *children, file=pids)
failed = [status for _, status in (os.waitpid(child, 0) for child in children) if status]
sys.exit(failed[0] >> 8 if failed else 7)
"""

THREADS = """
import os, sys, threading, time
directory = sys.argv[1]
lock, counts, ended = threading.Lock(), [0] * 4, threading.Event()
def count(which):
    while not ended.is_set():
        with lock:
            counts[which] += 1
        time.sleep(0.002)
threads = [threading.Thread(target=count, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
number = 0
while not os.path.exists(directory + "/stop"):
    number += 1
    before = list(counts)
    for attempt in range(100):  # a machine under load may have no processor for one of them for a while
        time.sleep(0.05)
        if all(a > b for a, b in zip(counts, before)):
            break
    else:
        sys.exit(f"not all threads go on: {counts} after {before}")
    print(number, flush=True)
ended.set()
for thread in threads:
    thread.join()
sys.exit(7)
"""


# The child stays in the session, and group, that its father has left, and has a terminal's number for its own there.
LEAVER = """
import os, sys, time
directory = sys.argv[1]
if os.fork() == 0:
    before = os.getsid(0), os.getpgrp()
    while not os.path.exists(directory + "/stop"):
        now = os.getsid(0), os.getpgrp()
        # What is led from outside of the namespace, by 0, gets a number at a restart.
        before = tuple(old or new for old, new in zip(before, now))
        assert now == before, (before, now)
        time.sleep(0.01)
    os._exit(0)
os.setsid()
number = 0
while not os.path.exists(directory + "/stop"):
    number += 1
    assert os.getsid(0) == os.getpid() == os.getpgrp()
    print(number, flush=True)
    time.sleep(0.005)
sys.exit(7 if os.wait()[1] == 0 else 1)
"""

# Fathers end while their children live, who are adopted from outside: nobody may be left stopped, or be lost.
STORM = """
import os, sys, time
directory = sys.argv[1]
number = 0
while not os.path.exists(directory + "/stop"):
    number += 1
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            time.sleep(0.02)
            with open(directory + "/ended", "ab", 0) as ended:
                ended.write(b".")
        os._exit(number & 127)
    assert os.waitpid(child, 0) == (child, (number & 127) << 8)
    print(number, flush=True)
sys.exit(7)
"""

# A segment that only it has attached, a queue and a semaphore: their namespace is the host's.
SYSTEM_V = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
def call(function, *arguments):
    result = function(*arguments)
    assert result != -1, (function, os.strerror(ctypes.get_errno()))
    return result
CREATE, REMOVE, SET, GET = 0o1600, 0, 16, 12
segment = call(libc.shmget, 0, 8192, CREATE)
memory = call(libc.shmat, segment, None, 0)
ctypes.memmove(memory, b"in the segment", 14)
queue = call(libc.msgget, 0, CREATE)
call(libc.msgsnd, queue, b"\\1\\0\\0\\0\\0\\0\\0\\0in the queue", 12, 0)
semaphore = call(libc.semget, 0, 1, CREATE)
call(libc.semctl, semaphore, 0, SET, 42)
number = 0
while not os.path.exists(sys.argv[1] + "/stop"):
    number += 1
    assert ctypes.string_at(memory, 14) == b"in the segment"
    assert libc.semctl(semaphore, 0, GET) == 42
    print(number, flush=True)
    time.sleep(0.005)
text = ctypes.create_string_buffer(100)
assert call(libc.msgrcv, queue, text, 92, 0, 0) == 12 and text.raw[8:20] == b"in the queue"
call(libc.shmctl, segment, REMOVE, None)
call(libc.msgctl, queue, REMOVE, None)
call(libc.semctl, semaphore, 0, REMOVE)
sys.exit(7)
"""


class Stream:
    """The numbers that a program writes to a pipe, which must come one by one."""

    def __init__(self, process):
        self.process, self.first, self.last, self.rest = process, None, None, b""
        os.set_blocking(process.stdout.fileno(), False)

    def read(self):
        while data := self.process.stdout.read(65536):
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                number = int(line)
                assert self.last is None or number == self.last + 1, f"{number} comes after {self.last}"
                self.first = self.first or number
                self.last = number
        return self.last

    def await_more(self, count=20):
        start = self.read() or 0
        wait_for("it goes on counting", lambda: (self.read() or 0) >= start + count)
        return self.last

    def end(self):
        self.process.wait(30)
        self.read()
        self.process.stdout.close()
        return self.process.returncode


class Foreign:
    python = "/usr/bin/python3"

    def start(self, *line, leads=True, **streams):
        process = subprocess.Popen(self.box.line(line), env=self.box.env, cwd=self.box.dir, start_new_session=leads,
                                   **{"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **streams})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_counter(self, script=PIPELINE, **how):
        path = self.box.write("counter.py", script, 0o644)
        stream = Stream(self.start(self.python, path, self.box.dir, stdout=subprocess.PIPE, **how))
        stream.await_more(3)
        if script == PIPELINE:  # its children may be quicker than it
            pids = self.box.dir / "pids"
            wait_for("it tells who it is", lambda: pids.exists() and pids.read_text().startswith(f"{stream.process.pid} ")
                     and pids.read_text().endswith("\n"))
        return stream

    def restart_counter(self, name, *flags):
        line = self.box.line([self.box.binary, "restart", name, *flags])
        with open(self.box.dir / f"{name}.errors", "wb") as errors:
            process = subprocess.Popen(line, env=self.box.env, cwd=self.box.dir, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=errors)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        stream = Stream(process)
        stream.await_more(5)
        return stream

    def save(self, pid, *flags):
        """The name under which it was saved."""
        report = json.loads(self.box.stasis("checkpoint", "--pid", pid, "--json", *flags).stdout)
        return report["session"]

    def stop(self, *streams):
        (self.box.dir / "stop").touch()
        for stream in streams:
            self.assertEqual(stream.end(), 7)

    def pids(self, name):
        return sorted(process["pid"] for process in self.box.session(name)["processes"])

    def check_counter(self, script, count, **how):
        original = self.start_counter(script, **how)
        pid = original.process.pid
        before = original.read()
        done = self.box.stasis("checkpoint", "--pid", pid, "--name", "counter")
        after = original.read()
        original.await_more()  # it is not disturbed
        self.assertEqual("leads one of its own" in done.stderr, not how.get("leads", True), done.stderr)
        # Two restarts at the same time, beside the original.
        restarted = self.restart_counter("counter")
        self.assertTrue(before < restarted.first <= after + 1 + 10, (before, restarted.first, after))
        other = self.restart_counter("counter", "--name", "other")
        self.assertEqual(other.first, restarted.first)
        for name in "counter", "other":
            self.assertEqual(len(self.pids(name)), count)
            self.assertIn(pid, self.pids(name))
            if count > 1:
                self.assertEqual(self.pids(name), sorted(map(int, (self.box.dir / "pids").read_text().split())))
        # The second generation, by name.
        self.box.stasis("checkpoint", "counter", "--stop")
        self.assertEqual(restarted.end(), 0)
        again = self.restart_counter("counter")
        self.assertEqual(again.first, restarted.last + 1)
        for stream in original, other, again:
            stream.await_more()
        self.stop(original, other, again)

    def test_pipeline(self):
        self.check_counter(PIPELINE, 3)

    def test_pipeline_in_a_session_of_others(self):
        self.check_counter(PIPELINE, 3, leads=False)

    def test_threads(self):
        self.check_counter(THREADS, 1)

    def test_left_session_of_others(self):
        original = self.start_counter(LEAVER, leads=False)
        self.save(original.process.pid, "--name", "leaver")
        restarted = self.restart_counter("leaver")
        self.assertEqual(len(self.pids("leaver")), 2)
        self.stop(original, restarted)

    def test_started_from_outside_of_its_container(self):
        if os.getuid() != 0:
            self.skipTest("only root makes a pid namespace without a user namespace")
        # All of it: the test, the program, and the command that saves it.
        names = [f"{type(self).__name__}.{test}" for test in ("test_left_session_of_others",
                                                              "test_pipeline_in_a_session_of_others")]
        for led_from in [], ["timeout", "60"]:  # the process group as well; a group inside of a session outside
            done = subprocess.run(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$@"; exit $?',
                                   "sh", *led_from, sys.executable, __file__, *names],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_orphans_are_born_all_the_time(self):
        original = self.start_counter(STORM)
        for number in range(10):
            self.save(original.process.pid, "--name", "storm")
            original.await_more(10)
        restarted = [self.restart_counter(f"storm@{number}", "--name", f"storm-{number}") for number in (1, 5, 10)]
        time.sleep(0.1)
        (self.box.dir / "stop").touch()
        self.assertEqual(original.end(), 7)
        time.sleep(0.1)
        ended = (self.box.dir / "ended").stat().st_size
        for stream in restarted:
            self.assertEqual(stream.end(), 7)
        # Some of those that stood still were saved as well, and ended once more.
        self.assertGreaterEqual(ended, original.last)

    def test_system_v(self):
        # Somebody else's, which may neither be read nor disturb.
        strange, user = None, os.environ.get("STASIS_TEST_USER")
        if user and os.getuid() == 0:
            who = [] if self.box.user else ["setpriv", f"--reuid={user}", "--clear-groups"]
            made = subprocess.run([*who, "ipcmk", "--shmem", "4096", "--mode", "0600"], check=True, capture_output=True,
                                  text=True)
            strange = made.stdout.split()[-1]
            self.addCleanup(subprocess.run, ["ipcrm", "--shmem-id", strange])
        original = self.start_counter(SYSTEM_V)
        self.save(original.process.pid, "--name", "objects")
        saved = list((self.box.home / "store" / "objects" / "1").glob("segment-*"))
        self.assertTrue(saved)
        self.assertNotIn(f"segment-{strange}.stasis-pages", [file.name for file in saved])
        restarted = self.restart_counter("objects")
        self.stop(original, restarted)

    def test_stop(self):
        original = self.start_counter()
        name = self.save(original.process.pid, "--stop")
        self.assertEqual(name, "python3")
        self.assertEqual(original.end(), -signal.SIGKILL)
        for pid in map(int, (self.box.dir / "pids").read_text().split()):
            self.assertFalse(os.path.exists(f"/proc/{pid}/exe"), pid)
        restarted = self.restart_counter(name)
        self.assertEqual(restarted.first, original.last + 1)  # nothing ran in between
        self.stop(restarted)

    def test_the_same_program_again(self):
        original = self.start_counter()
        store = self.box.dir / "elsewhere"
        for number in 1, 2, 3:
            report = json.loads(self.box.stasis("checkpoint", "--pid", original.process.pid, "--json", *(
                ["--store", store] if number == 1 else [])).stdout)
            self.assertEqual((report["session"], report["id"], report["base"]), ("python3", number, number - 1))
            original.await_more()
        restarted = self.restart_counter("python3@2")  # finds the store
        # The name is that of a session now.
        refused = self.box.stasis("checkpoint", "--pid", original.process.pid, "--name", "python3", check=False)
        self.assertEqual(refused.returncode, 6, refused.stderr)
        self.assertIn("a session of this name runs already", refused.stderr)
        self.assertEqual(self.save(original.process.pid), "python3-2")
        self.stop(original, restarted)

    def test_file_that_the_original_goes_on_writing(self):
        script = self.box.write("writer.py", """
import os, sys, time
number = 0
with open("numbers", "w") as out:
    while not os.path.exists("stop"):
        number += 1
        print(number, file=out, flush=True)
        time.sleep(0.005)
""", 0o644)
        original = self.start(self.python, script)
        numbers = self.box.dir / "numbers"
        wait_for("it begins", lambda: numbers.exists() and len(numbers.read_text()) > 20)
        name = self.save(original.pid)
        before = numbers.stat().st_ino
        self.box.restart(name)
        self.assertEqual(numbers.stat().st_ino, before)
        process, = self.box.session(name)["processes"]
        self.assertNotIn(before, [os.stat(f"/proc/{process['host_pid']}/fd/{number}").st_ino
                                  for number in os.listdir(f"/proc/{process['host_pid']}/fd")])
        time.sleep(0.3)
        (self.box.dir / "stop").touch()
        self.assertEqual(original.wait(30), 0)
        wait_for("the restarted one ends", lambda: not self.box.session(name))
        written = list(map(int, numbers.read_text().split()))
        self.assertEqual(written, list(range(1, len(written) + 1)))

    def check_redis(self, *daemon):
        port = free_port()
        server = self.start(find_program("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir",
                            self.box.dir, *daemon, stdout=subprocess.DEVNULL)
        wait_for("redis answers", lambda: Redis.ready(port))
        client = Redis(port)
        client("SET", "key", "x" * 100000)
        for i in range(100):
            client("RPUSH", "list", i)
        info = dict(line.split(":", 1) for line in client("INFO", "server").decode().splitlines() if ":" in line)
        pid = int(info["process_id"])
        client.close()
        self.assertEqual(pid == server.pid, not daemon)
        self.assertEqual(self.save(pid), "redis-server")
        client = Redis(port)
        self.assertEqual(client("GET", "key"), b"x" * 100000)
        client("SET", "late", 1)
        client.close()
        self.box.stasis("checkpoint", "--pid", pid, "--stop")
        wait_for("it is gone", lambda: not Redis.ready(port))
        if not daemon:
            self.assertEqual(server.wait(30), -signal.SIGKILL)
        self.box.restart("redis-server")
        wait_for("redis answers again", lambda: Redis.ready(port))
        client = Redis(port)
        self.assertEqual(client("GET", "key"), b"x" * 100000)
        self.assertEqual(client("GET", "late"), b"1")
        self.assertEqual(client("LRANGE", "list", 0, -1), [b"%d" % i for i in range(100)])
        self.assertEqual(self.pids("redis-server"), [pid])

    def test_redis(self):
        self.check_redis()

    def test_redis_as_a_daemon(self):
        self.check_redis("--daemonize", "yes")

    def start_bash(self):
        self.box.write("rc", "PS1='prompt> '\nunset PROMPT_COMMAND\nbind 'set enable-bracketed-paste off' 2>/dev/null\n")
        terminal = Terminal(self.box, program=[find_program("bash"), "--noprofile", "--rcfile", self.box.dir / "rc", "-i"])
        self.addCleanup(terminal.process.kill)
        terminal.expect("prompt> ")
        return terminal

    def restart_in_terminal(self, name):
        terminal = Terminal(self.box, "restart", name)
        self.addCleanup(terminal.process.kill)
        wait_for("the program has the terminal", terminal.is_raw)
        return terminal

    def press(self, terminal, key, answer):
        """Until the job has it: the shell says that a job goes on before it gives it the terminal."""
        for _ in range(5):
            terminal.send(key)
            try:
                return terminal.expect(answer, 5)
            except AssertionError as error:
                missing = error
        raise missing

    def test_bash_in_a_terminal(self):
        original = self.start_bash()
        original.send("x=4711; cd /usr; sleep 1000 & echo began\n")
        original.expect("began\r\n")
        original.expect("prompt> ")
        self.save(original.process.pid, "--name", "shell")
        terminal = self.restart_in_terminal("shell")
        terminal.send("echo value $x in $PWD from $$; jobs\n")
        terminal.expect(f"value 4711 in /usr from {original.process.pid}\r\n")
        terminal.expect("Running +sleep 1000")
        terminal.send("fg\n")
        terminal.expect("sleep 1000\r\n")
        self.press(terminal, "\x1a", "Stopped")
        terminal.expect("prompt> ")
        terminal.send("fg\n")
        terminal.expect("sleep 1000\r\n")
        self.press(terminal, "\x03", "prompt> ")
        terminal.send("exit 3\n")
        self.assertEqual(terminal.end(), 3)
        original.send("echo still $x\n")  # the original does not know
        original.expect("still 4711\r\n")
        original.send("kill %1; exit 5\n")
        self.assertEqual(original.end(), 5)

    def test_bash_with_a_child_in_the_foreground(self):
        original = self.start_bash()
        original.send("sleep 1000\n")
        original.expect("sleep 1000\r\n")
        wait_for("the child runs", lambda: children(original.process.pid))
        self.save(original.process.pid, "--name", "shell", "--stop")
        original.end()
        terminal = self.restart_in_terminal("shell")
        terminal.send("\x03")  # ^C: the terminal must know the job's group
        terminal.expect("prompt> ")
        terminal.send("echo code $?; exit 4\n")
        terminal.expect("code 130")
        self.assertEqual(terminal.end(), 4)

    def test_editor_of_a_shell_that_is_not_saved(self):
        vi = find_program("vim.basic", "vim.tiny", "vim")
        self.box.write("text", "first line\n", 0o644)
        shell = self.start_bash()
        shell.send(f"{vi} -u NONE text\n")
        shell.expect("first line")
        shell.send("osecond line")
        shell.expect("second line")
        editor, = children(shell.process.pid)
        name = self.save(editor, "--name", "editor")
        shell.send("\x1b:q!\n")
        shell.expect("prompt> ")
        terminal = self.restart_in_terminal(name)
        process, = self.box.session(name)["processes"]
        # Group, session, terminal, and the group in the foreground of that.
        group, session, device, foreground = map(int, pathlib.Path(f"/proc/{process['host_pid']}/stat").read_text()
                                                 .rsplit(")", 1)[1].split()[2:6])
        self.assertEqual((process["pid"], group, session, foreground), (editor, *[process["host_pid"]] * 3))
        self.assertNotEqual(device, 0)
        terminal.send(" is longer\x1b:wq\n")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual((self.box.dir / "text").read_text(), "first line\nsecond line is longer\n")
        shell.send("exit 6\n")
        self.assertEqual(shell.end(), 6)

    def test_killed_at_any_moment(self):
        original = self.start_counter()
        line = self.box.line([self.box.binary, "checkpoint", "--pid", original.process.pid, "--name", "killed"])
        chance = random.Random(4711)
        for _ in range(40):
            saver = subprocess.Popen(line, env=self.box.env, cwd=self.box.dir, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, 0.06))
            saver.kill()
            saver.wait()
            original.await_more(3)
        self.save(original.process.pid, "--name", "killed")
        restarted = self.restart_counter("killed")
        self.stop(original, restarted)

    def test_stop_killed_at_any_moment(self):
        """All of it runs on, or all of it has ended and is saved."""
        chance = random.Random(815)
        whole = self.start_counter()
        took = self.box.stasis("checkpoint", "--pid", whole.process.pid, "--name", "whole", "--stop").took
        whole.end()
        for number in range(16):
            original = self.start_counter()
            pids = (self.box.dir / "pids").read_text().split()
            saver = subprocess.Popen(self.box.line([self.box.binary, "checkpoint", "--pid", original.process.pid, "--name",
                                                    f"stop-{number}", "--stop"]), env=self.box.env, cwd=self.box.dir,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.3, 1.1) * took)
            saver.kill()
            saver.wait()
            time.sleep(0.1)
            alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe") and os.listdir(f"/proc/{pid}/fd")]
            self.assertIn(len(alive), (0, 3))
            if alive:
                original.await_more(3)
                self.stop(original)
                (self.box.dir / "stop").unlink()
                continue
            self.assertEqual(original.end(), -signal.SIGKILL)
            self.assertTrue((self.box.home / "store" / f"stop-{number}" / "1" / "manifest").exists())

    def assert_refused(self, pid, *words, code=4, **how):
        done = self.box.stasis("checkpoint", "--pid", pid, "--name", "refused", check=False, **how)
        self.assertEqual(done.returncode, code, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        for left in "sessions", "store":
            self.assertFalse((self.box.home / left / "refused").exists(), left)

    def test_refused(self):
        self.box.launch("known", "/usr/bin/sleep", "1000")
        process, = self.box.session("known")["processes"]
        self.assert_refused(process["host_pid"], "it belongs to the session known", "stasis checkpoint known")
        self.assert_refused(1, "first process of the system")
        # In a container's pid namespace there is none to be seen.
        if pathlib.Path("/proc/2/comm").read_text() == "kthreadd\n":
            self.assert_refused(2, "kernel")
        self.assert_refused(os.getpid(), "this command descends from")
        self.assert_refused(4_194_303, "no such process", code=3)
        threads = self.start_counter(THREADS)
        thread = max(map(int, os.listdir(f"/proc/{threads.process.pid}/task")))
        self.assert_refused(thread, f"it is a thread of process {threads.process.pid}")
        if self.box.user:
            other = subprocess.Popen(["/usr/bin/sleep", "1000"])
            self.addCleanup(other.wait)
            self.addCleanup(other.kill)
            self.assert_refused(other.pid, "only the owner", code=8)
        usage = self.box.stasis("checkpoint", check=False)
        self.assertEqual(usage.returncode, 2)
        usage = self.box.stasis("checkpoint", "known", "--pid", process["host_pid"], check=False)
        self.assertEqual(usage.returncode, 2)
        self.stop(threads)

    def test_child_of_another_user(self):
        if not self.box.user:
            self.skipTest("root may save it")
        user = self.box.user.pw_uid
        line = f"sleep 1000 & exec setpriv --reuid={user} --regid={self.box.user.pw_gid} --clear-groups sleep 1001"
        parent = subprocess.Popen(["/bin/sh", "-c", line], start_new_session=True)
        self.addCleanup(parent.wait)
        self.addCleanup(os.killpg, parent.pid, signal.SIGKILL)
        wait_for("it is the user's", lambda: os.stat(f"/proc/{parent.pid}").st_uid == user)
        self.assert_refused(parent.pid, "only the owner", code=8)
        # Where it cannot even be seen.
        line = self.box.line([self.box.binary, "checkpoint", "--pid", parent.pid])
        hidden = subprocess.run(["unshare", "--mount", "/bin/sh", "-c", 'mount -t proc -o hidepid=2 proc /proc; exec "$@"',
                                 "sh", *line], env=self.box.env, cwd=self.box.dir, capture_output=True, text=True)
        self.assertEqual(hidden.returncode, 4, hidden.stderr)
        self.assertIn("this user may not see it", hidden.stderr)

    def test_refused_with_a_session_inside(self):
        shell = self.start("/bin/sh", "-c", f"{self.box.binary} launch --name inner -- /usr/bin/sleep 1000; exit 1")
        wait_for("the session runs", lambda: (self.box.session("inner") or {}).get("state") == "running")
        self.assert_refused(shell.pid, "pid namespace of its own", "stasis ps")


def children(pid):
    return list(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


QUEUE = """
import ctypes, os, sys, time
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_long), ("text", ctypes.c_char * 16)]
libc = ctypes.CDLL(None, use_errno=True)
queue = libc.msgget(0, 0o600 | 0o1000)
message = Message(1, b"kept")
assert libc.msgsnd(queue, ctypes.byref(message), 16, 0) == 0
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.02)
message.text = b""
assert libc.msgrcv(queue, ctypes.byref(message), 16, 0, 0) == 16
with open("got", "wb") as file:
    file.write(message.text)
"""


class OfTheUser(Foreign, ProgramTest):
    def test_queue_of_a_host_with_higher_limits(self):
        """In an IPC namespace that stands for a host where the administrator has raised them."""
        if os.getuid() != 0:
            self.skipTest("root has to raise the limits")
        program = self.box.write("queue.py", QUEUE)
        stasis = self.box.binary
        script = self.box.write("script", f"""#!/bin/sh -e
setsid python3 {program} < /dev/null > /dev/null 2>&1 &
while ! test -e ready; do sleep 0.02; done
{stasis} checkpoint --pid $! --name q --stop
{stasis} restart --background q
""")
        user = " ".join(map(str, self.box.line([script])))
        done = subprocess.run(["unshare", "--ipc", "sh", "-c", f"echo 65536 > /proc/sys/kernel/msgmnb; exec {user}"],
                              env=self.box.env, cwd=self.box.dir, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        (self.box.dir / "go").touch()
        wait_for("it has the message", (self.box.dir / "got").exists)
        wait_for("it ends", lambda: not self.box.session("q"))
        self.assertEqual((self.box.dir / "got").read_bytes(), b"kept")


class OfRoot(Foreign, ProgramTest):
    def sandbox(self):
        if os.getuid() != 0:
            self.skipTest("needs root")
        return Sandbox(user=None)


if __name__ == "__main__":
    unittest.main()
