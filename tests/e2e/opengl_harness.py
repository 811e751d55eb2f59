"""What tests of real OpenGL programs share: starting them natively and in sessions, telling them what to draw, and comparing
their pictures."""
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess

from harness import ProgramTest, wait_for
from test_opengl import Display, children_of

SYSTEM_PATH = "/usr/bin:/bin:/usr/games"
SOFTPIPE = {"GALLIUM_DRIVER": "softpipe"}
ZINK = {"MESA_LOADER_DRIVER_OVERRIDE": "zink", "LIBGL_ALWAYS_SOFTWARE": "1"}
VIRPIPE = {"GALLIUM_DRIVER": "virpipe", "LIBGL_ALWAYS_SOFTWARE": "1"}
PATIENCE_s = 90


def pixels_of(path):
    """A name for exactly these pixels."""
    return subprocess.run(["identify", "-format", "%#", path], capture_output=True, text=True, check=True).stdout


def launch(box, name, words):
    # Its output is a file of its user's, which can be saved.
    with open(box.write(f"{name}.output", "", 0o644), "ab") as output:
        box.stasis("launch", "--display=640x480", "--gl=on", "--files=none", "--name", name, "--background", "--", *words,
                   stdout=output)


def servers(box):
    """Those of OpenGL of this sandbox."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            line = pathlib.Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if entry.isdigit() and "stasis-gl-server" in line and str(box.home) in line:
            found.append(int(entry))
    return found


def renderers(box):
    return [pid for server in servers(box) for pid in children_of(server, "stasis-gl-renderer")]


def kill_renderer(box):
    (old,) = renderers(box)
    os.kill(old, signal.SIGKILL)
    wait_for("a new renderer", lambda: renderers(box) not in ([], [old]), 20)


@contextlib.contextmanager
def virgl_server():
    """What the driver virpipe sends its work to; it looks for it at one place. Nothing when it is not there."""
    place = "/tmp/.virgl_test"

    def listens():
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(place) == 0
    program = shutil.which("virgl_test_server")
    if not program:
        yield
        return
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = subprocess.Popen([program, "--use-egl-surfaceless", "--multi-clients"], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            with contextlib.suppress(AssertionError):
                wait_for("the server of virgl", lambda: server.poll() is not None or listens(), 5)
            if server.poll() is None:
                os.chmod(place, 0o777)  # for the user of the sandbox
            yield
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


class Program:
    """One that is told what to draw by files (tests/gl/commands.py)."""

    def __init__(self, box, name, words):
        self.box, self.words, self.number = box, words, 0
        self.place = box.dir / name
        self.place.mkdir()
        self.place.chmod(0o777)
        self.files = self.place

    @property
    def environment(self):
        return {"PATH": SYSTEM_PATH, "COMMANDS": str(self.place), "COMMANDS_MODULE": str(self.box.dir / "commands.py")}

    def launch(self, name):
        self.box.env |= self.environment
        launch(self.box, name, self.words)

    def say(self, command):
        self.number += 1
        part = self.files / "part"
        part.write_text(command)
        part.chmod(0o644)
        part.rename(self.files / f"{self.number}.command")

    def picture(self):
        """That of the last command."""
        wait_for(f"picture {self.number}", (self.files / f"{self.number}.done").exists, PATIENCE_s)
        return pixels_of(self.files / f"{self.number}.png")

    def draw(self, command):
        self.say(command)
        return self.picture()


class PicturesTest(ProgramTest):
    """Pictures of a program are to the bit those that it draws natively on the same driver."""

    def program(self, name):
        """A Program in a directory of this name."""
        raise NotImplementedError

    def native(self, script, **environment):
        display = Display()
        program = self.program("native" + "".join(environment.values()))
        running = subprocess.Popen(program.words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   cwd=self.box.dir, start_new_session=True,
                                   env={**self.box.env, **program.environment, "DISPLAY": display.name, **environment})
        try:
            return [program.draw(command) for command in script]
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            display.close()

    def check(self, script):
        with virgl_server():
            self.check_drivers(script)

    def check_drivers(self, script):
        """Pictures: the first, then after a restart, the death of the renderer, a move to another driver, and restarts on
        one driver after the other, and on the first again. A driver that is changed must not be seen in the first of them."""
        native = self.native(script)
        softpipe = self.native(script, **SOFTPIPE)
        program = self.program("recorded")
        program.launch("p")
        seen = [program.draw(script[0])]
        self.box.save_and_kill("p")
        self.box.restart("p")
        seen.append(program.draw(script[1]))
        kill_renderer(self.box)
        seen.append(program.draw(script[2]))
        self.assertEqual(seen, native[:3])
        self.box.stasis("gl", "move", "p", "--driver", "softpipe")
        self.assertEqual(program.draw(script[3]), softpipe[3])
        drivers = [("softpipe", softpipe)]
        for driver, environment in (("zink", ZINK), ("virpipe", VIRPIPE)):
            if self.starts(driver):
                drivers.append((driver, self.native(script, **environment)))
        for number, (driver, pictures) in enumerate([*drivers, ("llvmpipe", native)], 4):
            self.box.save_and_kill("p")
            self.box.restart("p", f"--gl-driver={driver}")
            with self.subTest(driver=driver):
                self.assertEqual(program.draw(script[number]), pictures[number])
                (said,) = json.loads(self.box.stasis("gl", "status", "p", "--json").stdout)
                self.assertTrue(said["driver"].startswith("virgl" if driver == "virpipe" else driver), said)

    def starts(self, driver):
        """Whether it works here at all."""
        said = self.box.stasis("check", "--json", check=False).stdout
        return any(row["name"] == f"OpenGL: {driver}" and row["state"] == "ok" for row in json.loads(said)["checks"])
