#!/usr/bin/python3
"""Disk and memory of one instant: programs that compare, at every step, what they hold in memory with what is in the
files they write. A restart that brings back the one without the other is found out by the program itself."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import unittest

from harness import ProgramTest, wait_for

# Writes a number to a file, to a mapped file and to a log, and looks before whether the last one is there.
COUNTER = """
import ctypes, mmap, os, sys, time
directory = sys.argv[1]
pad = int(sys.argv[2]) if len(sys.argv) > 2 else 0
os.chdir(directory)
data = os.open("data", os.O_RDWR | os.O_CREAT, 0o640)
os.pwrite(data, b"%20d" % 0, 0)
for at in range(4096, 4096 + pad, 1 << 20):
    os.pwrite(data, b"x" * (1 << 20), at)
mapped_fd = os.open("mapped", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(mapped_fd, 8192)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
address = libc.mmap(None, 8192, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, mapped_fd, 0)
mapped = (ctypes.c_char * 8192).from_address(address)
os.close(mapped_fd)  # the mapping has to do: Python's own would keep a descriptor
mapped[4096:4116] = b"%20d" % 0
itself = open(__file__)  # for reading
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
size = os.fstat(log).st_size
def must(what, seen, expected):
    if seen != expected:
        print("MISMATCH", what, seen, expected, flush=True)
        os._exit(3)
n = 0
while True:
    n += 1
    must("data", int(os.pread(data, 20, 0)), n - 1)
    os.pwrite(data, b"%20d" % n, 0)
    must("mapped", int(mapped[4096:4116]), n - 1)
    mapped[4096:4116] = b"%20d" % n
    must("log", os.fstat(log).st_size, size)
    size += os.write(log, b"%d\\n" % n)
    seen = os.open("seen", os.O_WRONLY | os.O_CREAT)  # open for a moment only: for the test, which never meets it empty
    os.pwrite(seen, b"%20d" % n, 0)
    os.close(seen)
    time.sleep(0.005)
"""

DATABASE = """
import os, sqlite3, sys, time
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("pragma journal_mode=wal")
base.execute("pragma wal_autocheckpoint=20")
base.execute("create table t (i integer primary key, filler text)")
reader = sqlite3.connect(sys.argv[1])
n = 0
while True:
    n += 1
    base.execute("begin")
    base.execute("insert into t values (?, ?)", (n, "x" * 500))
    base.execute("insert into t values (?, ?)", (-n, "y" * 500))
    base.execute("commit")
    count, = reader.execute("select count(*) from t").fetchone()
    if count != 2 * n:
        print("MISMATCH", count, 2 * n, flush=True)
        os._exit(3)
    seen = os.open(sys.argv[1] + ".seen", os.O_WRONLY | os.O_CREAT)  # the test never meets it empty
    os.pwrite(seen, b"%20d" % n, 0)
    os.close(seen)
    time.sleep(0.002)
"""


class FileTest(ProgramTest):
    """With a file system of the wanted kind for the files and the store, if there is one to be had."""
    FILE_SYSTEM = None  # the one of /var/tmp
    SIZE = 600

    def setUp(self):
        super().setUp()
        self.place = self.box.dir / "place"
        self.place.mkdir()
        if self.FILE_SYSTEM:
            self.mount(self.FILE_SYSTEM, self.place, self.SIZE)
        self.own(self.place)
        self.store = self.place / "store"
        self.work = self.place / "work"
        self.work.mkdir()
        self.own(self.work)

    def own(self, path):
        if self.box.user:
            os.chown(path, self.box.user.pw_uid, self.box.user.pw_gid)

    def mount(self, kind, place, megabytes):
        """A new file system in a file; skips where that cannot be had."""
        if os.getuid() != 0:
            self.skipTest("a loop device needs root")
        make = shutil.which(f"mkfs.{kind}", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if not make:
            self.skipTest(f"mkfs.{kind} is not installed")
        # Beside the sandbox: not on what it is to be mounted in.
        image = f"{self.box.dir}.{kind}-image"
        self.addCleanup(lambda: os.path.exists(image) and os.unlink(image))
        subprocess.run(["truncate", "-s", f"{megabytes}M", image], check=True)
        made = subprocess.run([make, "-q", image], capture_output=True, text=True)
        if made.returncode != 0:
            self.skipTest(f"mkfs.{kind}: {made.stderr.strip()}")
        mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"no {kind} on a loop device here: {mounted.stderr.strip()}")
        self.box.mounts = getattr(self.box, "mounts", []) + [place]

        def away():
            self.end_all()
            subprocess.run(["umount", "-l", place], capture_output=True)
        self.addCleanup(away)

    def end_all(self):
        import outside
        # What is being born in one look is found by the next.
        while left := outside.having_in_environment(f"STASIS_HOME={self.box.home}"):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)

    # --- steps

    def launch(self, name, script, *args, flags=()):
        self.output = self.place / f"{name}.output"
        program = self.box.write(f"{name}.py", script)
        with open(self.output, "ab") as output:
            self.own(self.output)
            self.box.stasis("launch", "--name", name, "--store", self.store, "--background", *flags, "--",
                            "/usr/bin/python3", program, *args, stdout=output)

    def count(self, *args, flags=(), name="counter"):
        self.launch(name, COUNTER, self.work, *args, flags=flags)
        self.reach(20)

    def seen(self, path=None):
        try:
            return int((path or self.work / "seen").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def mismatch(self):
        text = self.output.read_text()
        return text[text.index("MISMATCH"):].strip() if "MISMATCH" in text else None

    def reach(self, number, path=None):
        def there():
            self.assertIsNone(self.mismatch())
            return self.seen(path) >= number
        wait_for(f"the program has counted to {number}", there)

    def go_on(self, steps=30, path=None):
        self.reach(self.seen(path) + steps, path)

    def kill(self, name="counter"):
        os.kill(self.box.session(name)["processes"][0]["host_pid"], signal.SIGKILL)
        self.box.assert_gone(name)

    def restart(self, what="counter", *flags, check=True):
        """What it said."""
        with open(self.box.dir / "restart.output", "wb") as output:
            done = self.box.stasis("restart", what, "--background", *flags, check=False, stdout=output)
        done.said = (self.box.dir / "restart.output").read_text()
        self.box.log.append(done.said)
        if check:
            self.assertEqual(done.returncode, 0, done.said)
        return done

    def captured(self, what="counter"):
        shown = json.loads(self.box.stasis("inspect", what, "--json").stdout)
        return {os.path.basename(file["path"]): file for file in shown["captured_files"]}

    def lines(self, path):
        return path.read_text().split("\n")[:-1]


class OneInstant(FileTest):
    HOW = "copy"

    def test_the_program_finds_its_files_as_it_left_them(self):
        self.count()
        # Small files are copied even where they could be cloned, unless clones are asked for.
        self.box.stasis("checkpoint", "counter", *(["--files=reflink"] if self.HOW == "clone" else []))
        captured = self.captured()
        self.assertEqual({name: captured[name]["how"] for name in ("data", "mapped", "log")},
                         {"data": self.HOW, "mapped": self.HOW, "log": self.HOW})
        for _ in range(2):
            self.go_on(60)
            self.kill()
            newer = (self.work / "data").read_bytes()
            said = self.restart().said
            self.go_on(40)
            # Nothing is lost of what came later, and we are told where it is.
            kept = [line.split(" is in ")[-1].strip() for line in said.splitlines() if "/data is as of" in line]
            self.assertEqual(len(kept), 1, said)
            self.assertEqual(pathlib.Path(kept[0]).read_bytes(), newer)
        self.assertEqual((self.work / "data").stat().st_mode & 0o777, 0o640)
        self.assertTrue((self.work / "data.before-restart-1").exists())
        self.assertTrue((self.work / "data.before-restart-1-2").exists())
        self.box.stasis("verify", "counter")

    def test_generations(self):
        self.count()
        for _ in range(3):
            self.box.stasis("checkpoint", "counter")
            self.go_on(20)
            self.kill()
            self.restart()
            self.go_on(20)

    def test_without_it_the_program_would_notice(self):
        self.count(flags=("--files=none",))
        self.box.stasis("checkpoint", "counter")
        self.assertEqual(self.captured(), {})
        self.go_on()
        self.kill()
        self.restart()
        wait_for("the program sees that its files are of another time", self.mismatch)

    def test_nothing_is_done_to_files_that_nobody_has_changed(self):
        self.count()
        self.box.save_and_kill("counter")
        before = {name: os.stat(self.work / name) for name in os.listdir(self.work)}
        said = self.restart().said
        self.assertEqual(said.strip(), "counter")
        self.go_on()
        self.assertEqual(sorted(before), sorted(os.listdir(self.work)))
        for name in ("data", "mapped", "log"):
            self.assertEqual(os.stat(self.work / name).st_ino, before[name].st_ino)

    def test_many_at_once(self):
        self.count()
        self.box.stasis("checkpoint", "counter")
        copies = {}
        for name in ("first", "second"):
            before = set(os.listdir(self.work))
            self.restart("counter@1", "--name", name)
            copies[name] = self.store / name / "files-1"
            self.assertLessEqual({"counter.output", "data", "log", "mapped"}, set(os.listdir(copies[name])))
            self.assertEqual(set(os.listdir(self.work)), before)

        def number(name):
            return int((copies[name] / "data").read_bytes()[:20])
        for name in copies:
            start = number(name)
            wait_for("the copy is written to", lambda: number(name) > start + 20)
        self.go_on()
        self.assertIsNone(self.mismatch())
        for name in copies:
            self.assertEqual((copies[name] / "counter.output").read_text(), self.output.read_text())
        # A copy is a session like any other: with its own files.
        self.box.stasis("checkpoint", "first")
        captured = self.captured("first")
        for file in ("counter.output", "data", "log", "mapped"):
            self.assertEqual(captured[file]["path"], str(copies["first"] / file))
        wait_for("it has gone on", lambda at=number("first"): number("first") > at + 20)
        self.kill("first")
        self.restart("first")
        wait_for("the copy goes on", lambda at=number("first"): number("first") > at + 20)
        self.assertNotIn("MISMATCH", (copies["first"] / "counter.output").read_text())
        self.kill("first")
        self.kill("second")
        self.box.stasis("rm", "--all", "first", "second")
        self.assertFalse(copies["first"].exists() or copies["second"].exists())
        self.go_on()

    def test_files_that_are_gone_come_back(self):
        self.count()
        self.box.stasis("checkpoint", "counter", "--stop")
        for name in ("data", "mapped", "log"):
            os.unlink(self.work / name)
        self.restart()
        self.go_on()
        self.assertEqual((self.work / "data").stat().st_mode & 0o777, 0o640)

    def test_other_names_go_on_leading_to_the_file(self):
        self.count()
        os.link(self.work / "data", self.work / "also-data")
        self.box.stasis("checkpoint", "counter")
        self.go_on()
        self.kill()
        newer = (self.work / "data").read_bytes()
        self.restart()
        self.go_on()
        self.assertTrue(os.path.samefile(self.work / "data", self.work / "also-data"))
        self.assertEqual((self.work / "data.before-restart-1").read_bytes(), newer)

    def test_a_database_is_whole(self):
        base = self.work / "base.sqlite"
        self.launch("db", DATABASE, base)
        seen = self.work / "base.sqlite.seen"
        self.reach(60, seen)
        saved = self.seen(seen)
        self.box.stasis("checkpoint", "db")
        self.assertLessEqual({"base.sqlite", "base.sqlite-shm", "base.sqlite-wal"}, set(self.captured("db")))
        self.go_on(150, seen)
        self.kill("db")
        self.assertIn("base.sqlite is as of the checkpoint again", self.restart("db").said)
        self.go_on(50, seen)
        self.assertIsNone(self.mismatch())
        # And what is on the disk is what the program has in memory.
        self.kill("db")
        here = self.seen(seen)
        ask = "pragma integrity_check; select count(*), max(i), min(i) from t;"
        done = self.box.run("/usr/bin/python3", "-c", "import sqlite3, sys\nbase = sqlite3.connect(sys.argv[1])\n"
                            "print(base.execute('pragma integrity_check').fetchone()[0])\n"
                            "print(*base.execute('select count(*), max(i), min(i) from t').fetchone())", base)
        check, numbers = done.stdout.strip().split("\n")
        self.assertEqual(check, "ok", ask)
        count, highest, lowest = map(int, numbers.split())
        self.assertEqual((count, lowest), (2 * highest, -highest))
        self.assertLessEqual(abs(highest - here), 1)
        # The checkpoint itself, without the program.
        self.restart("db@1", "--name", "look")
        self.kill("look")
        self.assertGreaterEqual(highest, saved)

    def test_a_failing_restart_changes_nothing(self):
        self.count()
        needed = self.box.dir / "counter.py"
        self.box.stasis("checkpoint", "counter")
        self.go_on()
        self.kill()
        before = {name: (self.work / name).read_bytes() for name in os.listdir(self.work)}
        # What it had open for reading is gone: found when all files have been put back.
        os.rename(needed, self.box.dir / "away")
        done = self.restart(check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual({name: (self.work / name).read_bytes() for name in os.listdir(self.work)}, before)
        os.rename(self.box.dir / "away", needed)
        self.restart()
        self.go_on()

    def test_damage_is_found(self):
        self.count()
        self.box.stasis("checkpoint", "counter")
        content = self.captured()["data"]["content"]
        path = self.store / "counter" / "1" / content
        with open(path, "r+b") as file:
            file.seek(5)
            file.write(b"!")
        done = self.box.stasis("verify", "counter", check=False)
        self.assertEqual(done.returncode, 7)
        self.assertIn(content, done.stderr)
        self.box.stasis("rm", "counter@1")
        self.assertFalse(path.exists())


class OneInstantOnBtrfs(OneInstant):
    FILE_SYSTEM, HOW = "btrfs", "clone"

    def test_a_large_file_costs_neither_time_nor_space(self):
        self.count(150 << 20)
        done = self.box.stasis("checkpoint", "counter", "--files=reflink", "--json")
        report = json.loads(done.stdout)
        self.assertLess(report["pause_ns"], 3e9)
        self.assertEqual(self.captured()["data"]["how"], "clone")
        checked = self.box.stasis("verify", "counter")
        self.assertIn("clones without sums", checked.stdout)
        for _ in range(6):  # with copies, this would not fit
            self.box.stasis("checkpoint", "counter")
        self.go_on()
        self.kill()
        self.restart()
        self.go_on()


class OneInstantOnXfs(OneInstantOnBtrfs):
    FILE_SYSTEM = "xfs"


class Limits(FileTest):
    LARGE = 80 << 20

    def test_what_is_too_large_is_refused_by_name(self):
        self.count(flags=("--files-limit", "1M"))
        self.box.stasis("checkpoint", "counter")
        with open(self.work / "data", "r+b") as file:  # it grows under the program's hands
            os.pwrite(file.fileno(), b"x" * (3 << 20), 4096)
        before = os.listdir(self.store / "counter")
        done = self.box.stasis("checkpoint", "counter", check=False)
        self.assertEqual(done.returncode, 4)
        for word in (str(self.work / "data"), "KiB", "--files=copy", "--files-limit"):
            self.assertIn(word, done.stderr)
        self.assertEqual(os.listdir(self.store / "counter"), before)
        self.go_on()
        self.box.stasis("verify", "counter@1")
        done = self.box.stasis("checkpoint", "counter", "--files=reflink", check=False)
        if done.returncode != 0:  # the file system of /var/tmp may be one that can
            self.assertEqual(done.returncode, 4)
            self.assertIn("cannot be cloned", done.stderr)
        self.box.stasis("checkpoint", "counter", "--files-limit", "8M")
        self.box.stasis("checkpoint", "counter", "--files=copy")
        self.go_on()
        self.kill()
        self.restart()
        self.go_on()

    def test_holes_do_not_count(self):
        self.count()
        with open(self.work / "data", "r+b") as file:
            file.truncate(1 << 40)
            os.posix_fallocate(file.fileno(), 8192, 100 << 20)  # room, but nothing in it
        self.box.stasis("checkpoint", "counter")
        self.go_on()
        self.kill()
        self.restart()
        self.go_on()
        self.assertEqual((self.work / "data").stat().st_size, 1 << 40)

    def test_the_default_limit(self):
        self.count(self.LARGE)
        done = self.box.stasis("checkpoint", "counter", check=False)
        self.assertEqual(done.returncode, 4, "is /var/tmp a file system with clones?")
        self.assertIn("80 MiB", done.stderr)

    def test_a_stopped_program_leaves_large_files_where_they_are(self):
        self.count(self.LARGE)
        saved = self.box.stasis("checkpoint", "counter", "--stop")
        self.assertIn("must not be changed", saved.stderr)
        self.assertEqual(self.captured()["data"]["how"], "identity")
        self.assertLess(sum(f.stat().st_size for f in (self.store / "counter" / "1").iterdir()), 75 << 20)
        self.restart()
        self.go_on()
        self.kill()
        # Now it is newer than the memory, and there is no copy.
        newer = (self.work / "data").read_bytes()
        done = self.restart(check=False)
        self.assertEqual(done.returncode, 4, done.said)
        self.assertIn(str(self.work / "data"), done.said)
        self.assertEqual((self.work / "data").read_bytes(), newer)
        self.restart("counter", "--files=keep")
        wait_for("the program sees that its files are of another time", self.mismatch)

    def test_a_large_log_keeps_its_length(self):
        log = self.work / "log"
        with open(log, "wb") as file:
            file.write(b"0123456\n" * (1 << 18))
        self.own(log)
        self.count(flags=("--files-limit", "1M"))
        self.box.stasis("checkpoint", "counter")
        captured = self.captured()["log"]
        self.assertEqual((captured["how"], captured["content"]), ("length", ""))
        length = captured["bytes"]
        self.go_on()
        self.kill()
        whole = log.read_bytes()
        said = self.restart().said
        self.go_on()
        aside = self.work / "log.before-restart-1"
        self.assertIn(str(aside), said)
        self.assertEqual(whole[:length] + aside.read_bytes(), whole)
        self.assertEqual(log.read_bytes()[:length], whole[:length])
        # A copy of the session gets a log of its own.
        self.restart("counter@1", "--name", "copy")
        own = self.store / "copy" / "files-1" / "log"
        wait_for("its own log grows", lambda: own.stat().st_size > length + 50)
        self.assertEqual(own.read_bytes()[:length], whole[:length])
        self.assertIsNone(self.mismatch())

    def test_a_log_of_several_programs_is_not_cut(self):
        script = """
            import os, sys, time
            log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            n = 0
            while True:
                n += 1
                os.write(log, b"%d\\n" % n)
                time.sleep(0.01)"""
        log = self.work / "shared.log"
        self.launch("writer", "\n".join(line[12:] for line in script.split("\n")), log)
        wait_for("it writes", lambda: log.exists() and len(self.lines(log)) > 10)
        self.box.stasis("checkpoint", "writer")
        self.kill("writer")
        with open(log, "ab", buffering=0) as other:
            other.write(b"from another program\n")
            said = self.restart("writer").said
            self.assertIn("left as it is", said)
            self.assertIn("from another program", log.read_text())
        self.kill("writer")
        self.restart("writer")
        self.assertNotIn("from another program", log.read_text())
        self.assertIn("from another program", (self.work / "shared.log.before-restart-1").read_text())

    def test_output_to_a_file_is_of_the_same_instant(self):
        output = self.work / "output"
        output.touch()
        self.own(output)
        script = "import time\nn = 0\nwhile True:\n    n += 1\n    print(n, flush=True)\n    time.sleep(0.005)\n"
        program = self.box.write("printer.py", script)
        with open(output, "wb") as stream:
            self.box.stasis("launch", "--name", "printer", "--store", self.store, "--background", "--",
                            "/usr/bin/python3", program, stdout=stream)
        # launch's own word is the name of the session; the program writes behind it.
        wait_for("it prints", lambda: len(self.lines(output)) > 30)
        self.box.stasis("checkpoint", "printer")
        wait_for("it prints", lambda at=len(self.lines(output)): len(self.lines(output)) > at + 30)
        self.kill("printer")
        whole = len(self.lines(output))
        self.restart("printer")
        wait_for("it prints", lambda: len(self.lines(output)) > whole + 10)
        numbers = [int(line) for line in self.lines(output) if line != "printer"]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))


class Killed(FileTest):
    def test_a_killed_restart_loses_nothing(self):
        """Whenever it is killed: what the file had is in the file, or in one that was kept."""
        import random
        dice = random.Random(4)
        self.count(4 << 20)
        self.box.stasis("checkpoint", "counter")
        self.kill()
        moments = {"before": 0, "after": 0}
        for attempt in range(30):
            newer = b"newer %d " % attempt * 1000
            (self.work / "data").write_bytes(newer)
            (self.work / "log").write_bytes((self.work / "log").read_bytes() + newer)
            restart = subprocess.Popen(self.box.line([self.box.binary, "restart", "counter", "--background"]),
                                       env=self.box.env, cwd=self.box.dir, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                # The files are put back within the first milliseconds.
                restart.wait(dice.uniform(0, 0.08 if attempt % 2 else 0.006))
            except subprocess.TimeoutExpired:
                pass
            restart.kill()  # while it executes it has no environment to be found by
            self.end_all()
            restart.wait()
            self.box.assert_gone("counter")
            data = (self.work / "data").read_bytes()
            moments["before" if data == newer else "after"] += 1
            asides = [path.read_bytes() for path in self.work.glob("*.before-restart-*")]
            self.assertTrue(data == newer or newer in asides, attempt)
            self.assertTrue(newer in (self.work / "log").read_bytes() or any(newer in a for a in asides), attempt)
        self.assertTrue(all(moments.values()), f"all at one moment: {moments}")
        self.restart()
        self.go_on()


class FullDisk(FileTest):
    FILE_SYSTEM, SIZE = "ext4", 100

    def test_a_restart_without_room_changes_nothing(self):
        self.count(20 << 20)
        self.box.stasis("checkpoint", "counter")
        self.go_on()
        self.kill()
        before = {name: (self.work / name).read_bytes() for name in os.listdir(self.work)}
        ballast = self.place / "ballast"
        with open(ballast, "wb") as file:
            free = os.statvfs(self.place).f_bavail * os.statvfs(self.place).f_frsize
            os.posix_fallocate(file.fileno(), 0, free - (3 << 20))
        for flags in ((), ("--name", "copy")):
            done = self.restart("counter", *flags, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("No space", done.said)
            self.assertEqual({name: (self.work / name).read_bytes() for name in os.listdir(self.work)}, before)
            self.assertEqual(list(self.store.glob("*/files-*")), [])
        ballast.unlink()
        self.restart()
        self.go_on()


class FullStore(FileTest):
    SIZE = 330

    def test_the_program_and_the_last_checkpoint_are_unharmed(self):
        for kind in ("xfs", "btrfs"):
            if shutil.which(f"mkfs.{kind}", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
                break
        small = self.box.dir / "small"
        small.mkdir()
        self.mount(kind, small, self.SIZE)
        self.own(small)
        self.store = small / "store"
        self.count(200 << 20)
        self.box.stasis("checkpoint", "counter", "--files=none")
        with open(small / "ballast", "wb") as ballast:
            free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
            os.posix_fallocate(ballast.fileno(), 0, max(free - (60 << 20), 4096))
        done = self.box.stasis("checkpoint", "counter", "--files=copy", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("free some space", done.stderr)
        self.assertEqual(os.listdir(self.store / "counter"), ["1"])
        self.go_on()
        self.box.stasis("verify", "counter@1")
        self.assertEqual(len(self.box.session("counter")["processes"]), 1)


if __name__ == "__main__":
    unittest.main()
