#!/usr/bin/python3
"""What was not written since the last checkpoint is known without reading it, and nothing is taken for unchanged that is
not. The program writes to its memory all the time, also while a checkpoint is being made, and knows what must be where."""
import json
import os
import pathlib
import random
import subprocess
import time
import unittest

from harness import wait_for
from test_increments import IncrementTest

# A thread writes the numbers of its writes, page by page, without end. So what each page must hold follows from how many
# there were. "look" says whether it does.
WRITING = """
import ctypes, mmap, os, resource, struct, sys, threading, time
P = 4096
begin, size, path, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, size * P, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if how == "huge":
    memory.madvise(mmap.MADV_HUGEPAGE)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
count = begin * size
lock = threading.Lock()
def write():
    global count
    count += 1
    struct.pack_into("q", memory, count % size * P + 8 * (count // size % 2), count)
def many():
    while True:
        with lock:
            for _ in range(20):
                write()
        time.sleep(0.01)
for _ in range(2 * size):
    write()
def problem():
    for page in range(size):
        newest = count - (count - page) % size
        seen = sorted(struct.unpack_from("2q", memory, page * P))
        if seen != [newest - size, newest]:
            return f"page {page} is {seen} and not {[newest - size, newest]}"
def allow(descriptors):
    if how == "without descriptors":
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
if not os.path.exists(path):
    os.mkfifo(path, 0o600)
threading.Thread(target=many, daemon=True).start()
print("begun", flush=True)
own = None

def own_tracker():
    # Of its own: it is told of pages that are missing.
    global own
    area = mmap.mmap(-1, 64 * P, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    tracker = libc.syscall(323, os.O_CLOEXEC | 1)
    assert tracker >= 0
    api = struct.pack("3Q", 0xaa, 0, 0)
    import fcntl
    fcntl.ioctl(tracker, 0xc018aa3f, api)
    fcntl.ioctl(tracker, 0xc020aa00, struct.pack("4Q", at, 64 * P, 1, 0))
    own = (area, tracker)

fifo = os.open(path, os.O_RDWR)
while True:
    allow(fifo + 1)  # while it waits it can get no descriptor
    what, mark = os.read(fifo, 1000).decode().split()
    allow(1000)
    result = "done"
    if what == "fork":
        lock.acquire()  # nobody is in the middle of a write
        if pid := os.fork():
            lock.release()
            result = f"{pid}"
        else:  # writes other things to the same pages, and goes on
            lock = threading.Lock()
            for _ in range(size // 2 + 7):
                write()
            threading.Thread(target=many, daemon=True).start()
            while True:
                while not os.path.exists(path + ".child"):
                    time.sleep(0.01)
                with lock:
                    said = problem() or "good"
                with open(path + ".said.new", "w") as answer:
                    answer.write(said)
                os.rename(path + ".said.new", path + ".said")
                os.unlink(path + ".child")
    elif what == "exec":
        with open(path + "." + mark, "w") as answer:
            answer.write("0 done\\n")
        os.rename(path + "." + mark, path + ".answer." + mark)
        libc.personality(0x0040000)  # the same addresses
        os.execv(sys.executable, [sys.executable, sys.argv[0], str(begin + 1000), *sys.argv[2:]])
    elif what == "tracker":
        own_tracker()
    elif what == "no-tracker":
        os.close(own[1])
    elif what == "wipe":
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size * P), 18)  # MADV_WIPEONFORK
    elif what == "flags":  # of the memory: how much of it is in huge pages, and VmFlags
        inside = False
        for line in open("/proc/self/smaps"):
            words = line.split()
            if not words[0].endswith(":"):
                start, end = (int(number, 16) for number in words[0].split("-"))
                inside = start <= address < end
            elif inside and words[0] in ("AnonHugePages:", "VmFlags:"):
                result += " " + " ".join(words[1:])
    elif what == "quiet":
        lock.acquire()
    elif what == "descriptors":
        result = " ".join(sorted(os.listdir("/proc/self/fd")))
    else:
        with lock:
            result = problem() or "good"
    with open(path + "." + mark, "w") as answer:
        answer.write(f"0 {result}\\n")
    os.rename(path + "." + mark, path + ".answer." + mark)
"""


class TrackingTest(IncrementTest):
    PAGES = 6000

    def begin_writing(self, how="", pages=None):
        script = self.box.write("writing.py", WRITING)
        self.fifo = self.work / "writing.fifo"
        output = self.place / "writing.output"
        with open(output, "ab") as file:
            if self.box.user:
                os.chown(output, self.box.user.pw_uid, self.box.user.pw_gid)
            self.box.stasis("launch", "--name", "changing", "--store", self.store, "--background", "--",
                            "/usr/bin/python3", script, 1, pages or self.PAGES, self.fifo, how, stdout=file)
        self.output = output
        wait_for("it has its memory", lambda: "begun" in output.read_text(), 60)

    def good(self):
        self.assertEqual(self.tell("look")[1], "good")

    def child_is_good(self):
        said = pathlib.Path(f"{self.fifo}.said")
        said.unlink(missing_ok=True)
        pathlib.Path(f"{self.fifo}.child").touch()
        wait_for("the child answers", said.exists, 60)
        self.assertEqual(said.read_text(), "good")

    def bytes(self):
        return self.PAGES * 4096

    def many(self, count):
        made = []
        for _ in range(count):
            made.append(self.checkpoint())
            time.sleep(0.05)
        return made

    def restart_all(self, made, child=False):
        for i, one in enumerate(made):
            self.restart(f"changing@{one['id']}", f"--memory={('mapped', 'eager')[i % 2]}")
            try:
                self.good()
                if child:
                    self.child_is_good()
            finally:
                self.end()


class Tracking(TrackingTest):
    def test_what_was_not_written_is_not_read(self):
        self.begin_writing()
        before = self.tell("descriptors")[1]
        made = self.many(6)
        for one in made[2:]:
            self.assertLess(one["compared"], self.bytes() / 2)
            self.assertGreater(one["compared"], 0)
        self.assertEqual(self.tell("descriptors")[1], before)
        self.tell("quiet")
        self.checkpoint()
        self.assertLess(self.checkpoint()["compared"], 2 << 20)
        # Also after a complete one, which is then the base.
        self.checkpoint("--full")
        last = self.checkpoint()
        self.assertLess(last["compared"], 2 << 20)
        self.assertLess(last["stored"], 2 << 20)
        self.end()
        self.restart_all(made)

    def test_a_child_writes_to_its_own_copy(self):
        self.begin_writing()
        self.many(3)
        self.tell("fork")
        time.sleep(0.5)
        made = self.many(4)
        self.end()
        self.restart_all(made, child=True)

    def test_exec(self):
        self.begin_writing()
        self.many(3)
        made = []
        for generation in range(2):
            begun = self.output.read_text().count("begun")
            self.tell("exec")
            wait_for("it has new memory", lambda: self.output.read_text().count("begun") > begun, 60)
            made += self.many(3)
        self.end()
        self.restart_all(made)

    def test_a_tracker_of_its_own(self):
        self.begin_writing()
        made = self.many(3)
        self.tell("tracker")
        failed = self.box.stasis("checkpoint", "changing", check=False)
        self.assertIn("userfaultfd", failed.stderr)
        self.tell("no-tracker")
        made += self.many(3)
        self.assertLess(made[-1]["compared"], self.bytes() / 2)
        self.end()
        self.restart_all(made[2:])

    def test_without_a_tracker_all_is_compared(self):
        self.begin_writing("without descriptors")
        made = self.many(4)
        for one in made[1:]:
            self.assertGreater(one["compared"], self.bytes() * 0.9)
        self.end()
        self.restart_all(made[2:])

    def test_another_base(self):
        """The newest is removed, damaged, or replaced by another of the same number: what is known does not refer to that."""
        self.begin_writing()
        made = self.many(3)
        time.sleep(0.3)
        made.append(self.checkpoint())
        self.box.stasis("rm", f"changing@{made[3]['id']}")
        one = self.checkpoint()
        self.assertEqual((one["id"], one["base"]), (made[3]["id"], made[2]["id"]))
        self.assertGreater(one["compared"], self.bytes() * 0.9)
        self.assertLess(self.checkpoint()["compared"], self.bytes() / 2)
        # The number of the newest, with the contents of an older one.
        time.sleep(0.3)
        last = self.checkpoint()
        self.box.stasis("rm", last["directory"])
        os.rename(made[1]["directory"], last["directory"])
        other = self.checkpoint()
        self.end()
        self.restart_all([one, other])

    def test_huge_pages_stay(self):
        """They would be split, and each later checkpoint would stop the program for longer."""
        self.begin_writing("huge")
        self.tell("quiet")
        before = int(self.tell("flags")[1].split()[1])
        if before * 1024 < self.bytes() * 0.6:
            self.skipTest("there are no huge pages to be had")
        for one in self.many(4)[1:]:
            self.assertGreater(one["compared"], self.bytes() * 0.9)
        self.assertEqual(int(self.tell("flags")[1].split()[1]), before)

    def test_memory_that_a_fork_empties(self):
        """What the program has said of its memory is so afterwards; what is copied must not be taken for what is wiped."""
        self.begin_writing()
        self.many(3)
        self.assertNotIn("wf", self.tell("flags")[1].split())
        self.tell("wipe")
        made = self.many(3)
        self.assertIn("wf", self.tell("flags")[1].split())
        self.end()
        for one in made:
            self.restart(f"changing@{one['id']}", "--memory=eager")
            self.good()
            self.assertIn("wf", self.tell("flags")[1].split())
            self.end()

    def test_killed_at_any_moment(self):
        self.begin_writing()
        self.many(2)
        chance = random.Random(7)
        for round in range(30):
            process = subprocess.Popen(self.box.line([self.box.binary, "checkpoint", "changing"]), env=self.box.env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.random() * 0.15)
            process.kill()
            process.wait()
            if round % 5 == 4:
                self.checkpoint()
        self.good()
        self.assertNotIn("wf", self.tell("flags")[1].split())  # what is said of memory while it is forked
        made = self.many(3)
        self.assertLess(made[-1]["compared"], self.bytes() / 2)
        self.end()
        self.restart_all(made)

    def test_what_came_to_nothing(self):
        """A checkpoint fails when memory has been protected already, and the next refers to the one before."""
        small = self.box.dir / "small"
        small.mkdir()
        self.mount("ext4", small, 200)
        self.own(small)
        self.store = small / "store"
        self.begin_writing()
        self.many(3)
        time.sleep(0.3)
        filler = small / "filler"
        with open(filler, "wb") as file:
            left = os.statvfs(small)
            try:
                blocks = left.f_bavail if self.box.user else left.f_bfree
                os.posix_fallocate(file.fileno(), 0, blocks * left.f_frsize - (1 << 20))  # for its beginning
            except OSError:
                pass
        failed = self.box.stasis("checkpoint", "changing", check=False)
        self.assertIn("No space left", failed.stderr)
        filler.unlink()
        made = self.many(3)
        self.end()
        self.restart_all(made)


if __name__ == "__main__":
    unittest.main()
