"""Programs in namespaces of their own: unshare(1) and bubblewrap, as root and as the ordinary user."""
import os
import unittest

from harness import ProgramTest, Sandbox, find_program, wait_for

COUNT = """
import os, sys, time
path = sys.argv[1]
n = 0
while True:
    n += 1
    with open(path + '.new', 'w') as file:
        file.write(f"{n} {os.getpid()} {os.getuid()} {len([p for p in os.listdir('/proc') if p.isdigit()])}")
    os.rename(path + '.new', path)
    time.sleep(0.02)
"""


class Namespaces:
    """Each is a program in its sandbox, that writes a line as it sees itself; the line goes on after a restart."""
    user = None

    def setUp(self):
        if os.geteuid() == 0 and self.user is False:
            self.skipTest("no ordinary user")
        self.box = Sandbox(user=self.user or None)
        self.addCleanup(self.box.close)

    def line(self):
        try:
            words = (self.box.dir / "out" / "line").read_text().split()
        except OSError:
            return None
        return [int(word) for word in words] if len(words) == 4 else None

    def goes_on(self, *program):
        out = self.box.dir / "out"
        out.mkdir(exist_ok=True)
        out.chmod(0o777)
        script = self.box.write("count.py", COUNT, 0o755)
        self.box.launch("n", *program, "/usr/bin/python3", "-u", str(script), str(out / "line"))
        wait_for("the program's line", lambda: (self.line() or [0])[0] > 5)
        for _ in range(3):
            before = self.line()
            self.box.save_and_kill("n")
            self.box.restart("n")
            wait_for("more lines", lambda: (self.line() or [0])[0] > before[0] + 10)
            after = self.line()
            self.assertEqual(before[1:], after[1:])
        self.box.stasis("checkpoint", "n")
        before = self.line()
        wait_for("more lines", lambda: (self.line() or [0])[0] > before[0] + 10)
        return self.line()

    def test_user(self):
        line = self.goes_on(find_program("unshare"), "-Ur")
        self.assertEqual(line[2], 0)

    def test_user_and_pid(self):
        line = self.goes_on(find_program("unshare"), "-Ur", "--pid", "--fork")
        self.assertEqual(line[1:3], [1, 0])

    def test_user_pid_and_proc(self):
        line = self.goes_on(find_program("unshare"), "-Ur", "--pid", "--fork", "--mount-proc")
        self.assertEqual(line[1:], [1, 0, 1])

    def test_bubblewrap(self):
        program = [find_program("bwrap"), "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all",
                   "--die-with-parent"]
        try:
            line = self.goes_on(*program)
        except AssertionError as error:
            # As root it also covers parts of /proc by themselves.
            if "pivot_root" not in str(error) and "the mount of proc at /proc/" not in str(error):
                raise
            self.skipTest("what it mounts is not supported")
        self.assertEqual(line[1], 2)


class AsUser(Namespaces, unittest.TestCase):
    user = os.environ.get("STASIS_TEST_USER") or (None if os.geteuid() != 0 else False)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class AsRoot(Namespaces, unittest.TestCase):
    user = None

    def test_pid(self):
        line = self.goes_on(find_program("unshare"), "--pid", "--fork", "--mount-proc")
        self.assertEqual(line[1:], [1, 0, 1])


if __name__ == "__main__":
    unittest.main()
