"""What the tests of real programs share: a sandbox with its own state, sessions in it, terminals, small clients.

When root runs the tests they run the programs as the ordinary user of $STASIS_TEST_USER, if that is set."""
import fcntl
import os
import pathlib
import pty
import pwd
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
import outside  # noqa: E402

BINARY = pathlib.Path(os.environ.get("STASIS") or TESTS.parent / "build" / "stasis")
TIMEOUT = 30


def find_program(*names):
    """The first that is there; the test is skipped when none is."""
    for name in names:
        for found in [shutil.which(name)] + sorted(map(str, pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))):
            if found:
                return found
    raise unittest.SkipTest(f"{names[0]} is not installed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, done, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = done()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s in vain: {what}")


class Sandbox:
    """A directory, a $STASIS_HOME in it, and a user; everything that was started in it ends with it."""

    def __init__(self, user=os.environ.get("STASIS_TEST_USER") or None):
        self.user = pwd.getpwnam(user) if user and os.getuid() == 0 else None
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="stasis-e2e-", dir="/var/tmp"))
        self.home = self.dir / "state"
        self.home.mkdir(mode=0o700)
        self.binary = BINARY
        if self.user:
            if not outside.open_to_all(BINARY):  # the build tree is where an ordinary user has no way in
                self.binary = self.dir / "stasis"
                shutil.copy2(BINARY, self.binary)
                os.chmod(self.binary, 0o755)
                for part in "gl", "kvm":  # parts of plugins are looked for beside it
                    if (pathlib.Path(BINARY).parent / part).is_dir():
                        shutil.copytree(pathlib.Path(BINARY).parent / part, self.dir / part)
                        os.chmod(self.dir / part, 0o755)
            os.chown(self.dir, self.user.pw_uid, self.user.pw_gid)
            os.chown(self.home, self.user.pw_uid, self.user.pw_gid)
        self.env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "xterm", "STASIS_HOME": str(self.home),
                    "HOME": str(self.dir), "TMPDIR": str(self.dir)}
        self.log = []

    def line(self, line):
        line = list(map(str, line))
        if self.user:
            line = ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups",
                    "--inh-caps=-all"] + line
        return line

    def write(self, name, text, mode=0o755):
        path = self.dir / name
        path.write_text(text)
        os.chmod(path, mode)
        if self.user:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        return path

    def run(self, *line, timeout=TIMEOUT, check=True, **more):
        """Runs any program as the user of the sandbox, in its directory."""
        done = subprocess.run(self.line(line), env=self.env, cwd=self.dir, stdin=subprocess.DEVNULL, timeout=timeout,
                              capture_output=True, text=True, errors="replace", **more)
        if check and done.returncode != 0:
            raise AssertionError(f"{line[0]} exits with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def stasis(self, *args, check=True, timeout=TIMEOUT, stdout=None):
        # Not through pipes: a background session keeps what it was started with.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            started = time.monotonic()
            done = subprocess.run(self.line([self.binary, *args]), env=self.env, cwd=self.dir, timeout=timeout,
                                  stdin=subprocess.DEVNULL, stdout=stdout or out, stderr=stdout or err)
            done.took = time.monotonic() - started
            for stream in (out, err):
                stream.seek(0)
            done.stdout, done.stderr = (s.read().decode(errors="replace") for s in (out, err))
        self.log.append(f"$ stasis {' '.join(map(str, args))} -> {done.returncode} ({done.took * 1000:.0f} ms)\n"
                        f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
        if check and done.returncode != 0:
            raise AssertionError(f"stasis {args[0]} exits with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def launch(self, name, *program, flags=()):
        """In the background, with a file for its output."""
        path = self.dir / f"{name}.output"
        with open(path, "ab") as output:
            if self.user:
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
            self.stasis("launch", "--name", name, "--background", *flags, "--", *program, stdout=output)
        return path

    def save_and_kill(self, name):
        self.stasis("checkpoint", name, "--stop")
        self.assert_gone(name)

    def assert_gone(self, name):
        wait_for(f"no process of {name} is left", lambda: not (self.session(name) or {}).get("processes"), 5)

    def restart(self, name, *flags):
        path = self.dir / f"{name}.output"
        with open(path, "ab") as output:
            self.stasis("restart", name, "--background", *flags, stdout=output)

    def session(self, name):
        import json
        for session in json.loads(self.stasis("ps", "--json").stdout or "[]"):
            if session["name"] == name:
                return session
        return None

    def close(self):
        for _ in range(5):
            left = outside.having_in_environment(f"STASIS_HOME={self.home}")
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if not left:
                break
            time.sleep(0.02)
        shutil.rmtree(self.dir, ignore_errors=True)


class Terminal:
    """A program in the foreground at a terminal of its own, driven from here: stasis with these arguments, or any."""

    def __init__(self, sandbox, *args, rows=24, columns=80, program=None):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if sandbox.user:
            os.fchown(slave, sandbox.user.pw_uid, sandbox.user.pw_gid)

        def take_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(sandbox.line(program or [sandbox.binary, *args]), env=sandbox.env,
                                        cwd=sandbox.dir, stdin=slave, stdout=slave, stderr=slave,
                                        preexec_fn=take_terminal)
        os.close(slave)
        self.seen = ""
        if not program:
            sandbox.log.append(f"$ stasis {' '.join(map(str, args))}   (at a terminal)")

    def send(self, text):
        os.write(self.master, text.encode())

    def is_raw(self):
        return not termios.tcgetattr(self.master)[3] & termios.ICANON

    def read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def expect(self, pattern, seconds=TIMEOUT):
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            if time.monotonic() > end:
                raise AssertionError(f"the terminal did not show /{pattern}/ in {seconds} s but:\n{self.seen[-2000:]}")
            self.read(0.1)
        self.seen = self.seen[found.end():]
        return found

    def expect_after(self, text, pattern, seconds=TIMEOUT):
        """Sends the text again and again until the pattern is seen: a shell tells of a job at its next prompt."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(text)
            try:
                return self.expect(pattern, 0.5)
            except AssertionError:
                continue
        return self.expect(pattern, 0.5)

    def end(self, seconds=TIMEOUT):
        """Exit status of the command in the foreground."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.05)
        status = self.process.poll()
        if status is None:
            self.process.kill()
            raise AssertionError(f"the foreground command did not end; last seen:\n{self.seen[-2000:]}")
        os.close(self.master)
        return status


class Redis:
    """As much of a client as the tests need."""

    connection = file = None

    def __init__(self, port):
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.connection.makefile("rb")

    def close(self):
        for end in self.file, self.connection:
            if end is not None:
                end.close()

    __del__ = close

    def __call__(self, *words):
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.answer()

    def answer(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("closed")
        kind, rest = line[:1], line[1:].strip()
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        return int(rest) if kind == b":" else rest

    @staticmethod
    def ready(port):
        try:
            client = Redis(port)
        except OSError:
            return False
        try:
            return client("PING") == b"PONG"
        except (OSError, RuntimeError):
            return False
        finally:
            client.close()


def reserve_huge_pages(count, clean_up):
    """Root reserves so many for the time of a test, which is skipped where that is not possible."""
    if os.getuid() != 0:
        raise unittest.SkipTest("only root can reserve huge pages")
    file = open("/proc/sys/vm/nr_hugepages", "r+")
    clean_up(file.close)
    fcntl.flock(file, fcntl.LOCK_EX)  # one test at a time: who ends first would take those of the other

    def reserve(number):
        file.seek(0)
        file.write(str(number))
        file.flush()
        file.seek(0)
        return int(file.read())
    before = int(file.read())
    clean_up(reserve, before)
    if reserve(count) < count:
        raise unittest.SkipTest("this host has no room for huge pages")


def until_kept(subject):
    """A test of what the engine does not keep yet, as tests/known_limits.txt says of this subject: it is expected to
    fail as long as the line is there, and must pass when it is gone."""
    lines = (TESTS / "known_limits.txt").read_text().splitlines()
    return unittest.expectedFailure if any(line.split()[:1] == [subject] for line in lines) else lambda test: test


class ProgramTest(unittest.TestCase):
    """A test with a sandbox; what stasis said is shown when it fails."""

    def sandbox(self):
        return Sandbox()

    def setUp(self):
        if not BINARY.exists():
            self.fail(f"{BINARY} is not built")
        self.box = self.sandbox()
        self.addCleanup(self.box.close)

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before and hasattr(self, "box"):
            print("\n".join(self.box.log[-12:]), file=sys.stderr)
        return result
