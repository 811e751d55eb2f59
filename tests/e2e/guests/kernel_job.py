#!/usr/bin/python3
"""What a Debian guest does to try stasis on its kernel.

    kernel_job.py check         prints what `stasis check` says
    kernel_job.py save          saves and kills programs of root and of an ordinary user
    kernel_job.py go_on         restarts those, saves them again and restarts them once more

In between may be the start of another kernel."""
import json
import os
import pathlib
import pwd
import subprocess
import sys
import time

BINARY = "/stasis/build/stasis"
PLACE = pathlib.Path("/var/lib/saved")
USERS = ("root", "tester")
PATIENCE_s = 120
# Two threads, a child behind a pipe, and clocks that are asked by the vDSO and by system calls, which must agree.
PROGRAM = r"""
import ctypes, os, sys, threading, time
library = ctypes.CDLL(None)
def asked(clock):
    told = (ctypes.c_long * 2)()
    library.syscall(228, clock, told)
    return told[0] * 10**9 + told[1]
read, write = os.pipe()
back, answer = os.pipe()
if os.fork() == 0:
    while True:
        os.write(answer, os.read(read, 8))
counts = [0, 0]
def count():
    while True:
        counts[1] += 1
        time.sleep(0.001)
threading.Thread(target=count, daemon=True).start()
place, last, before = sys.argv[1], 0, 0
while True:
    counts[0] += 1
    for clock in time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME:
        times = [time.clock_gettime_ns(clock), asked(clock), time.clock_gettime_ns(clock)]
        if times != sorted(times):
            open(place + ".bad", "w").write(f"clock {clock}: {times}\n")
    now = time.monotonic_ns()
    # As if nothing had been between a checkpoint and its restart.
    if last and not 0 <= now - last < 60 * 10**9:
        open(place + ".bad", "w").write(f"the time jumps by {now - last} ns\n")
    last = now
    os.write(write, counts[0].to_bytes(8, "little"))
    if int.from_bytes(os.read(back, 8), "little") != counts[0]:
        open(place + ".bad", "w").write("the child answers wrongly\n")
    if counts[0] % 20 == 0:
        open(place + ".part", "w").write(f"{counts[0]} {counts[1]}\n")
        os.rename(place + ".part", place)
    time.sleep(0.002)
"""


class User:
    def __init__(self, name):
        self.name = name
        self.entry = pwd.getpwnam(name)
        self.place = PLACE / name
        self.progress = self.place / "progress"
        self.bad = self.place / "progress.bad"

    def run(self, *words):
        line = [BINARY, *words]
        if self.name != "root":
            line = ["setpriv", f"--reuid={self.entry.pw_uid}", f"--regid={self.entry.pw_gid}", "--clear-groups", "--inh-caps=-all", *line]
        # A session keeps it, and opens it again at a restart.
        with open(self.place / "said", "ab") as said:
            os.fchown(said.fileno(), self.entry.pw_uid, self.entry.pw_gid)
            done = subprocess.run(line, env={"PATH": os.environ["PATH"], "HOME": self.entry.pw_dir, "STASIS_HOME": str(self.place / "state"),
                                             "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=PATIENCE_s)
        if done.returncode != 0:
            raise SystemExit(f"BAD: {self.name}: stasis {words[0]} exits with {done.returncode}: {(self.place / 'said').read_text()[-3000:]}")

    def counts(self):
        if self.bad.exists():
            raise SystemExit(f"BAD: {self.name}: {self.bad.read_text()}")
        return [int(word) for word in self.progress.read_text().split()] if self.progress.exists() else [0, 0]

    def wait_for_more(self):
        before, end = self.counts(), time.monotonic() + PATIENCE_s
        while not all(now > then for now, then in zip(self.counts(), before)):
            if time.monotonic() > end:
                raise SystemExit(f"BAD: {self.name}: the program stands still at {before}")
            time.sleep(0.05)
        return before

    def launch(self):
        self.place.mkdir(parents=True)
        os.chown(self.place, self.entry.pw_uid, self.entry.pw_gid)
        self.run("launch", "--name", "p", "--background", "--", "/usr/bin/python3", "-c", PROGRAM, self.progress)
        self.wait_for_more()

    def save(self):
        self.run("checkpoint", "p", "--stop")

    def restart(self):
        before = self.counts()
        self.run("restart", "p", "--background")
        self.wait_for_more()
        if any(now < then for now, then in zip(self.counts(), before)):
            raise SystemExit(f"BAD: {self.name}: {before} and then {self.counts()}")
        print(f"{self.name}: {before} and then {self.counts()}")


def check():
    said = subprocess.run([BINARY, "check", "--json"], stdout=subprocess.PIPE, text=True).stdout
    print("CHECK " + json.dumps(json.loads(said)))


def save():
    for user in map(User, USERS):
        user.launch()
        user.run("checkpoint", "p")
        user.wait_for_more()
        user.save()


def go_on():
    for user in map(User, USERS):
        user.restart()
        user.save()
        user.restart()
        user.save()


def main():
    print("CLOCK", pathlib.Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip())
    {"check": check, "save": save, "go_on": go_on}[sys.argv[1]]()


if __name__ == "__main__":
    main()
