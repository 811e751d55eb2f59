"""The state file of workload.cpp, seen from the measuring side: slots of tickers, requests and answers."""

import mmap
import os
import struct
import time

HEADER_SIZE = 128
SLOT_SIZE = 64
HEADER = ("tickers ready epoch fork_request fork_answer fork_ns verify_request work_request work_answer "
          "work_compute_ns work_syscall_ns work_memory_ns dense_us").split()
SLOT = "epoch first_tick last_tick largest_gap_ns ticks verified damaged is_first_of_process".split()


class Timeout(Exception):
    pass


class State:
    """Owns the file: creates it for `tickers` slots, maps it, deletes it on close."""

    def __init__(self, path, tickers, owner=None):
        self.path = path
        self.tickers = tickers
        size = HEADER_SIZE + tickers * SLOT_SIZE
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.ftruncate(fd, size)
        if owner:
            os.fchown(fd, owner.pw_uid, owner.pw_gid)
        self.map = mmap.mmap(fd, size)
        os.close(fd)

    def close(self):
        self.map.close()
        os.unlink(self.path)

    def get(self, name):
        return struct.unpack_from("<Q", self.map, 8 * HEADER.index(name))[0]

    def put(self, name, value):
        struct.pack_into("<Q", self.map, 8 * HEADER.index(name), value)

    def slots(self):
        for index in range(self.tickers):
            yield dict(zip(SLOT, struct.unpack_from("<8Q", self.map, HEADER_SIZE + index * SLOT_SIZE)))

    def wait(self, what, condition, seconds=120.0, pause=0.002):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Timeout(f"{what}: nothing after {seconds:.0f} s")
            time.sleep(pause)

    def wait_ready(self):
        self.wait("start of the program", lambda: self.get("ready") == self.tickers == self.get("tickers"))

    def new_epoch(self):
        epoch = self.get("epoch") + 1
        self.put("epoch", epoch)
        return epoch

    def wait_epoch(self, seconds=60.0):
        epoch = self.get("epoch")
        self.wait("every thread ticking", lambda: all(slot["epoch"] == epoch for slot in self.slots()), seconds)

    def wait_ticks(self):
        """Until every ticker has ticked once more, so that it knows of a pause that has just ended."""
        before = [slot["ticks"] for slot in self.slots()]
        self.wait("every thread ticking", lambda: all(slot["ticks"] > was + 1 for slot, was in zip(self.slots(), before)))

    def largest_gap_ms(self):
        return max(slot["largest_gap_ns"] for slot in self.slots()) / 1e6

    def last_first_tick(self):
        """When the last of all tickers ticked first in this epoch."""
        return max(slot["first_tick"] for slot in self.slots())

    def fork_ms(self):
        request = self.get("fork_request") + 1
        self.put("fork_request", request)
        self.wait("fork", lambda: self.get("fork_answer") == request)
        return self.get("fork_ns") / 1e6

    def work_ms(self):
        request = self.get("work_request") + 1
        self.put("work_request", request)
        self.wait("work", lambda: self.get("work_answer") == request)
        return {name: self.get(f"work_{name}_ns") / 1e6 for name in ("compute", "syscall", "memory")}

    def verify(self):
        """Every process compares its memory with what it wrote there; the number of damaged words."""
        request = self.get("verify_request") + 1
        self.put("verify_request", request)
        owners = [index for index, slot in enumerate(self.slots()) if slot["is_first_of_process"]]

        def done():
            slots = list(self.slots())
            return all(slots[index]["verified"] == request for index in owners)

        self.wait("verification", done)
        return sum(slot["damaged"] for slot in self.slots())
