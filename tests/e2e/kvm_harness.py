"""For tests with KVM: who may open /dev/kvm, a sandbox for those who may, and the monitor of tests/kvm."""
import fcntl
import os
import pathlib
import pwd
import re
import stat
import subprocess
import unittest

from harness import TESTS, Sandbox, wait_for

DEVICE = pathlib.Path("/dev/kvm")
MONITOR = pathlib.Path(os.environ.get("STASIS_BUILD") or TESTS.parent / "build") / "tests" / "kvm_monitor"


def need():
    """Skips the test where this process has no KVM. Programs that an ordinary user runs need sandbox_of_user()."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise unittest.SkipTest(f"no KVM here: {error}")


def sandbox():
    """As whoever runs the tests: the ordinary user of $STASIS_TEST_USER has no KVM in general."""
    need()
    return Sandbox(user=None)


def sandbox_of_user(test):
    """As the ordinary user of $STASIS_TEST_USER, to whom root lends the device for the time of the test."""
    need()
    user = os.environ.get("STASIS_TEST_USER") or "stasis-test"
    if os.getuid() != 0:
        raise unittest.SkipTest("who runs the tests is an ordinary user already")
    try:
        who = pwd.getpwnam(user)
    except KeyError:
        raise unittest.SkipTest(f"there is no user {user}")
    # One borrower at a time: who comes second would lose it when the first gives it back.
    turn = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    test.addCleanup(os.close, turn)
    fcntl.flock(turn, fcntl.LOCK_EX)
    mode = stat.S_IMODE(DEVICE.stat().st_mode)
    if mode & 0o006 != 0o006:
        # Whatever becomes of this process, its end closes the pipe, and the mode is what it was.
        lender = subprocess.Popen(["sh", "-c", f"read line; chmod {mode:o} {DEVICE}"], stdin=subprocess.PIPE,
                                  start_new_session=True)

        def give_back():
            lender.stdin.close()
            lender.wait()
        test.addCleanup(give_back)
        os.chmod(DEVICE, mode | 0o006)
    opened = subprocess.run(["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--",
                             "sh", "-c", f": <> {DEVICE}"], capture_output=True, check=False)
    if opened.returncode != 0:
        raise unittest.SkipTest(f"{user} cannot open {DEVICE}: {opened.stderr.decode().strip()}")
    return Sandbox(user=user)


def need_monitor():
    need()
    if not MONITOR.exists():
        raise unittest.SkipTest(f"{MONITOR} is not built")


class Output:
    """What a monitor has said so far, in a file."""

    def __init__(self, test, path):
        self.test, self.path = test, path

    def text(self):
        text = self.path.read_text(errors="replace")
        skipped = re.search(r"^SKIP (.*)\n", text, re.MULTILINE)
        if skipped:
            self.test.skipTest(f"this KVM cannot run it: {skipped[1]}")
        self.test.assertNotIn("BAD", text)
        return text

    def lines(self):
        """(number, what else is in the line) of each tick. The last line may be half."""
        return [(int(found[1]), found[2]) for found in re.finditer(r"^TICK (\d+)(.*)\n", self.text(), re.MULTILINE)]

    def last(self):
        lines = self.lines()
        return lines[-1][0] if lines else -1

    def reach(self, tick, seconds=30):
        wait_for(f"the guest's tick {tick}", lambda: self.last() >= tick, seconds)

    def go_on(self, ticks=5):
        self.reach(self.last() + ticks)

    def whole(self):
        ticks = [number for number, _ in self.lines()]
        self.test.assertEqual(ticks, list(range(len(ticks))))
