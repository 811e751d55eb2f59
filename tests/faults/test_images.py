#!/usr/bin/python3
"""Images that are damaged, in the way of a full disk, not ours, or not to be written: an error that says what is
wrong, never a crash, and the program and the last good checkpoint as they were."""
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
import unittest

from common import SubjectTest, wait_for

FAILED, NOT_FOUND, REFUSED, DAMAGED, DENIED = 1, 3, 4, 7, 8


class Damage(SubjectTest):
    def setUp(self):
        super().setUp()
        self.random = random.Random(1)
        self.start("memory_anonymous", "private_content")
        self.box.stasis("checkpoint", "s", "--stop")
        self.good = pathlib.Path(self.checkpoints()[-1]["directory"])
        self.files = sorted(p for p in self.good.iterdir() if p.is_file())
        self.assertTrue(self.files)

    def copy(self):
        place = self.box.dir / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.good, place)
        for path in [place, *place.iterdir()]:
            os.chmod(path, 0o700 if path.is_dir() else 0o600)
            if self.box.user:
                os.chown(path, self.box.user.pw_uid, self.box.user.pw_gid)
        return place

    def assert_fails(self, place, verb, what):
        done = self.box.stasis(verb, place, *(["--name", "x"] if verb == "restart" else []), check=False)
        self.assertGreater(done.returncode, 0, f"stasis {verb} with {what}: {done.stdout}{done.stderr}")
        self.assertLess(done.returncode, 126, f"stasis {verb} with {what} crashed: {done.stderr}")
        self.assertTrue(done.stderr.strip(), f"stasis {verb} says nothing about {what}")
        return done

    def test_good_one_verifies(self):
        self.box.stasis("verify", self.good)
        self.box.stasis("inspect", self.good)

    def test_every_flipped_bit_is_found(self):
        for path in self.files:
            size = path.stat().st_size
            if size == 0:
                continue
            offsets = {0, size // 2, size - 1} | {self.random.randrange(size) for _ in range(12)}
            for offset in sorted(offsets):
                place = self.copy()
                with open(place / path.name, "r+b") as file:
                    file.seek(offset)
                    byte = file.read(1)[0]
                    file.seek(offset)
                    file.write(bytes([byte ^ (1 << self.random.randrange(8))]))
                done = self.assert_fails(place, "verify", f"a bit at {offset} of {size} in {path.name}")
                self.assertEqual(done.returncode, DAMAGED, done.stderr)
                self.assertIn(path.name, done.stderr)

    def test_damaged_manifest_is_never_restarted(self):
        for path in self.files:
            if path.stat().st_size > 1 << 20:
                continue  # the pages; a mapped restart does not read them first
            for offset in [self.random.randrange(path.stat().st_size) for _ in range(10)]:
                place = self.copy()
                with open(place / path.name, "r+b") as file:
                    file.seek(offset)
                    byte = file.read(1)[0]
                    file.seek(offset)
                    file.write(bytes([byte ^ 0x10]))
                if path.name == "manifest":
                    self.assert_fails(place, "restart", f"a bit at {offset} in {path.name}")
                    self.assertEqual(self.processes(), [])

    def test_truncated(self):
        for path in self.files:
            size = path.stat().st_size
            for length in {0, 1, size // 3, max(size - 4096, 0), size - 1}:
                if length >= size:
                    continue
                place = self.copy()
                os.truncate(place / path.name, length)
                for verb in ("verify", "restart"):
                    done = self.assert_fails(place, verb, f"{path.name} cut from {size} to {length}")
                    self.assertEqual(done.returncode, DAMAGED, done.stderr)
                    # It says which file, and how much of it is there.
                    self.assertIn(path.name, done.stderr)
                    self.assertRegex(done.stderr, rf"\b({length}|{max(length - 32, 0)})\b")
                self.assertEqual(self.processes(), [])

    def test_missing_files(self):
        for path in self.files:
            place = self.copy()
            (place / path.name).unlink()
            for verb in ("verify", "restart"):
                self.assert_fails(place, verb, f"{path.name} missing")

    def test_garbage(self):
        place = self.copy()
        manifest = place / "manifest"
        for content in (b"\0" * 4096, b"\xff" * 4096, self.random.randbytes(100000), b""):
            manifest.write_bytes(content)
            for verb in ("verify", "inspect", "restart"):
                self.assert_fails(place, verb, "a manifest of garbage")

    def test_nothing_there(self):
        self.assertEqual(self.assert_fails("nobody", "restart", "no such session").returncode, NOT_FOUND)
        self.assertEqual(self.assert_fails("s@99", "restart", "no such checkpoint").returncode, NOT_FOUND)
        (self.box.dir / "empty").mkdir()
        self.assert_fails(self.box.dir / "empty", "restart", "an empty directory")

    def test_not_ours(self):
        if os.getuid() != 0:
            self.skipTest("only root can give files away")
        for victim in (".", self.files[0].name):
            place = self.copy()
            os.chown(place / victim, 65534, 65534)
            if not self.box.user:
                # Root is told the same: code of another user is not run by mistake.
                pass
            done = self.assert_fails(place, "restart", f"{victim} owned by nobody")
            self.assertIn(done.returncode, (REFUSED, DENIED))

    def test_writable_by_others(self):
        place = self.copy()
        os.chmod(place, 0o777)
        done = self.assert_fails(place, "restart", "a directory that all may write")
        self.assertIn(done.returncode, (REFUSED, DENIED))

    def test_modes(self):
        for path in [self.good, *self.files]:
            self.assertEqual(path.stat().st_mode & 0o077, 0, f"{path} is open to others")


class NoRoom(SubjectTest):
    def assert_harmless(self, done):
        self.assertGreater(done.returncode, 0, "a checkpoint without room did not fail")
        self.assertLess(done.returncode, 126, done.stderr)
        self.assert_lives("a checkpoint that failed")

    def test_full_disk(self):
        if os.getuid() != 0:
            self.skipTest("only root can mount a small file system")
        store = self.box.dir / "store"
        store.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m,mode=777", "stasis-test", store]).returncode != 0:
            self.skipTest("mount is not allowed here")
        self.addCleanup(subprocess.run, ["umount", "-l", str(store)])
        if self.box.user:
            os.chown(store, self.box.user.pw_uid, self.box.user.pw_gid)
            os.chmod(store, 0o700)
        # Two processes with the same 32 MiB of data that do not compress: one checkpoint goes in, a second does not.
        self.start("busy", "everything", "--store", store)
        self.box.stasis("checkpoint", "s")
        good = self.checkpoints()
        for _ in range(3):
            done = self.box.stasis("checkpoint", "s", "--full", check=False)
            self.assert_harmless(done)
            self.assertRegex(done.stderr, "(?i)space")
        usable = [e for e in self.checkpoints() if e["usable"]]
        self.assertEqual(usable, good)
        self.box.stasis("verify", usable[-1]["directory"])
        self.assertNotEqual(self.box.stasis("checkpoint", "s", "--stop", "--full", check=False).returncode, 0)
        self.assert_lives("a --stop that failed")  # what could not be saved must not be killed

        # Not even what has changed goes in; the page files that it would have shared are as they were.
        filler = store / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        done = self.box.stasis("checkpoint", "s", check=False)
        self.assert_harmless(done)
        self.assertRegex(done.stderr, "(?i)space")
        self.assertEqual([e for e in self.checkpoints() if e["usable"]], good)
        self.box.stasis("verify", good[-1]["directory"])
        filler.unlink()
        self.box.stasis("checkpoint", "s")
        newest = self.checkpoints()[-1]
        self.assertEqual(newest["base"], good[-1]["id"])
        self.box.stasis("verify", newest["directory"])
        self.verify_in_the_end()

    def test_store_may_not_be_written(self):
        if os.getuid() == 0 and not self.box.user:
            self.skipTest("root may write everywhere")
        store = self.box.dir / "store"
        store.mkdir()
        if self.box.user:
            os.chown(store, self.box.user.pw_uid, self.box.user.pw_gid)
        self.start("busy", "everything", "--store", store)
        os.chmod(store, 0o500)
        self.addCleanup(os.chmod, store, 0o700)
        self.assert_harmless(self.box.stasis("checkpoint", "s", check=False))
        self.assert_harmless(self.box.stasis("checkpoint", "s", "--stop", check=False))
        os.chmod(store, 0o700)
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.assert_lives("the restart")
        self.verify_in_the_end()

    def test_file_size_limit_of_the_program(self):
        """The snapshot child is a child of the program, with its limits; they must not decide over the image."""
        path = self.box.write("limited.sh", f"ulimit -f 2048\nexec {self.box.dir}/busy everything\n")
        shutil.copy2(os.path.join(os.environ.get("STASIS_BUILD", "build"), "tests/subjects/busy"), self.box.dir)
        self.place = self.box.dir / "dir-limited"
        self.place.mkdir()
        os.chmod(self.box.dir / "busy", 0o755)
        if self.box.user:
            os.chown(self.place, self.box.user.pw_uid, self.box.user.pw_gid)
        self.box.env["SUBJECT_DIR"] = str(self.place)
        self.output = self.box.launch("s", "/bin/sh", path)
        wait_for("the subject is ready", (self.place / "ready").exists)
        self.box.stasis("checkpoint", "s")
        self.assert_lives("a checkpoint")
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.assert_lives("the restart")
        self.verify_in_the_end()


class Deaths(SubjectTest):
    """Tasks of the program die while they are being saved."""

    # A parent that keeps eight children, each with a thread; it says who died, and that it is there.
    PROGRAM = """
import os, sys, threading, time
def child():
    threading.Thread(target=lambda: time.sleep(1000), daemon=True).start()
    ballast = bytearray(os.urandom(1 << 20))
    while True:
        time.sleep(0.01)
def born():
    pid = os.fork()
    if pid == 0:
        child()
    return pid
children = {born() for _ in range(8)}
print("begun", flush=True)
beats = 0
while True:
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        assert pid in children, pid
        assert status == 9, status
        children.remove(pid)
        children.add(born())
        print("one died", flush=True)
    beats += 1
    with open("beats", "w") as file:
        file.write(str(beats))
    time.sleep(0.01)
"""

    def beats(self):
        try:
            return int((self.box.dir / "beats").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def assert_beats(self, after):
        before = self.beats()
        try:
            wait_for(f"the program goes on after {after}", lambda: self.beats() > before + 2)
        except AssertionError as error:
            session = self.box.session("s") or {"processes": []}
            states = [(p["pid"], p["state"], (pathlib.Path("/proc") / str(p["host_pid"]) / "syscall").read_text())
                      for p in session["processes"]]
            raise AssertionError(f"{error}; it said {(self.box.dir / 's.output').read_text()[-800:]!r}; {states}")

    def start_family(self):
        from harness import find_program
        script = self.box.write("family.py", self.PROGRAM)
        output = self.box.launch("s", find_program("/usr/bin/python3", "python3"), script)
        wait_for("it has begun", lambda: "begun" in output.read_text())
        return output

    def begin_checkpoint(self):
        return subprocess.Popen(self.box.line([self.box.binary, "checkpoint", "s"]), env=self.box.env, cwd=self.box.dir,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def test_children_die_during_checkpoints(self):
        output = self.start_family()
        choose = random.Random(7)
        self.box.stasis("checkpoint", "s")
        normal = self.box.stasis("checkpoint", "s").took
        good, failed = 2, 0
        for i in range(40):
            root, *children = sorted(p["host_pid"] for p in self.box.session("s")["processes"] if p["comm"] != "stasis")
            checkpoint = self.begin_checkpoint()
            time.sleep(choose.uniform(0, normal))
            os.kill(choose.choice(children), signal.SIGKILL)
            said = checkpoint.communicate(timeout=60)[1]
            self.assertIn(checkpoint.returncode, (0, 1, 6), f"death {i}: {said}")
            if checkpoint.returncode == 0:
                good += 1
            else:
                failed += 1
                self.assertTrue(said.startswith("stasis: "), said)
            self.assert_beats(f"death {i}")
        usable = [e for e in self.checkpoints() if e["usable"]]
        self.assertEqual(len(usable), good)
        self.assertEqual(len(self.checkpoints()), good, "what failed left something")
        print(f"({good} succeeded, {failed} failed)", end=" ", flush=True)
        self.box.stasis("verify", *[e["directory"] for e in usable], timeout=120)
        self.assertNotIn("Error", output.read_text())
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.assert_beats("the restart")

    def test_the_program_itself_dies_during_a_checkpoint(self):
        choose = random.Random(8)
        for i in range(10):
            self.start_family()
            self.box.stasis("checkpoint", "s")
            normal = self.box.stasis("checkpoint", "s").took
            before = self.checkpoints()
            root = min(self.box.session("s")["processes"], key=lambda p: p["pid"])["host_pid"]
            checkpoint = self.begin_checkpoint()
            time.sleep(choose.uniform(0, normal))
            os.kill(root, signal.SIGKILL)
            said = checkpoint.communicate(timeout=60)[1]
            self.assertIn(checkpoint.returncode, (0, 1, 3, 6), f"death {i}: {said}")
            self.box.stasis("signal", "s", "KILL", "--all", check=False)  # the children outlive it
            wait_for("the session is over", lambda: not self.box.session("s"), 10)
            self.assertEqual(self.checkpoints()[:len(before)], before)
            self.assertTrue(all(e["usable"] for e in self.checkpoints()))
            # The newest one may be of the moment between the death and the end of the children.
            self.box.restart(f"s@{before[-1]['id']}")
            self.assert_beats(f"death {i} and a restart")
            self.box.stasis("signal", "s", "KILL", "--all")
            wait_for("it is gone", lambda: not self.box.session("s"), 10)
            self.box.stasis("rm", "--all", "s")


class Refusals(SubjectTest):
    def test_traced_by_another(self):
        """A debugger has it: the refusal names that, and nothing happens to either."""
        import ctypes
        if os.getuid() == 0 and self.box.user:
            self.skipTest("the tracer here would be another user")
        self.start("memory_anonymous", "private_content")
        pid = next(p["host_pid"] for p in self.box.session("s")["processes"])
        libc = ctypes.CDLL(None, use_errno=True)
        PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
        if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) != 0:
            self.skipTest("tracing is not allowed here")
        try:
            done = self.box.stasis("checkpoint", "s", check=False)
            self.assertIn(done.returncode, (REFUSED, 6))
            self.assertIn("trac", done.stderr)
            self.assertIn(str(os.getpid()), done.stderr)
        finally:
            libc.ptrace(PTRACE_INTERRUPT := 0x4207, pid, 0, 0)
            os.waitpid(pid, 0x40000000)
            libc.ptrace(PTRACE_DETACH, pid, 0, 0)
        self.assert_lives("the refusal")
        self.box.stasis("checkpoint", "s")

    def test_one_of_a_tree(self):
        """Its relatives are in the middle of answering us when one of them is refused."""
        from harness import find_program
        script = self.box.write("tree.py", """
import ctypes, os, resource, signal, time
libc = ctypes.CDLL(None, use_errno=True)
for number in range(1, 12):
    if os.fork() == 0:
        break
else:
    number = 0
unlock = []
signal.signal(signal.SIGUSR1, lambda *_: unlock.append(1))
if number == 11:
    done = libc.mlockall(2)  # what is to come
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    print("locked", done, flush=True)
count = 0
while True:
    count += 1
    with open(f"count-{number}", "w") as file:
        file.write(str(count))
    if number == 11 and unlock:
        libc.munlockall()
    time.sleep(0.02)
""")
        output = self.box.launch("tree", find_program("/usr/bin/python3", "python3"), script)
        wait_for("it runs", lambda: "locked " in output.read_text())
        if "locked -1" in output.read_text():
            self.skipTest("it may not lock its memory")
        self.assert_counts_on()
        for _ in range(10):
            done = self.box.stasis("checkpoint", "tree", check=False)
            if done.returncode == 0:
                self.skipTest("root may lock what it likes")
            self.assertEqual(done.returncode, REFUSED, done.stderr)
            self.assertIn("mlockall", done.stderr)
            self.assertIn("task ", done.stderr)
        self.assert_counts_on()
        self.box.stasis("signal", "tree", "USR1", "--all")
        time.sleep(0.1)
        self.box.stasis("checkpoint", "tree")
        self.assert_counts_on()

    def assert_counts_on(self):
        def count(number):
            try:
                return int((self.box.dir / f"count-{number}").read_text() or 0)
            except FileNotFoundError:
                return 0
        before = [count(n) for n in range(12)]
        wait_for("all of them go on", lambda: all(count(n) > before[n] + 5 for n in range(12)), 10)

    def test_io_uring(self):
        """Nothing that we cannot restore is saved as if we could."""
        from harness import find_program
        script = self.box.write("ring.py", """
import ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
parameters = (ctypes.c_char * 120)()
fd = libc.syscall(425, 4, parameters)
print("ring", fd, flush=True)
while True:
    time.sleep(0.05)
""")
        output = self.box.launch("uring", find_program("/usr/bin/python3", "python3"), script)
        wait_for("it runs", lambda: "ring " in output.read_text())
        if "ring -1" in output.read_text():
            self.skipTest("no io_uring here")
        fd = output.read_text().partition("ring ")[2].split()[0]
        done = self.box.stasis("checkpoint", "uring", check=False)
        self.assertIn(done.returncode, (4, 5), done.stderr)
        self.assertIn("io_uring", done.stderr)
        self.assertIn(fd, done.stderr)
        self.assertEqual(self.checkpoints("uring"), [])
        self.assertTrue(self.box.session("uring")["processes"])

    def test_two_at_once(self):
        self.start("busy", "everything")
        line = self.box.line([self.box.binary, "checkpoint", "s"])
        both = [subprocess.Popen(line, env=self.box.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                for _ in range(4)]
        statuses = [(p.wait(60), p.stderr.read()) for p in both]
        for p in both:
            p.stderr.close()
        self.assertIn(0, [s for s, _ in statuses], statuses)
        for status, said in statuses:
            self.assertIn(status, (0, 6), said)
        self.assert_lives("four checkpoints at once")
        self.verify_in_the_end()


if __name__ == "__main__":
    unittest.main()
