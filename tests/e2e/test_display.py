#!/usr/bin/python3
"""`stasis launch --display`: real X programs on a private X server that is saved and restarted with them, and the
pictures that their checkpoints carry."""
import base64
import html.parser
import json
import os
import re
import socket
import struct
import subprocess
import time
import unittest
import zlib
from pathlib import Path

from harness import ProgramTest, Sandbox, find_program, wait_for

PYTHON = "/usr/bin/python3"
SIZE = (400, 300)


def decode_xwd(data):
    """(width, height, rows of RGB) of a window dump with 32 bits for each pixel."""
    head = struct.unpack(">25I", data[:100])
    width, height, line, colours = head[4], head[5], head[12], head[19]
    start = head[0] + colours * 12
    rows = []
    for y in range(height):
        row = data[start + y * line:start + y * line + width * 4]
        rgb = bytearray(width * 3)
        rgb[0::3], rgb[1::3], rgb[2::3] = row[2::4], row[1::4], row[0::4]
        rows.append(bytes(rgb))
    return width, height, rows


def decode_png(data):
    """The same of a PNG as we write them: eight bits, RGB, filters none and Sub."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    at, packed, head = 8, b"", None
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0]
        at += 12 + size
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        packed += body if kind == b"IDAT" else b""
    width, height = head[:2]
    assert head[2:] == (8, 2, 0, 0, 0), head
    raw, rows = zlib.decompress(packed), []
    for y in range(height):
        line = bytearray(raw[y * (width * 3 + 1):(y + 1) * (width * 3 + 1)])
        how = line.pop(0)
        assert how in (0, 1), how
        for i in range(3, len(line) if how == 1 else 0):
            line[i] = (line[i] + line[i - 3]) & 255
        rows.append(bytes(line))
    return width, height, rows


class DisplayTest(ProgramTest):
    def setUp(self):
        find_program("Xvfb")
        super().setUp()

    def launch(self, name, *program, display=f"{SIZE[0]}x{SIZE[1]}"):
        """What it has said."""
        # Into files: of pipes the session would get a terminal.
        paths = [self.box.dir / f"{name}.{what}" for what in ("output", "said")]
        for path in paths:
            path.touch()
            os.chmod(path, 0o666)
        with open(paths[0], "ab") as output, open(paths[1], "ab") as said:
            done = subprocess.run(
                self.box.line([self.box.binary, "launch", f"--display={display}", "--name", name, "--background", "--",
                               *program]),
                env=self.box.env, cwd=self.box.dir, stdin=subprocess.DEVNULL, stdout=output, stderr=said, timeout=30)
        self.assertEqual(done.returncode, 0, paths[1].read_text())
        return paths[1].read_text()

    def display(self, name):
        return self.box.session(name)["display"]

    def inside(self, name, *line, **more):
        """A client that is no process of the session, but sees its display where the session's programs see it."""
        session = self.box.session(name)
        server = next(p["host_pid"] for p in session["processes"] if p["comm"] in ("Xvfb", "Xtigervnc"))
        enter = ["nsenter", f"--target={server}", "--mount"]
        if self.box.user or os.getuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        return self.box.run(*enter, "env", f"DISPLAY=:{session['display']['number']}",
                            "XAUTHORITY=/tmp/.X11-unix/authority", *line, **more)

    def screen(self, name):
        path = self.box.dir / f"{name}.xwd"
        self.inside(name, find_program("xwd"), "-root", "-silent", "-out", path)
        return decode_xwd(path.read_bytes())

    def still_screen(self, name):
        """When it has stopped changing, and shows something."""
        seen = [None, 0]

        def still():
            now = self.screen(name)
            seen[:] = now, seen[1] + 1 if now == seen[0] and len(set(now[2])) > 1 else 0
            return seen[1] >= 3
        wait_for("the screen stands still", still)
        return seen[0]

    def keys(self, name, *keys):
        self.inside(name, find_program("xdotool"), *keys)

    def checkpoints(self, name):
        return json.loads(self.box.stasis("list", name, "--json").stdout)

    def picture(self, name):
        """That of the newest checkpoint."""
        return decode_png(Path(self.checkpoints(name)[-1]["picture"]).read_bytes())

    def assert_shows(self, picture, screen):
        """A picture has the pointer in it, which is in the middle; a window dump has not."""
        self.assertEqual((picture[:2], screen[:2]), (SIZE, SIZE))
        x, y = SIZE[0] // 2 - 16, SIZE[1] // 2 - 16
        for number, (ours, theirs) in enumerate(zip(picture[2], screen[2])):
            if y <= number < y + 32:
                ours, theirs = (row[:x * 3] + row[(x + 32) * 3:] for row in (ours, theirs))
            self.assertEqual(ours, theirs, f"row {number}")

    def processes(self, name):
        return sorted(p["comm"] for p in (self.box.session(name) or {"processes": []})["processes"])


class Programs(DisplayTest):
    """Three generations of each; what stands still looks as before to the bit, and it goes on listening."""

    def generations(self, name, then=None):
        before = self.still_screen(name)
        first = None
        for _ in range(3):
            self.box.save_and_kill(name)
            self.assert_shows(self.picture(name), before)
            self.assertEqual(self.picture(name), first := first or self.picture(name))
            self.box.restart(name)
            self.assertEqual(self.screen(name), before)
        if then:
            then()
            wait_for("it listens", lambda: self.screen(name) != before)
            self.box.stasis("checkpoint", name)
            self.box.save_and_kill(name)

    def test_xterm(self):
        find_program("xterm")
        self.launch("s", "xterm", "-fn", "fixed", "-geometry", "50x15+20+10", "-e", "sh")
        written = self.box.dir / "written"

        def write():
            # Without a window manager the focus follows the pointer.
            self.keys("s", "mousemove", "100", "100", "type", f"echo $DISPLAY > {written}\n")
            wait_for("the shell has got it", lambda: written.exists() and written.read_text())
            self.assertEqual(written.read_text(), f":{self.display('s')['number']}\n")
        self.generations("s", write)

    def test_xcalc(self):
        find_program("xcalc")
        self.launch("s", "xcalc", "-geometry", "+0+0")
        self.generations("s", lambda: self.keys("s", "mousemove", "60", "60", "key", "7"))

    def test_xeyes(self):
        find_program("xeyes")
        self.launch("s", "xeyes", "-geometry", "150x100+100+100")
        # On Xvfb they do not follow the pointer, whoever has started it.
        self.generations("s")

    def test_xclock(self):
        find_program("xclock")
        self.launch("s", "xclock", "-update", "3600", "-geometry", "200x200+0+0")
        self.generations("s")

    def test_tk(self):
        if subprocess.run([PYTHON, "-c", "import tkinter"], capture_output=True).returncode != 0:
            self.skipTest("python3-tk is not installed")
        script = self.box.write("entry.py", """
import tkinter
root = tkinter.Tk()
text = tkinter.StringVar()
entry = tkinter.Entry(root, textvariable=text, insertofftime=0)
entry.pack()
text.trace_add("write", lambda *_: open("typed", "w").write(text.get()))
entry.focus_force()
root.mainloop()
""")
        self.launch("s", PYTHON, script)
        typed = self.box.dir / "typed"

        def type_it():
            self.keys("s", "mousemove", "20", "10", "click", "1", "type", "hello")
            wait_for("it has what was typed", lambda: typed.exists() and typed.read_text() == "hello")
        self.generations("s", type_it)

    def test_shared_memory(self):
        """MIT-SHM: a System V segment that the program and the X server have attached."""
        script = self.box.write("shm.py", SHM_PROGRAM)
        self.launch("s", PYTHON, script)
        def colour():
            return self.screen("s")[2][50][150:153]
        wait_for("it has drawn", lambda: colour() == b"\x20\x60\xa0" or "no MIT-SHM" in self.output("s"))
        if "no MIT-SHM" in self.output("s"):
            self.skipTest(self.output("s"))
        self.generations("s")
        inspected = json.loads(self.box.stasis("inspect", "s", "--json").stdout)
        self.assertEqual(len(inspected["system_v"]["segments"]), 2)
        # The segment is still the same one for both.
        self.box.write("go", "")
        wait_for("the server sees what the program writes", lambda: colour() == b"\xf0\x30\x10")

    def output(self, name):
        return (self.box.dir / f"{name}.output").read_text()

    def test_opengl_in_software(self):
        """Mesa's llvmpipe is an ordinary library, so what it draws is saved as everything else is."""
        find_program("glxgears")
        self.launch("s", "glxgears", "-geometry", "150x150+0+0")
        wait_for("it turns", lambda: len(set(self.screen("s")[2])) > 10)
        for _ in range(3):
            self.box.save_and_kill("s")
            self.box.restart("s")
            before = self.screen("s")
            wait_for("it goes on turning", lambda: self.screen("s") != before)


SHM_PROGRAM = """
import ctypes, os, sys, time
x, ext, c = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXext.so.6"), ctypes.CDLL(None)
P, U, L = ctypes.c_void_p, ctypes.c_uint, ctypes.c_ulong

class Segment(ctypes.Structure):
    _fields_ = [("seg", L), ("shmid", ctypes.c_int), ("shmaddr", P), ("readonly", ctypes.c_int)]

class Image(ctypes.Structure):
    _fields_ = [("width", ctypes.c_int), ("height", ctypes.c_int), ("offset", ctypes.c_int),
                ("format", ctypes.c_int), ("data", P)]

x.XOpenDisplay.restype = P
x.XDefaultRootWindow.restype = x.XCreateSimpleWindow.restype = L
x.XDefaultVisual.restype = x.XDefaultGC.restype = P
ext.XShmCreateImage.restype = P
c.shmat.restype = P
d = P(x.XOpenDisplay(None))
if not ext.XShmQueryExtension(d):
    sys.exit("no MIT-SHM")
w = L(x.XCreateSimpleWindow(d, L(x.XDefaultRootWindow(d)), 0, 0, 200, 100, 0, L(0), L(0)))
x.XMapWindow(d, w)
x.XSync(d, 0)
s = Segment()
i = ctypes.cast(ext.XShmCreateImage(d, P(x.XDefaultVisual(d, 0)), 24, 2, None, ctypes.byref(s), 200, 100),
                ctypes.POINTER(Image))
s.shmid = c.shmget(0, 200 * 100 * 4, 0o1600)
s.shmaddr = i.contents.data = c.shmat(s.shmid, None, 0)
ext.XShmAttach(d, ctypes.byref(s))
x.XSync(d, 0)
c.shmctl(s.shmid, 0, None)  # IPC_RMID: gone with the last who has it attached
gc = P(x.XDefaultGC(d, 0))
def draw(rgb):
    ctypes.memmove(s.shmaddr, bytes([rgb & 255, rgb >> 8 & 255, rgb >> 16, 0]) * 20000, 80000)
    ext.XShmPutImage(d, w, gc, i, 0, 0, 0, 0, U(200), U(100), 0)
    x.XSync(d, 0)
for _ in range(10):
    draw(0x2060a0)  # until the window is surely there
    time.sleep(0.02)
while not os.path.exists("go"):
    time.sleep(0.02)
draw(0xf03010)
time.sleep(300)
"""


class AsRoot(DisplayTest):
    def setUp(self):
        if os.getuid() != 0:
            self.skipTest("only root can test this")
        super().setUp()
        self.box.close()
        self.box = Sandbox(user=None)
        self.addCleanup(self.box.close)

    def test_xterm(self):
        Programs.test_xterm(self)

    generations = Programs.generations


class Connecting(DisplayTest):
    def test_while_clients_come_and_go(self):
        """What a client has sent before the server has accepted it cannot be looked at: that passes in a moment."""
        script = self.box.write("connect.py", CONNECTING_PROGRAM)
        self.launch("s", PYTHON, script)
        for _ in range(25):
            self.box.stasis("checkpoint", "s")
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.box.stasis("checkpoint", "s")


CONNECTING_PROGRAM = r"""
import os, socket, struct
cookie = open(os.environ["XAUTHORITY"], "rb").read()[-16:]
os.fork()
while True:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/tmp/.X11-unix/X" + os.environ["DISPLAY"][1:])
        client.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 18, 16) + b"MIT-MAGIC-COOKIE-1\0\0" + cookie)
        client.recv(1)
"""


class Clones(DisplayTest):
    def test_they_do_not_meet(self):
        find_program("xcalc")
        self.launch("a", "xcalc", "-geometry", "+0+0")
        before = self.still_screen("a")
        self.box.stasis("checkpoint", "a")
        for name in "b", "c":
            self.box.restart("a", "--name", name)
        self.assertEqual({self.screen(name) == before for name in "abc"}, {True})
        self.assertEqual(len({self.display(name)["number"] for name in "abc"}), 1)
        self.assertEqual(len({self.display(name)["socket"] for name in "abc"}), 3)
        # A key is for one of them.
        self.keys("b", "mousemove", "60", "60", "key", "7")
        wait_for("b listens", lambda: self.screen("b") != before)
        self.assertEqual(len({str(self.screen(name)) for name in "ac"}), 1)
        # Nor do their checkpoints and their ends concern the others.
        self.box.save_and_kill("b")
        self.box.stasis("signal", "c", "TERM")
        self.box.assert_gone("c")
        self.keys("a", "mousemove", "60", "60", "key", "8")
        wait_for("a listens", lambda: self.screen("a")[2] != before[2])
        self.box.restart("b")
        self.assertNotEqual(self.screen("b"), before)

    def test_new_clients_after_a_restart(self):
        """A program of the session connects anew, with the environment that it has had from the start."""
        find_program("xdotool")
        self.launch("a", "sh", "-c", "while :; do if test -e look; then rm look; "
                    "xdotool getdisplaygeometry > seen.new 2>&1; mv seen.new seen; fi; sleep 0.02; done")
        seen = self.box.dir / "seen"

        def look():
            self.box.write("look", "")
            wait_for("it has looked", seen.exists)
            text = seen.read_text()
            seen.unlink()
            return text
        self.assertEqual(look(), "400 300\n")
        for _ in range(2):
            self.box.save_and_kill("a")
            self.box.restart("a")
            self.assertEqual(look(), "400 300\n")
        self.box.save_and_kill("a")
        self.box.restart("a", "--name", "b")
        self.assertEqual(look(), "400 300\n")


class Life(DisplayTest):
    def outcome(self, *args, path=None):
        set_path = ["env", f"PATH={path}"] if path else []
        process = subprocess.Popen(self.box.line([*set_path, self.box.binary, "launch", *args]), env=self.box.env,
                                   cwd=self.box.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def test_exit_status_is_the_program_s(self):
        self.assertEqual(self.outcome("--display", "--name", "s", "sh", "-c", "echo $DISPLAY | tr -d 0-9; exit 7"),
                         (7, ":\n", ""))
        self.box.assert_gone("s")
        code, _, err = self.outcome("--display", "--name", "t", "--", "/no/such/program")
        self.assertEqual((code, err), (127, "stasis: run /no/such/program: No such file or directory\n"))
        self.assertIsNone(self.box.session("t"))
        self.assertFalse((self.box.home / "sessions" / "t").exists())

    def test_many_starts(self):
        """The program is not started before the server can be used."""
        find_program("xdotool")
        for _ in range(25):
            self.assertEqual(self.outcome("--display", "--", "xdotool", "getdisplaygeometry"), (0, "1280 1024\n", ""))

    def test_the_server_stays_while_anybody_needs_it(self):
        self.launch("s", "sh", "-c", "(while ! test -e go; do sleep 0.01; done) & exit 3")
        wait_for("the program has ended", lambda: (self.box.home / "sessions/s/exit").exists())
        self.assertIn("Xvfb", self.processes("s"))
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.assertIn("Xvfb", self.processes("s"))
        self.box.write("go", "")
        wait_for("the server ends with the last one", lambda: not self.processes("s"))
        self.assertIsNone(self.box.session("s"))

    def test_exit_status_after_a_restart(self):
        self.launch("s", "sh", "-c", "while ! test -e go; do sleep 0.01; done; exit 21")
        self.box.save_and_kill("s")
        process = subprocess.Popen(self.box.line([self.box.binary, "restart", "s"]), env=self.box.env,
                                   cwd=self.box.dir, stdin=subprocess.DEVNULL)
        wait_for("it runs", lambda: self.box.session("s"))
        self.box.write("go", "")
        self.assertEqual(process.wait(30), 21)
        wait_for("the server ends", lambda: self.box.session("s") is None)

    def test_server_that_was_killed(self):
        self.launch("s", "sh", "-c", "trap '' HUP; while ! test -e go; do sleep 0.01; done")
        server = next(p for p in self.box.session("s")["processes"] if p["comm"] == "Xvfb")
        os.kill(server["host_pid"], 9)
        wait_for("it has ended", lambda: "Xvfb" not in self.processes("s"))
        said = self.box.stasis("checkpoint", "s").stderr
        self.assertIn("no picture of the screen", said)
        self.assertNotIn("picture", self.checkpoints("s")[0])
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.box.write("go", "")
        wait_for("it ends", lambda: self.box.session("s") is None)

    def test_no_server(self):
        code, _, err = self.outcome("--display", "--name", "s", "--", "/bin/touch", "ran", path="/nowhere")
        self.assertEqual((code, err), (5, "stasis: start the X server: Xvfb: it is not installed; apt-get install "
                                          "xvfb\n"))
        self.assertFalse((self.box.dir / "ran").exists())
        check = json.loads(self.box.run("env", "PATH=/nowhere", self.box.binary, "check", "--json").stdout)
        found = next(c for c in check["checks"] if c["name"] == "display")
        self.assertEqual((found["state"], found["essential"]), ("missing", False))
        self.assertIn("apt-get install xvfb", found["remedy"])

    def other_server(self, script):
        directory = self.box.dir / "bin"
        directory.mkdir()
        (directory / "Xvfb").write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(directory / "Xvfb", 0o755)
        self.box.env["PATH"] = f"{directory}:{self.box.env['PATH']}"

    def test_server_that_is_slow_to_say_it(self):
        """It writes its number and the end of the line one after the other, and ends when it cannot."""
        late = self.box.dir / "late"
        self.other_server(f"printf 12 >&3; sleep 0.3; touch {late}; echo >&3; sleep 300")
        self.assertEqual(self.outcome("--display", "--", "test", "-e", late)[0], 0)

    def test_server_that_does_not_start(self):
        self.other_server("echo 'no fonts at all' >&2; exit 1")
        code, _, err = self.outcome("--display", "--name", "s", "--", "touch", "ran")
        self.assertEqual(code, 5)
        self.assertRegex(err, "start the X server: Xvfb: it has ended: no fonts at all")
        self.assertFalse((self.box.dir / "ran").exists())
        self.assertFalse((self.box.home / "sessions" / "s").exists())
        self.assertIsNone(self.box.session("s"))

    def test_usage(self):
        for size in "0x0", "800", "800x600x24", "x", "99999x10":
            code, _, err = self.outcome(f"--display={size}", "--", "true")
            self.assertEqual(code, 2, err)
            self.assertIn("WIDTHxHEIGHT", err)

    def test_check(self):
        check = json.loads(self.box.stasis("check", "--json").stdout)
        self.assertEqual(next(c for c in check["checks"] if c["name"] == "display")["state"], "ok")


class Surroundings(DisplayTest):
    def connect(self, path, cookie):
        """The answer of the X protocol: 1 is welcome, 0 is refused."""
        name = b"MIT-MAGIC-COOKIE-1" if cookie else b""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie)) +
                           name + bytes(-len(name) % 4) + cookie + bytes(-len(cookie) % 4))
            return client.recv(1)[0]

    def test_from_outside(self):
        """Somebody outside of the session, who knows the cookie, finds the server by a path of the host."""
        self.launch("s", "sleep", "300")
        for _ in range(2):
            display = self.display("s")
            cookie = Path(display["authority"]).read_bytes()[-16:]
            self.assertEqual(self.connect(display["socket"], cookie), 1)
            self.assertEqual(self.connect(display["socket"], cookie[::-1]), 0)
            self.assertEqual(self.connect(display["socket"], b""), 0)
            self.box.save_and_kill("s")
            self.box.restart("s")
        self.assertEqual(Path(display["authority"]).stat().st_mode & 0o777, 0o600)

    def test_nothing_of_it_is_seen_on_the_host(self):
        def litter():
            return sorted(p for p in os.listdir("/tmp") if p.startswith(".X")), sorted(os.listdir("/tmp/.X11-unix"))
        Path("/tmp/.X11-unix").mkdir(mode=0o1777, exist_ok=True)
        before = litter()
        self.launch("s", "sleep", "300")
        self.assertEqual(litter(), before)
        number = self.display("s")["number"]
        # The abstract name would be the network namespace's, where clones would meet.
        self.assertNotIn(f"@/tmp/.X11-unix/X{number}", Path("/proc/net/unix").read_text())
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.box.stasis("signal", "s", "TERM")
        self.box.assert_gone("s")
        self.assertEqual(litter(), before)

    def test_environment(self):
        self.box.env.update(WAYLAND_DISPLAY="wayland-0", DISPLAY=":77", XAUTHORITY="/nowhere")
        self.launch("s", "sh", "-c", "env > environment; sleep 300")
        path = self.box.dir / "environment"
        wait_for("it has told", lambda: path.exists() and "DISPLAY" in path.read_text())
        told = dict(line.split("=", 1) for line in path.read_text().splitlines())
        self.assertEqual(told["DISPLAY"], f":{self.display('s')['number']}")
        self.assertEqual(told["XAUTHORITY"], "/tmp/.X11-unix/authority")
        self.assertNotIn("WAYLAND_DISPLAY", told)

    def test_viewer_from_outside_is_cut_off(self):
        """Whoever looks in from outside is no reason to refuse, and does not come back with the session."""
        self.launch("s", "sleep", "300")
        display = self.display("s")
        cookie = Path(display["authority"]).read_bytes()[-16:]
        with socket.socket(socket.AF_UNIX) as viewer:
            viewer.connect(display["socket"])
            viewer.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 18, 16) + b"MIT-MAGIC-COOKIE-1\0\0" + cookie)
            self.assertEqual(viewer.recv(1), b"\1")
            self.box.stasis("checkpoint", "s")
            self.box.save_and_kill("s")
        self.box.restart("s")
        self.assertEqual(self.connect(self.display("s")["socket"], cookie), 1)


class Viewer:
    """As much of RFB as it takes to look at a screen."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        assert self.receive(12) == b"RFB 003.008\n"
        self.socket.sendall(b"RFB 003.008\n")
        assert 1 in self.receive(self.receive(1)[0])  # no password: the directory is the user's alone
        self.socket.sendall(b"\1")
        assert self.receive(4) == bytes(4)
        self.socket.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.receive(4))
        self.receive(16)
        self.receive(struct.unpack(">I", self.receive(4))[0])

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def screen(self):
        """The same as decode_xwd() gives."""
        self.socket.sendall(struct.pack(">BBHi", 2, 0, 1, 0))  # plain pixels
        self.socket.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        rows = [bytearray(self.width * 3) for _ in range(self.height)]
        kind, _, count = struct.unpack(">BBH", self.receive(4))
        assert kind == 0, kind
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.receive(12))
            assert encoding == 0, encoding
            for row in range(y, y + height):
                data = self.receive(width * 4)
                for colour in range(3):
                    rows[row][x * 3 + colour:(x + width) * 3:3] = data[2 - colour::4]
        return self.width, self.height, [bytes(row) for row in rows]

    def close(self):
        self.socket.close()


class Vnc(DisplayTest):
    def setUp(self):
        find_program("Xtigervnc")
        super().setUp()

    def view(self, name):
        viewer = Viewer(self.display(name)["vnc"])
        try:
            return viewer.screen()
        finally:
            viewer.close()

    def test_viewers_come_and_go(self):
        find_program("xcalc")
        said = self.launch("s", "xcalc", "-geometry", "+0+0", display="vnc:400x300")
        # The program may miss fonts, and say so.
        ours = [line for line in said.splitlines() if line.startswith("stasis: ")]
        self.assertEqual(ours, [f"stasis: to look at s: vncviewer {self.display('s')['vnc']}"])
        wait_for("it has drawn", lambda: len(set(self.view("s")[2])) > 20)
        time.sleep(0.3)
        before = self.view("s")
        self.assertEqual(before[:2], SIZE)
        viewer = Viewer(self.display("s")["vnc"])
        for _ in range(3):
            self.box.save_and_kill("s")
            self.box.restart("s")
            self.assertEqual(self.view("s"), before)
        with self.assertRaises((EOFError, ConnectionError)):
            viewer.screen()
        viewer.close()
        # Clones have viewers of their own.
        self.box.stasis("checkpoint", "s")
        self.box.restart("s", "--name", "t")
        self.keys("t", "mousemove", "60", "60", "key", "7")
        wait_for("it listens", lambda: self.view("t") != before)
        self.assertEqual(self.view("s"), before)
        self.box.stasis("signal", "t", "TERM")
        wait_for("the server ends with the program", lambda: self.box.session("t") is None)


class Page(html.parser.HTMLParser):
    """What a browser would see: the articles with their texts and pictures, and whatever leads out of the page."""

    def __init__(self, text):
        super().__init__()
        self.articles, self.foreign, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "article":
            self.articles.append({"id": attributes["id"], "text": "", "pictures": []})
        if tag == "img":
            kind, data = attributes["src"].split(",", 1)
            self.foreign += [] if kind == "data:image/png;base64" else [attributes["src"]]
            self.articles[-1]["pictures"].append(base64.b64decode(data, validate=True))
        if tag in ("script", "link", "iframe") or "href" in attributes:
            self.foreign.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.articles:
            self.articles[-1]["text"] += data


class Pictures(DisplayTest):
    def saved(self):
        """Three checkpoints of a program that stands still, the second one with a tag."""
        find_program("xcalc")
        self.launch("s", "xcalc", "-geometry", "+0+0")
        shown = self.still_screen("s")
        for tag in [], ["--tag", "a <b> & \"c\""], []:
            self.box.stasis("checkpoint", "s", *tag)
        return shown

    def test_are_in_every_checkpoint(self):
        shown = self.saved()
        for entry in self.checkpoints("s"):
            self.assertEqual(entry["picture"], entry["directory"] + "/screen.png")
            self.assert_shows(decode_png(Path(entry["picture"]).read_bytes()), shown)
            inspected = json.loads(self.box.stasis("inspect", entry["directory"], "--json").stdout)
            self.assertEqual(inspected["display"]["picture"], entry["picture"])
            self.assertEqual((inspected["display"]["width"], inspected["display"]["height"]), SIZE)
            self.assertIn("screen.png", [file["name"] for file in inspected["files"]])
        # Also of increments that have been merged.
        self.box.stasis("rm", "s@1")
        self.box.stasis("prune", "s")
        self.assert_shows(self.picture("s"), shown)
        self.box.stasis("verify", "s")

    def test_are_verified(self):
        self.saved()
        self.box.stasis("verify", "s@1", "s@2", "s@3")
        picture = Path(self.checkpoints("s")[1]["picture"])
        data = bytearray(picture.read_bytes())
        data[len(data) // 2] ^= 1
        picture.write_bytes(data)
        done = self.box.stasis("verify", "s@2", check=False)
        self.assertEqual(done.returncode, 7)
        self.assertIn("screen.png", done.stderr)
        picture.unlink()
        self.assertEqual(self.box.stasis("restart", "s@2", "--background", "--name", "t", check=False).returncode, 7)

    def page(self):
        path = self.box.dir / "page.html"
        self.box.stasis("list", "s", "--html", path)
        return path

    def test_page(self):
        self.saved()
        path = self.page()
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        page = Page(path.read_text())
        entries = self.checkpoints("s")
        self.assertEqual(page.foreign, [])
        self.assertEqual([article["id"] for article in page.articles], ["s@1", "s@2", "s@3"])
        for article, entry in zip(page.articles, entries):
            self.assertEqual(article["pictures"], [Path(entry["picture"]).read_bytes()])
            self.assertIn(entry["created"], article["text"])
            self.assertRegex(article["text"], r"\d [KMG]iB")
        self.assertIn("a <b> & \"c\"", page.articles[1]["text"])
        self.assertEqual(self.box.stasis("list", "s", "--html", "-").stdout, path.read_text())

    def test_page_without_pictures(self):
        self.box.launch("s", "sleep", "300")
        self.box.stasis("checkpoint", "s")
        self.assertNotIn("picture", self.checkpoints("s")[0])
        article, = Page(self.page().read_text()).articles
        self.assertEqual(article["pictures"], [])
        self.assertIn("no display", article["text"])

    def test_page_in_a_browser(self):
        browser = find_program("chromium", "chromium-browser", "google-chrome")
        self.saved()
        shot = self.box.dir / "page.png"
        self.box.run(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.box.dir}/profile",
                     f"--screenshot={shot}", "--window-size=1200,800", self.page().as_uri(), timeout=60)
        dom = self.box.run(browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                           f"--user-data-dir={self.box.dir}/profile", self.page().as_uri(), timeout=60).stdout
        self.assertEqual(len(Page(re.sub(r"^<!DOCTYPE[^>]*>", "", dom)).articles), 3)
        self.assertGreater(shot.stat().st_size, 5000)


if __name__ == "__main__":
    unittest.main()
