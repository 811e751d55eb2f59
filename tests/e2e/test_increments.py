#!/usr/bin/python3
"""Increments: from the second checkpoint on only what has changed is written, and still each checkpoint is complete by
itself. A program changes its memory in all the ways there are, step by step, and knows what must be where."""
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import time
import unittest

from harness import ProgramTest, Redis, find_program, free_port, wait_for
from test_files import FileTest

# Makes a step for each line that it is sent ("step"), and says whether all memory is as it should be ("look").
CHANGING = """
import ctypes, mmap, os, random, signal, sys
P = 4096
libc = ctypes.CDLL(None, use_errno=True)
for name, result, arguments in (
        ("mmap", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]),
        ("munmap", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t]),
        ("mremap", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]),
        ("mprotect", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]),
        ("madvise", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int])):
    getattr(libc, name).restype = result
    getattr(libc, name).argtypes = arguments
RW, PRIVATE, SHARED, FIXED = 3, 0x22, 0x21, 0x10

def content(number):  # of a page; 0: it was never written, or given back
    return b"%16d" % number * (P // 16) if number else bytes(P)

class Area:
    def __init__(self, pages, flags=PRIVATE, fd=-1):
        self.numbers = [0] * pages
        self.at = libc.mmap(None, pages * P, RW, flags, fd, 0)
    def write(self, page):
        global last
        last += 1
        self.numbers[page] = last
        ctypes.memmove(self.at + page * P, content(last), P)
    def fill(self):
        for page in range(len(self.numbers)):
            self.write(page)
    def some(self, count):
        for page in chance.sample(range(len(self.numbers)), count):
            self.write(page)
    def give_back(self, first, count):
        libc.madvise(self.at + first * P, count * P, mmap.MADV_DONTNEED)
        self.numbers[first:first + count] = [0] * count
    def replace(self):  # at the same place
        libc.munmap(self.at, len(self.numbers) * P)
        assert libc.mmap(self.at, len(self.numbers) * P, RW, PRIVATE | FIXED, -1, 0) == self.at
        self.numbers = [0] * len(self.numbers)
    def resize(self, pages):
        self.at = libc.mremap(self.at, len(self.numbers) * P, pages * P, 1)
        self.numbers = (self.numbers + [0] * pages)[:pages]
    def problem(self):
        for page, number in enumerate(self.numbers):
            seen = ctypes.string_at(self.at + page * P, P)
            if seen != content(number):
                return f"page {page} is {seen[:16]!r} and not {number}"

last = 0
chance = random.Random(int(sys.argv[1]))
size = int(sys.argv[2])
kept = Area(size)
replaced = Area(300)
moved = Area(200)
shared = Area(700, SHARED)
memfd = os.memfd_create("memfd")
os.ftruncate(memfd, 500 * P)
of_memfd = Area(500, 1, memfd)
areas = {"kept": kept, "replaced": replaced, "moved": moved, "shared": shared, "memfd": of_memfd}
for area in areas.values():
    area.fill()

def child(requests, answers):
    # Has its own copy of all private memory, and the same shared memory, which it leaves alone.
    for line in requests:
        if line == "step":
            kept.some(size // 100)
            kept.give_back(chance.randrange(size - 10), 10)
            result = "done"
        else:
            result = kept.problem() or replaced.problem() or moved.problem() or "good"
        answers.write(result + "\\n")
        answers.flush()
to_child, from_child = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(to_child[1])
    child(os.fdopen(to_child[0]), os.fdopen(from_child[1], "w"))
    os._exit(0)
os.close(to_child[0])
requests, answers = os.fdopen(to_child[1], "w"), os.fdopen(from_child[0])
def ask(what):
    requests.write(what + "\\n")
    requests.flush()
    return answers.readline().strip()

steps = 0
def step():
    global steps
    steps += 1
    ask("step")
    kept.some(size // 100)
    first = chance.randrange(size - 40)
    kept.give_back(first, 40)
    kept.write(first + 20)
    shared.some(7)
    of_memfd.some(5)
    if steps % 3 == 0:
        replaced.replace()
        replaced.some(100)
    else:
        replaced.some(5)
    if steps % 2 == 0:
        moved.resize(chance.choice((100, 300, 900, 40)))
    moved.some(10)
    extra = Area(50)  # new mappings come and go
    extra.some(20)
    areas[f"extra{steps}"] = extra
    if steps > 3:
        gone = areas.pop(f"extra{steps - 3}")
        libc.munmap(gone.at, len(gone.numbers) * P)
    if steps % 4 == 0:
        libc.mprotect(extra.at, 50 * P, 0)
    if steps % 4 == 1 and f"extra{steps - 1}" in areas:
        libc.mprotect(areas[f"extra{steps - 1}"].at, 50 * P, RW)

def look():
    for name, area in areas.items():
        if name == f"extra{steps}" and steps % 4 == 0:
            continue  # unreadable for now
        if problem := area.problem():
            return f"{name}: {problem}"
    seen = ask("look")
    return "good" if seen == "good" else "child: " + seen

path = sys.argv[3]
if not os.path.exists(path):
    os.mkfifo(path, 0o600)
print("begun", flush=True)
while True:
    with open(path) as fifo:
        what, mark = fifo.read().split()
    result = "done"
    if what == "step":
        step()
    else:
        result = look()
    with open(path + "." + mark, "w") as answer:
        answer.write(f"{steps} {result}\\n")
    os.rename(path + "." + mark, path + ".answer." + mark)
"""


class IncrementTest(FileTest):
    PAGES = 4000

    def begin(self, name="changing", *flags, pages=None, seed=1):
        script = self.box.write(f"{name}.py", CHANGING)
        self.fifo = self.work / f"{name}.fifo"
        output = self.place / f"{name}.output"
        with open(output, "ab") as file:
            if self.box.user:
                os.chown(output, self.box.user.pw_uid, self.box.user.pw_gid)
            # The descriptors of pipes and files belong to the program; it has no files that change.
            self.box.stasis("launch", "--name", name, "--store", self.store, "--background", *flags, "--",
                            "/usr/bin/python3", script, seed, pages or self.PAGES, self.fifo, stdout=file)
        wait_for("it has its memory", lambda: "begun" in output.read_text(), 60)

    marks = 0

    def tell(self, what):
        IncrementTest.marks += 1
        mark = f"{os.getpid()}-{IncrementTest.marks}"
        answer = pathlib.Path(f"{self.fifo}.answer.{mark}")

        def said():
            try:
                fifo = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads, for now
                return False
            os.write(fifo, f"{what} {mark}".encode())
            os.close(fifo)
            return True
        wait_for(f"it is told to {what}", said, 60)
        wait_for(f"it answers to {what}", answer.exists, 60)
        steps, result = answer.read_text().split(" ", 1)
        answer.unlink()
        return int(steps), result.strip()

    def step(self):
        steps, result = self.tell("step")
        self.assertEqual(result, "done")
        return steps

    def assert_good(self, steps):
        self.assertEqual(self.tell("look"), (steps, "good"))

    def checkpoint(self, *flags, name="changing"):
        return json.loads(self.box.stasis("checkpoint", name, "--json", *flags).stdout)

    def end(self, name="changing"):
        self.end_all()
        self.box.assert_gone(name)

    def restart(self, what, *flags, name="changing"):
        with open(self.place / f"{name}.output", "ab") as output:
            self.box.stasis("restart", what, "--background", *flags, stdout=output)

    def entries(self, name="changing"):
        return json.loads(self.box.stasis("list", name, "--json").stdout)

    def series(self, count, **more):
        """`count` checkpoints with a step before each but the first; what each is, with the steps that it has."""
        made = [dict(self.checkpoint(**more), steps=0)]
        for _ in range(count - 1):
            steps = self.step()
            made.append(dict(self.checkpoint(**more), steps=steps))
        return made

    def try_all(self, made, modes=("mapped", "eager")):
        for i, one in enumerate(made):
            self.box.stasis("verify", one["directory"])
            mode = modes[i % len(modes)]
            self.restart(f"changing@{one['id']}", f"--memory={mode}")
            try:
                self.assert_good(one["steps"])
                self.step()
                self.assert_good(one["steps"] + 1)
            finally:
                self.end()

    def page_files(self):
        return sorted(self.store.glob("changing/*/*.stasis-pages"))


class Increments(IncrementTest):
    def test_each_checkpoint_is_what_the_program_was(self):
        self.begin()
        made = self.series(15)  # more than there may be files: the small ones are merged on the way
        self.assertEqual(made[0]["base"], 0)
        for before, one in zip(made, made[1:]):
            self.assertEqual(one["base"], before["id"])
            self.assertLess(one["stored"], made[0]["stored"] / 4)
            self.assertGreater(one["shared"], made[0]["stored"] / 2)
        self.end()
        self.try_all(made)

    def test_what_a_child_has_of_its_parent_is_there_once(self):
        self.begin()
        kept = self.PAGES * 4096  # of the two areas that both have it is the largest by far
        made = self.series(4)
        for one in made:
            self.assertLess(one["stored"] + one["shared"], 2 * kept)
        self.end()
        self.try_all(made, modes=("eager", "mapped"))
        # What nobody needs any more is not taken from a file that both use.
        for one in made[:3]:
            self.box.stasis("rm", one["directory"])
        self.box.stasis("prune", "changing")
        self.try_all(made[3:], modes=("eager",))
        archive = self.place / "archive"
        self.box.stasis("export", "changing", archive)
        self.box.stasis("rm", made[3]["directory"])
        self.box.stasis("import", archive)
        entry = self.entries()[-1]
        self.try_all([dict(entry, steps=made[3]["steps"])], modes=("eager",))
        # A complete one on top of what is there refers to nobody else.
        self.restart("changing", "--memory=mapped")
        full = self.checkpoint("--full")
        self.assertEqual((full["base"], full["shared"]), (0, 0))
        self.assertLess(full["stored"], 2 * kept)
        self.end()
        self.try_all([dict(full, steps=made[3]["steps"])], modes=("mapped",))

    def test_any_can_be_removed(self):
        self.begin()
        made = self.series(8)
        self.end()
        order = list(range(8))
        random.Random(5).shuffle(order)
        self.assertNotEqual(order[0], 7)
        for gone in order[:5]:
            self.box.stasis("rm", f"changing@{made[gone]['id']}")
            self.box.stasis("verify", *(made[i]["directory"] for i in order if made[i]["directory"] and
                                        os.path.exists(made[i]["directory"])))
        self.try_all([made[i] for i in sorted(order[5:])])
        left = self.entries()
        self.assertEqual(len(left), 3)
        # What it says would be free is free.
        used = self.used()
        self.box.stasis("rm", f"changing@{left[0]['id']}")
        freed = used - self.used()
        self.assertAlmostEqual(freed, left[0]["own_bytes"], delta=1 << 20)
        self.box.stasis("rm", "--all", "changing")
        self.assertFalse((self.store / "changing").exists())

    def used(self):
        seen, total = set(), 0
        for path in self.store.rglob("*"):
            status = path.lstat()
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
        return total

    def test_from_restart_to_restart(self):
        self.begin()
        first = self.checkpoint("--stop")
        steps = 0
        for generation in range(8):
            mode = ("mapped", "mapped", "eager")[generation % 3]
            self.restart("changing", f"--memory={mode}")
            at_once = self.checkpoint()
            self.assertLess(at_once["stored"], first["stored"] / 8)
            self.assert_good(steps)
            steps = self.step()
            one = self.checkpoint("--stop")
            self.assertLess(one["stored"], first["stored"] / 4)
            # Who goes back to an older one adds to that one.
        self.restart("changing@1")
        self.assert_good(0)
        again = self.checkpoint()
        self.assertEqual(again["base"], 1)
        self.assertLess(again["stored"], first["stored"] / 8)
        self.end()
        self.try_all([dict(again, steps=0), dict(one, steps=steps)], modes=("mapped",))

    def test_a_second_session_adds_to_the_checkpoint_of_the_first(self):
        self.begin()
        first = self.checkpoint()
        self.end()
        with open(self.place / "second.output", "ab") as output:
            self.box.stasis("restart", "changing", "--name", "second", "--background", stdout=output)
        one = self.checkpoint(name="second")
        self.assertLess(one["stored"], first["stored"] / 12)
        self.end("second")
        self.box.stasis("rm", "--all", "changing")
        self.box.stasis("verify", "second")
        with open(self.place / "second.output", "ab") as output:
            self.box.stasis("restart", "second", "--background", stdout=output)
        self.assert_good(0)

    def test_full(self):
        self.begin()
        first = self.checkpoint()
        self.step()
        full = self.checkpoint("--full")
        self.assertEqual((full["base"], full["shared"]), (0, 0))
        self.assertGreater(full["stored"], first["stored"] * 0.9)
        for path in self.page_files():
            self.assertEqual(path.stat().st_nlink, 1)

    def test_without_a_usable_base_all_is_written(self):
        self.begin()
        first = self.checkpoint()
        directory = pathlib.Path(first["directory"])
        manifest = directory / "manifest"
        whole = manifest.read_bytes()
        for what in ("manifest", "page file", "removed"):
            with self.subTest(what):
                if what == "manifest":
                    manifest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
                elif what == "page file":
                    manifest.write_bytes(whole)
                    page_file = max(directory.glob("*.stasis-pages"), key=lambda path: path.stat().st_size)
                    os.truncate(page_file, page_file.stat().st_size - 4096)
                else:
                    shutil.rmtree(directory)
                steps = self.step()
                one = self.checkpoint()
                self.assertEqual(one["base"], 0)
                self.assertGreater(one["stored"], first["stored"] * 0.9)
                self.assert_good(steps)
                if what != "removed":
                    self.box.stasis("rm", one["directory"])

    def test_damage_in_what_is_shared_is_found(self):
        self.begin()
        made = self.series(3)
        self.end()
        shared = max((path for path in self.page_files() if path.stat().st_nlink == 3),
                     key=lambda path: path.stat().st_size)
        name_of = {path.parent.name: path.name for path in self.page_files()
                   if path.stat().st_ino == shared.stat().st_ino}
        with open(shared, "r+b") as file:
            file.seek(8 << 20)
            byte = file.read(1)
            file.seek(8 << 20)
            file.write(bytes([byte[0] ^ 16]))
        for one in made:
            failed = self.box.stasis("verify", one["directory"], check=False)
            self.assertEqual(failed.returncode, 7)
            self.assertIn(f"{one['directory']}/{name_of[str(one['id'])]}", failed.stderr)
            self.assertIn("offset 8388608", failed.stderr)
        missing = pathlib.Path(made[2]["directory"]) / name_of["3"]
        missing.unlink()
        for verb in (["restart", "changing@3"], ["verify", "changing@3"], ["inspect", "changing@3"]):
            failed = self.box.stasis(*verb, check=False)
            self.assertEqual(failed.returncode, 7)
            self.assertIn(f"{missing}: it is missing", failed.stderr)

    def test_killed_at_any_moment(self):
        self.begin()
        made = self.series(2)
        def sums():
            return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.page_files()
                    if path.parent.name.isdigit()}
        before = sums()
        steps = made[1]["steps"]
        chance = random.Random(3)
        for _ in range(25):
            steps = self.step()
            process = subprocess.Popen(self.box.line([self.box.binary, "checkpoint", "changing"]), env=self.box.env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.random() * 0.12)
            process.kill()
            process.wait()
            after = sums()
            self.assertEqual({path: after.get(path) for path in before}, before)
        self.assert_good(steps)
        last = dict(self.checkpoint(), steps=steps)
        self.assertNotEqual(last["base"], 0)
        self.assertFalse(list(self.store.glob("changing/incomplete-*")))
        self.end()
        self.try_all(made + [last])

    def test_a_rolling_history_stays_small(self):
        self.begin("changing", "--interval", "1s", "--keep", "3")
        def many():
            self.step()
            return (self.entries() or [{"id": 0}])[-1]["id"] > 16  # more than there may be files
        wait_for("there were many", many, 90)
        self.box.stasis("checkpoint", "changing", "--stop")
        entries = self.entries()
        self.assertLessEqual(len(entries), 5)
        program = entries[-1]["logical_bytes"]
        self.assertLess(self.used(), 3 * program)
        for entry in entries:
            self.box.stasis("verify", entry["directory"])
        self.restart("changing")
        self.assertEqual(self.tell("look")[1], "good")

    def test_prune(self):
        self.begin()
        made = self.series(10)
        for one in made[:6]:
            self.box.stasis("rm", one["directory"])
        before = self.used()
        mapped = {entry["id"]: entry["logical_bytes"] for entry in self.entries()}
        said = self.box.stasis("prune", "changing").stdout
        self.assertIn("0 checkpoints removed", said)
        freed = before - self.used()
        self.assertGreater(freed, 1 << 20)
        self.assertEqual({entry["id"]: entry["logical_bytes"] for entry in self.entries()}, mapped)
        self.assertFalse(list(self.store.glob("changing/incomplete-*")))
        # There is nothing left to do, and the next one adds to what there is.
        used = self.used()
        self.box.stasis("prune", "changing")
        self.assertEqual(self.used(), used)
        made.append(dict(self.checkpoint(), steps=made[-1]["steps"]))
        self.assertLess(made[-1]["stored"], made[0]["stored"] / 4)
        self.end()
        self.try_all(made[6:])
        said = self.box.stasis("prune", "changing", "--keep", "1").stdout
        self.assertIn("4 checkpoints removed", said)
        self.assertEqual([entry["id"] for entry in self.entries()], [made[-1]["id"]])
        self.assertLess(self.used(), 1.1 * self.entries()[0]["logical_bytes"])
        self.try_all(made[-1:])

    def test_prune_killed_at_any_moment(self):
        self.begin()
        made = self.series(8)
        self.end()
        for one in made[:4]:
            self.box.stasis("rm", one["directory"])
        chance = random.Random(4)
        for _ in range(15):
            process = subprocess.Popen(self.box.line([self.box.binary, "prune", "changing"]), env=self.box.env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.random() * 0.08)
            process.kill()
            process.wait()
            self.box.stasis("verify", *(one["directory"] for one in made[4:]))
        self.box.stasis("prune", "changing")
        self.assertFalse(list(self.store.glob("changing/incomplete-*")))
        self.try_all(made[4:])

    def test_what_is_said(self):
        self.begin()
        made = self.series(3)
        said = self.box.stasis("checkpoint", "changing").stdout
        self.assertIn("changes since @3", said)
        entries = self.entries()
        self.assertEqual([entry["base"] for entry in entries], [0, 1, 2, 3])
        self.assertLess(entries[2]["own_bytes"], entries[2]["stored_bytes"] / 4)
        said = self.box.stasis("inspect", "changing@3").stdout
        self.assertIn("in page files of checkpoints 1, 2; it holds what had changed since @2", said)
        seen = json.loads(self.box.stasis("inspect", "changing@3", "--json").stdout)
        self.assertEqual(seen["base"], 2)
        self.assertEqual(sorted({file["origin"] for file in seen["files"]}), [0, 1, 2])
        self.assertTrue(any(memory["layers"] for memory in seen["memories"]))
        # A copy of one directory is a whole checkpoint.
        copy = self.place / "copy"
        self.box.run("cp", "-r", made[2]["directory"], copy)
        self.box.run("chmod", "-R", "go-w", copy)
        self.end()
        self.box.stasis("rm", "--all", "changing")
        self.restart(copy)
        self.assert_good(2)


class IncrementsOnExt4(IncrementTest):
    FILE_SYSTEM = "ext4"
    PAGES = 3000

    def test_series(self):
        self.begin()
        made = self.series(4)
        self.assertLess(made[3]["stored"], made[0]["stored"] / 4)
        self.end()
        self.box.stasis("rm", "changing@1", "changing@3")
        self.try_all([made[1], made[3]])


class IncrementsOnBtrfs(IncrementsOnExt4):
    FILE_SYSTEM = "btrfs"


class IncrementsOnXfs(IncrementsOnExt4):
    FILE_SYSTEM = "xfs"


class AnotherFileSystem(IncrementTest):
    def test_nothing_is_shared_across_file_systems(self):
        other = self.box.dir / "other"
        other.mkdir()
        self.mount("ext4", other, 200)
        self.own(other)
        self.begin()
        first = self.checkpoint()
        self.end()
        self.restart(first["directory"], "--store", other / "store")
        one = self.checkpoint()
        self.assertTrue(one["directory"].startswith(str(other)))
        self.assertEqual(one["base"], 0)
        self.assertGreater(one["stored"], first["stored"] * 0.9)
        self.step()
        self.assertLess(self.checkpoint()["stored"], first["stored"] / 4)
        self.assert_good(1)
        self.end()


class RedisIncrements(ProgramTest):
    def test_redis(self):
        server = find_program("redis-server", "valkey-server")
        if not server:
            self.skipTest("redis is not installed")
        port = free_port()
        self.box.launch("redis", server, "--port", port, "--save", "", "--appendonly", "no")
        wait_for("redis answers", lambda: Redis.ready(port), 30)
        client = Redis(port)
        for i in range(20000):
            client("SET", f"key{i}", "x" * 1000)
        stored = []
        for generation in range(4):
            client("SET", "generation", generation)
            for i in range(200):
                client("SET", f"key{i * 97}", f"{generation}" * 1000)
            if generation == 2:
                for i in range(10000, 15000):
                    client("DEL", f"key{i}")
            stored.append(json.loads(self.box.stasis("checkpoint", "redis", "--json").stdout)["stored"])
        client.close()
        self.assertLess(stored[1], stored[0] / 2)
        self.assertLess(stored[3], stored[0] / 2)
        self.box.stasis("checkpoint", "redis", "--stop")
        self.box.assert_gone("redis")
        for generation in (0, 3, 1, 2):
            with open(self.box.dir / "redis.output", "ab") as output:
                self.box.stasis("restart", f"redis@{generation + 1}", "--background", stdout=output)
            wait_for("redis answers", lambda: Redis.ready(port), 30)
            client = Redis(port)
            self.assertEqual(client("GET", "generation"), b"%d" % generation)
            self.assertEqual(client("GET", "key97"), b"%d" % generation * 1000)
            self.assertEqual(client("GET", "key1"), b"x" * 1000)
            self.assertEqual(client("GET", "key12001"), b"x" * 1000 if generation < 2 else None)
            client.close()
            self.box.save_and_kill("redis")


if __name__ == "__main__":
    unittest.main()
