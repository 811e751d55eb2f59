#!/usr/bin/python3
"""export and import: a checkpoint becomes one file, and that file a checkpoint again, elsewhere; or nothing."""
import json
import os
import pathlib
import pty
import random
import shutil
import subprocess
import time
import unittest

from harness import TIMEOUT, ProgramTest, Redis, Terminal, find_program, free_port, wait_for

PYTHON = "/usr/bin/python3"
OK, FAILED, USAGE, NOT_FOUND, REFUSED, DAMAGED = 0, 1, 2, 3, 4, 7

# Counts, and remembers all that it has counted. A MiB that does not compress, and 64 of which nearly all is zero.
COUNTER = """
import mmap, os, time
ballast = os.urandom(1 << 20)
sparse = mmap.mmap(-1, 64 << 20)
sparse[40 << 20] = 1
seen = []
while True:
    seen.append(len(seen))
    print(len(seen), sum(seen), len(ballast), sparse[40 << 20], flush=True)
    time.sleep(0.01)
"""


def fill(path):
    """Takes all that is left of a file system."""
    try:
        with open(path, "ab") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
    except OSError:
        pass


class Export(ProgramTest):
    def setUp(self):
        super().setUp()
        self.first_home = self.box.env["STASIS_HOME"]
        self.archive = self.box.dir / "saved.stasis"

    def elsewhere(self):
        """From now on nothing is there of what was saved."""
        home = self.box.dir / f"elsewhere-{random.randrange(10**9)}"
        self.box.run("mkdir", "-m", "700", home)
        self.box.env["STASIS_HOME"] = str(home)
        return home

    def exits(self, code, *args, **more):
        done = self.box.stasis(*args, check=False, **more)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout}{done.stderr}")
        return done

    def list(self, *args):
        return json.loads(self.box.stasis("list", *args, "--json").stdout)

    def end(self, name):
        self.box.stasis("signal", name, "KILL")
        self.box.assert_gone(name)  # the sandbox does not wait for what has another home

    def count(self, path):
        lines = [line.split() for line in pathlib.Path(path).read_text().splitlines()] if os.path.exists(path) else []
        lines = [list(map(int, words)) for words in lines if len(words) == 4]
        for number, total, ballast, byte in lines[-20:]:
            self.assertEqual((total, ballast, byte), (number * (number - 1) // 2, 1 << 20, 1))
        return lines[-1][0] if lines else 0

    def save_counter(self, *flags):
        output = self.box.launch("counter", PYTHON, "-c", COUNTER)
        wait_for("it counts", lambda: self.count(output) > 20)
        self.box.save_and_kill("counter")
        self.box.stasis("export", "counter", self.archive, *flags)
        return output

    def pipe(self, *args):
        """An import that is fed from here."""
        return subprocess.Popen(self.box.line([self.box.binary, "import", "-", *args]), env=self.box.env, cwd=self.box.dir,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def names(self, home, session):
        directory = pathlib.Path(home) / "store" / session
        return sorted(os.listdir(directory)) if directory.exists() else []

    def test_goes_on_elsewhere(self):
        output = self.save_counter()
        saved = self.count(output)
        self.assertEqual(os.stat(self.archive).st_mode & 0o777, 0o600)
        self.assertLess(os.path.getsize(self.archive), 8 << 20)
        self.box.stasis("rm", "--all", "counter")
        home = self.elsewhere()
        self.exits(NOT_FOUND, "restart", "counter", "--background")
        self.assertIn("other@1", self.box.stasis("import", self.archive, "--name", "other").stdout)
        (entry,) = self.list()
        self.assertEqual((entry["session"], entry["id"], entry["usable"]), ("other", 1, True))
        self.exits(OK, "verify", "other")
        for path in [pathlib.Path(entry["directory"]), *pathlib.Path(entry["directory"]).rglob("*")]:
            self.assertEqual(path.stat().st_mode & 0o777, 0o700 if path.is_dir() else 0o600, path)
        # Holes are holes.
        self.assertLess(sum(path.stat().st_blocks * 512 for path in pathlib.Path(entry["directory"]).iterdir()), 24 << 20)
        self.box.restart("other")
        # The session has another name now, but the file that it writes is where it was.
        wait_for("it counts on", lambda: self.count(output) > saved + 20)
        # As a checkpoint of one's own: it can be saved, as an increment, and exported again.
        self.box.stasis("checkpoint", "other")
        self.assertEqual(self.list("other")[1]["base"], 1)
        self.box.stasis("export", "other", self.box.dir / "again.stasis")
        self.end("other")

    def test_increments_stand_alone(self):
        port = free_port()
        self.box.launch("redis", find_program("redis-server"), "--port", port, "--save", "", "--dir", self.box.dir)
        wait_for("Redis answers", lambda: Redis.ready(port))
        for step in range(1, 4):
            client = Redis(port)
            client("MSET", *(word for i in range(20000) for word in (f"{step}:{i}", f"{step * i}-" + "x" * 60)))
            client.close()
            self.box.stasis("checkpoint", "redis", *(["--stop"] if step == 3 else []))
        self.assertEqual([entry["base"] for entry in self.list("redis")], [0, 1, 2])
        whole = pathlib.Path(self.list("redis")[2]["directory"])
        self.assertTrue(any(path.stat().st_nlink > 1 for path in whole.iterdir()))
        self.box.stasis("export", "redis@2", self.box.dir / "second.stasis")
        self.box.stasis("export", "redis", self.archive)
        self.box.stasis("rm", "--all", "redis")
        self.elsewhere()
        for archive, steps in ((self.box.dir / "second.stasis", 2), (self.archive, 3)):
            self.box.stasis("import", archive)
            entry = self.list("redis")[-1]
            self.assertEqual(entry["base"], 0)
            self.assertTrue(all(path.stat().st_nlink == 1 for path in pathlib.Path(entry["directory"]).iterdir()))
            # What is its own is all that it uses.
            self.assertEqual(entry["own_bytes"], entry["stored_bytes"])
            self.exits(OK, "verify", "redis")
            self.box.restart("redis")
            client = Redis(port)
            self.assertEqual(client("DBSIZE"), 20000 * steps)
            for step in range(1, steps + 1):
                for i in range(0, 20000, 997):
                    self.assertEqual(client("GET", f"{step}:{i}"), f"{step * i}-".encode() + b"x" * 60)
            client.close()
            self.end("redis")

    def test_through_a_pipe(self):
        output = self.box.launch("counter", PYTHON, "-c", COUNTER)
        wait_for("it counts", lambda: self.count(output) > 20)
        self.box.stasis("checkpoint", "counter")
        # Into a session of the same name the next number is given; the program runs meanwhile.
        line = f"'{self.box.binary}' export counter - | '{self.box.binary}' import -"
        for number in (2, 3):
            done = self.box.run("sh", "-c", line)
            self.assertIn(f"counter@{number}:", done.stdout)
            self.assertIn(f"counter@{number - 1}:", done.stderr)  # standard output is the archive
        self.box.run("sh", "-c", f"'{self.box.binary}' export counter@1 - --json > {self.archive}")
        self.assertEqual(json.loads(self.box.stasis("import", self.archive, "--json").stdout)["id"], 4)
        self.assertEqual([entry["id"] for entry in self.list("counter")], [1, 2, 3, 4])
        self.exits(OK, "verify", *(f"counter@{number}" for number in (1, 2, 3, 4)))
        # What the running program adds to is not confused by another checkpoint of its name.
        before = self.count(output)
        wait_for("it counts", lambda: self.count(output) > before + 20)
        self.box.save_and_kill("counter")
        saved = self.count(output)
        self.exits(OK, "verify", "counter@5")
        self.box.restart("counter")
        wait_for("it counts on", lambda: self.count(output) > saved + 20)
        self.end("counter")

    def test_what_is_damaged_is_refused(self):
        self.save_counter("--self-contained")
        home = self.elsewhere()
        good = self.archive.read_bytes()
        bad = self.box.write("bad.stasis", "", 0o644)

        def refused(what, data):
            bad.write_bytes(data)
            done = self.exits(DAMAGED, "import", bad)
            self.assertIn("stasis: import", done.stderr, what)
            self.assertEqual(self.names(home, "counter"), [], what)
            self.assertEqual(self.list(), [], what)

        size = len(good)
        for cut in (0, 1, 3, 4, 100, 5000, size // 3, size // 2, size - 1000, size - 5, size - 1):
            refused(f"cut at {cut}", good[:cut])
        for at in (0, 3, 4, 700, 9000, size // 5, size // 2, size * 4 // 5, size - 2000, size - 4, size - 1):
            for bit in (0, 7):
                flipped = bytearray(good)
                flipped[at] ^= 1 << bit
                refused(f"bit {bit} of byte {at}", bytes(flipped))
        refused("two of them", good + good)
        refused("a byte more", good + b"\0")
        refused("another file", b"#!/bin/sh\n" * 1000)
        refused("of tar alone", subprocess.run(["zstd", "-dc"], input=good, stdout=subprocess.PIPE, check=True).stdout)
        refused("any other tar", subprocess.run(["tar", "--zstd", "-C", self.box.dir, "-cf", "-", "bad.stasis"],
                                                stdout=subprocess.PIPE, check=True).stdout)
        plain = subprocess.run(["zstd", "-dc"], input=good, stdout=subprocess.PIPE, check=True).stdout
        # The sums of zstd are right, ours are not.
        for at in (2000, len(plain) // 3, len(plain) // 2, len(plain) - 3000):
            flipped = bytearray(plain)
            flipped[at] ^= 4
            refused(f"changed at {at} and compressed again",
                    subprocess.run(["zstd", "-q", "-c"], input=bytes(flipped), stdout=subprocess.PIPE, check=True).stdout)
        self.assertEqual(self.exits(OK, "import", self.archive).stderr, "")

    def test_killed_import_leaves_no_checkpoint(self):
        self.save_counter()
        home = self.elsewhere()
        good = self.archive.read_bytes()
        for part in (2000, len(good) // 2, len(good) - 1):
            process = self.pipe()
            process.stdin.write(good[:part])
            process.stdin.flush()
            wait_for("it has begun", lambda: any(name.startswith("incomplete-") for name in self.names(home, "counter"))
                     or part == 2000)
            if part == 2000:
                time.sleep(0.2)
            process.kill()
            process.communicate()
            self.assertEqual([name for name in self.names(home, "counter") if not name.startswith("incomplete-")], [])
            self.assertEqual(self.list(), [])
        # At any moment of the last part.
        for _ in range(10):
            before = len(self.list())
            process = self.pipe()
            process.stdin.write(good)
            process.stdin.close()
            time.sleep(random.random() * 0.03)
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                pipe.close()
            entries = self.list()
            self.assertIn(len(entries) - before, (0, 1))  # there or not, but whole
            for entry in entries[before:]:
                self.exits(OK, "verify", f"counter@{entry['id']}")
        self.box.stasis("import", self.archive)
        self.assertEqual([name for name in self.names(home, "counter") if not name.isdigit()], [])

    @unittest.skipUnless(os.getuid() == 0, "a small file system is mounted by root")
    def test_full_disk(self):
        self.save_counter()
        small = self.box.dir / "small"
        self.box.run("mkdir", small)
        # Other mount namespaces, as those of sessions that live on, must not hold it.
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=3m,mode=777", "none", small], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False)
        done = self.exits(FAILED, "import", self.archive, "--store", small / "store")
        self.assertRegex(done.stderr, r"\d+ MiB are needed, and \d+ MiB are free")
        self.assertEqual(os.listdir(small / "store"), [])
        # There seemed to be enough.
        subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
        good = self.archive.read_bytes()
        process = self.pipe("--store", str(small / "store"))
        process.stdin.write(good[:len(good) // 2])
        process.stdin.flush()
        wait_for("it has begun", lambda: list((small / "store").glob("*/incomplete-*/*pages")))
        fill(small / "filler")
        try:
            process.stdin.write(good[len(good) // 2:])
        except BrokenPipeError:
            pass
        _, said = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, FAILED, said)
        self.assertIn(b"No space left on device", said)
        self.assertEqual(os.listdir(small / "store"), [])
        # Nor is there half an export.
        (small / "filler").touch()
        fill(small / "filler")
        done = self.exits(FAILED, "export", "counter", small / "out.stasis")
        self.assertIn("No space left on device", done.stderr)
        self.assertEqual(sorted(os.listdir(small)), ["filler", "store"])
        self.exits(FAILED, "export", "counter", "/dev/full")

    def test_tar_reads_it(self):
        output = self.save_counter()
        saved = self.count(output)
        self.box.stasis("rm", "--all", "counter")
        listed = self.box.run("tar", "--zstd", "-tf", self.archive).stdout.split()
        self.assertEqual(listed[:2], ["counter-1/", "counter-1/manifest"])
        self.box.run("tar", "--zstd", "-xf", self.archive)
        self.exits(OK, "verify", self.box.dir / "counter-1")
        with open(os.devnull, "w") as nothing:
            self.box.stasis("restart", self.box.dir / "counter-1", "--background", stdout=nothing)
        wait_for("it counts on", lambda: self.count(output) > saved + 20)
        self.end("counter")

    def test_mapped_files_come_along(self):
        program = self.box.dir / "bin" / "own-sleep"
        self.box.run("mkdir", program.parent)
        self.box.run("cp", shutil.which("sleep"), program)
        with open(os.devnull, "w") as nothing:
            self.box.stasis("launch", "--name", "own", "--background", "--", program, "1000", stdout=nothing)
        wait_for("it runs", lambda: (self.box.session("own") or {}).get("processes"))
        self.box.save_and_kill("own")
        said = json.loads(self.box.stasis("export", "own", self.archive, "--self-contained", "--json").stdout)
        self.assertIn(str(program), said["mapped_files"])
        self.assertTrue(any("libc.so" in path for path in said["mapped_files"]))
        self.box.stasis("export", "own", self.box.dir / "alone.stasis")

        # Another time, the same contents; then other contents; then nothing.
        self.box.run("touch", program)
        done = self.exits(OK, "import", self.archive, "--name", "touched")
        self.assertIn(f"has mapped {program}: it was modified at another time here; its contents are the same", done.stderr)
        self.exits(REFUSED, "restart", "touched", "--background")
        self.assertIn("it was modified at another time", self.exits(REFUSED, "export", "own", self.box.dir / "x",
                                                                      "--self-contained").stderr)
        self.assertFalse((self.box.dir / "x").exists())
        os.unlink(program)
        done = self.exits(OK, "import", self.box.dir / "alone.stasis", "--name", "alone", "--json")
        (difference,) = json.loads(done.stdout)["differences"]
        self.assertEqual((difference["path"], difference["problem"]), (str(program), "it is missing"))
        self.assertNotIn("carried", difference)
        done = self.exits(OK, "import", self.archive)
        carried = pathlib.Path(self.list("own")[-1]["directory"]) / "files" / str(program)[1:]
        self.assertIn(f"has mapped {program}: it is missing here; that of the export is {carried}", done.stderr)
        self.exits(NOT_FOUND, "restart", "own", "--background")
        # With its time it is the very file that a restart wants.
        self.box.run("cp", "-p", carried, program)
        self.box.restart("own")
        self.end("own")
        self.assertIn("good", self.exits(OK, "verify", "own").stdout)
        directory = carried.parents[len(str(program).split("/")) - 1]
        self.exits(OK, "rm", "own@2")
        self.assertFalse(directory.exists())

    def test_usage(self):
        self.save_counter()
        size = os.path.getsize(self.archive)
        self.assertIn("--force", self.exits(REFUSED, "export", "counter", self.archive).stderr)
        self.archive.write_bytes(b"old")
        self.exits(OK, "export", "counter", self.archive, "--force", "--level", "19")
        self.assertLess(os.path.getsize(self.archive), size + 1000)
        self.exits(OK, "import", self.archive, "--name", "x")
        self.assertEqual([path.name for path in self.box.dir.glob("saved*")], ["saved.stasis"])
        self.exits(NOT_FOUND, "export", "nobody", self.box.dir / "y")
        self.exits(NOT_FOUND, "export", "counter@7", self.box.dir / "y")
        self.exits(NOT_FOUND, "import", self.box.dir / "y")
        self.exits(USAGE, "import", self.box.dir)
        self.exits(USAGE, "import", self.archive, "--name", "../x")
        self.exits(USAGE, "import")
        self.exits(USAGE, "export", "counter")
        self.exits(USAGE, "export", "counter", self.box.dir / "y", "--level", "99")
        self.assertFalse((self.box.dir / "y").exists())
        for verb in (["export", "counter", "-"], ["import", "-"]):
            terminal = Terminal(self.box, *verb)
            terminal.expect("it is a terminal")
            self.assertEqual(terminal.end(), USAGE)

    def test_progress_is_shown_at_a_terminal(self):
        self.save_counter()
        good = self.archive.read_bytes()
        self.elsewhere()
        master, slave = pty.openpty()
        process = subprocess.Popen(self.box.line([self.box.binary, "import", "-"]), env=self.box.env, cwd=self.box.dir,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave)
        os.close(slave)
        step = len(good) // 16 + 1
        for at in range(0, len(good), step):
            process.stdin.write(good[at:at + step])
            process.stdin.flush()
            time.sleep(0.1)
        said, _ = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, OK)
        shown = ""
        try:
            while data := os.read(master, 65536):  # in pieces
                shown += data.decode()
        except OSError:  # nobody has the other side open any more
            pass
        os.close(master)
        self.assertRegex(shown, r"import standard input \[#+\.*\] .* of .* left")
        self.assertTrue(shown.endswith("\r\x1b[K"), repr(shown[-100:]))


if __name__ == "__main__":
    unittest.main()
