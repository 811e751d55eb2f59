#!/usr/bin/python3
"""`stasis launch --display`: real X programs on a private X server that is saved and restarted with them."""
import json
import os
import socket
import struct
import subprocess
import time
import unittest
from pathlib import Path

from display_harness import DisplayTest, PYTHON
from harness import Sandbox, find_program, wait_for


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


if __name__ == "__main__":
    unittest.main()
