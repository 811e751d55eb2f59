#!/usr/bin/python3
"""OpenGL: a program is recorded, its renderer is killed or exchanged for another driver, and the pictures are those that
an undisturbed program draws on that driver - to the bit."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from harness import ProgramTest, wait_for

BUILD = pathlib.Path(os.environ["STASIS_BUILD"])
SCENE = BUILD / "tests" / "gl_scene"
SOFTPIPE = {"GALLIUM_DRIVER": "softpipe"}


def children_of(pid, name):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            status = pathlib.Path("/proc", entry, "status").read_text()
            words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(re.search(r"PPid:\t(\d+)", status)[1]) == pid and words[0].endswith(name.encode()) and "State:\tZ" not in status:
            found.append(int(entry))
    return found


class Display:
    """An X server that chooses its number by itself."""

    def __init__(self):
        read, write = os.pipe()
        self.process = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp", "-noreset"],
                                        pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as pipe:
            self.name = ":" + pipe.readline().strip()

    def close(self):
        self.process.terminate()
        self.process.wait()


@unittest.skipUnless(shutil.which("Xvfb"), "Xvfb is missing (scripts/setup --tests)")
class Recorded(unittest.TestCase):
    """A program whose server, renderer and keeper are ours: no session is needed to exchange them."""

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="stasis-gl-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.display = Display()
        self.addCleanup(self.display.close)
        self.socket = self.directory / "socket"
        self.server = subprocess.Popen([BUILD / "gl/stasis-gl-server", self.socket], stdout=subprocess.PIPE, text=True,
                                       env={**os.environ, "DISPLAY": self.display.name})
        self.addCleanup(self.end_server)
        self.assertEqual(self.server.stdout.readline(), "ready\n")

    def end_server(self):
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()

    def start(self, *words, recorded=True, **environment):
        env = {**os.environ, "DISPLAY": self.display.name, **environment}
        if recorded:
            env |= {"STASIS_GL_SOCKET": str(self.socket), "__GLX_VENDOR_LIBRARY_NAME": "stasis",
                    "__EGL_VENDOR_LIBRARY_FILENAMES": str(BUILD / "gl/stasis_egl.json"), "LD_LIBRARY_PATH": str(BUILD / "gl")}
        program = subprocess.Popen(list(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.addCleanup(self.end, program)
        return program

    @staticmethod
    def end(program):
        program.kill()
        program.wait()
        program.stdin.close()
        program.stdout.close()

    def ask(self, request):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(self.socket))
            connection.send(request.encode() + b"\0")
            return connection.recv(65536).decode().rstrip("\0")

    def status(self):
        """How many calls were recorded and are kept, and how large they are."""
        said = re.search(r"recorded=(\d+) kept=(\d+) bytes=(\d+)", self.ask("status"))
        return tuple(map(int, said.groups())) if said else (0, 0, 0)

    def part(self, name):
        found = children_of(self.server.pid, "stasis-gl-" + name)
        return found[0] if found else None

    def renderer(self):
        return self.part("renderer")

    def kill_part(self, name, by=signal.SIGKILL):
        old = self.part(name)
        os.kill(old, by)
        wait_for(f"a new {name}", lambda: self.part(name) not in (None, old), 20)

    def kill_renderer(self, by=signal.SIGKILL):
        self.kill_part("renderer", by)

    def move(self, request):
        old = self.renderer()
        self.assertEqual(self.ask(request), "ok")
        wait_for("a new renderer", lambda: self.renderer() not in (None, old), 20)

    def answers_of(self, program, script):
        """A line for each command that is for the program; "kill", "keeper" and "move" are for us."""
        answers = []
        for word in script:
            if word == "kill":
                self.kill_renderer()
            elif word == "keeper":
                self.kill_part("keeper")
            elif word.startswith("move "):
                self.move(word)
            else:
                program.stdin.write(word + "\n")
                program.stdin.flush()
                answers.append(program.stdout.readline().strip())
                self.assertTrue(answers[-1], f"after {word} the program has ended")
        self.end(program)
        return answers


class OpenGl(Recorded):
    scene = SCENE

    def pictures(self, mode, script, recorded=True, **environment):
        """Hashes of the pictures after each command for the program."""
        program = self.start(self.scene, mode, recorded=recorded, **environment)
        self.assertIn("ready", program.stdout.readline())
        hashes = self.answers_of(program, script)
        for one in hashes:
            self.assertRegex(one, "^[0-9a-f]{16}$")
        return hashes

    def check_pictures(self, mode):
        script = ["draw", "kill", "draw", "draw", "kill", "extra", "draw", "kill", "draw"]
        native = self.pictures(mode, [word for word in script if word != "kill"], recorded=False)
        self.assertEqual(self.pictures(mode, [word for word in script if word != "kill"]), native)
        self.assertEqual(self.pictures(mode, script), native)

    def check_move(self, mode):
        native = self.pictures(mode, ["draw", "draw", "extra", "draw"], recorded=False, **SOFTPIPE)
        self.assertNotEqual(native, self.pictures(mode, ["draw", "draw", "extra", "draw"], recorded=False))
        moved = self.pictures(mode, ["draw", "move GALLIUM_DRIVER=softpipe", "draw", "extra", "draw"])
        self.assertEqual(moved[1:], native[1:])

    def test_fixed_function_after_the_death_of_the_renderer(self):
        self.check_pictures("fixed")

    def test_core_profile_after_the_death_of_the_renderer(self):
        self.check_pictures("core")

    def test_a_driver_that_crashes_for_ever_ends_the_program(self):
        program = self.start(SCENE, "fixed")
        self.assertIn("ready", program.stdout.readline())

        def draw():
            program.stdin.write("draw\n")
            program.stdin.flush()
            self.assertRegex(program.stdout.readline().strip(), "^[0-9a-f]{16}$")
        for _ in range(4):  # not at the same calls
            draw()
            self.kill_renderer(signal.SIGSEGV)
        draw()
        for _ in range(6):
            if program.poll() is None and self.renderer() is not None:
                os.kill(self.renderer(), signal.SIGSEGV)
                time.sleep(3)  # it has replayed the log by now
        self.assertEqual(program.wait(20), -signal.SIGSEGV)

    def test_fixed_function_on_another_driver(self):
        self.check_move("fixed")

    def test_log_outlives_its_keeper(self):
        for mode in ("fixed", "core"):
            script = ["draw", "swap", "keeper", "kill", "draw", "keeper", "keeper", "extra", "swap", "keeper", "draw", "kill", "draw"]
            native = self.pictures(mode, [word for word in script if word not in ("kill", "keeper")], recorded=False)
            self.assertEqual(self.pictures(mode, script), native)

    def test_the_next_keeper_knows_what_only_the_driver_knows(self):
        script = ["draw", "swap", "keeper", "begin", "move", "more", "keeper", "draw", "keeper", "move", "swap", "draw"]
        native = self.pictures("driver", [word for word in script if word not in ("move", "keeper")], recorded=False)
        moved = self.pictures("driver", [word.replace("move", "move LIBGL_ALWAYS_SOFTWARE=1") for word in script])
        self.assertEqual(moved, native)

    def test_keeper_may_be_killed_at_any_moment(self):
        gears = self.start("glxgears")

        wait_for("some frames", lambda: self.status()[0] > 2000, 20)
        before = self.status()[1:]
        for _ in range(40):
            time.sleep(random.random() / 20)
            self.kill_part("keeper")
        recorded = self.status()[0]
        self.kill_renderer()
        wait_for("more frames", lambda: self.status()[0] > recorded + 2000, 30)
        # What a replay says beside what it was made of is kept, too, but only once.
        self.assertAlmostEqual(self.status()[1], before[0], delta=4)
        self.assertIsNone(gears.poll())
        self.end(gears)

    def test_what_only_the_driver_knows_goes_along(self):
        script = ["draw", "swap", "begin", "move", "more", "draw", "move", "swap", "draw"]
        native = self.pictures("driver", [word for word in script if word != "move"], recorded=False)
        self.assertEqual(len(set(native)), len(native) - 2)  # the images change with each frame
        moved = self.pictures("driver", [word.replace("move", "move LIBGL_ALWAYS_SOFTWARE=1") for word in script])
        self.assertEqual(moved, native)

    def test_core_profile_on_another_driver(self):
        self.check_move("core")

    def test_log_does_not_grow_with_time(self):
        """glxgears draws thousands of frames; what is kept of them is what its first one needed."""
        gears = self.start("glxgears")

        wait_for("some frames", lambda: self.status()[0] > 2000, 20)
        recorded, kept, size = self.status()
        wait_for("ten times as many calls", lambda: self.status()[0] > 10 * recorded, 60)
        self.assertEqual(self.status()[1:], (kept, size))
        self.assertLess(size, 1 << 20)
        self.end(gears)

    def test_log_of_a_matrix_that_is_never_loaded_does_not_grow(self):
        """300,000 multiplications of two matrices, some of them by a list; the pictures are the native ones, also of new renderers."""
        native = self.pictures("turning", ["draw"] * 102, recorded=False)
        self.assertEqual(len(set(native)), len(native))
        program = self.start(SCENE, "turning")
        self.assertIn("ready", program.stdout.readline())
        seen, sizes = [], []
        for number in range(len(native)):
            if number in (40, 100, 101):
                self.kill_renderer()
            program.stdin.write("draw\n")
            program.stdin.flush()
            seen.append(program.stdout.readline().strip())
            sizes.append(self.status()[1:])
        self.assertEqual(seen, native)
        self.assertLess(max(kept for kept, _ in sizes), 40_000, sizes)
        self.assertLess(max(size for _, size in sizes), 1 << 20, sizes)
        self.end(program)

    def test_what_is_not_recorded_is_not_there(self):
        said = subprocess.run(["glxinfo"], capture_output=True, text=True, timeout=60, env={
            **os.environ, "DISPLAY": self.display.name, "STASIS_GL_SOCKET": str(self.socket),
            "__GLX_VENDOR_LIBRARY_NAME": "stasis", "LD_LIBRARY_PATH": str(BUILD / "gl")}).stdout
        self.assertIn("OpenGL version string: 3.3 (Compatibility Profile)", said)
        self.assertIn("OpenGL core profile version string: 3.3 (Core Profile)", said)
        self.assertIn("GL_ARB_vertex_buffer_object", said)
        self.assertNotIn("GL_ARB_compute_shader", said)
        self.assertNotIn("GL_ARB_buffer_storage", said)

    def test_library_needs_nothing_but_libc_and_xlib(self):
        said = subprocess.run(["readelf", "-d", BUILD / "gl/libGLX_stasis.so.0"], capture_output=True, text=True).stdout
        self.assertEqual(set(re.findall(r"NEEDED.*\[(.*)\]", said)), {"libc.so.6", "libX11.so.6"})


class Scene:
    """gl_scene in a session, which is told what to draw by files."""

    def __init__(self, test, mode, program=SCENE, display="--display=640x480", more=()):
        self.box = test.box
        self.display = [display] if display else []
        self.files = self.box.dir / "commands"
        self.files.mkdir()
        os.chmod(self.files, 0o777)
        binary = self.box.dir / program.name
        shutil.copy2(program, binary)
        os.chmod(binary, 0o755)
        self.words = [binary, mode, *more, self.files]
        self.number = 0

    def launch(self, name, *options):
        said = self.box.dir / f"{name}.said"
        said.touch()
        os.chmod(said, 0o666)
        with open(said, "ab") as stream:
            done = subprocess.run(
                self.box.line([self.box.binary, "launch", *self.display, "--files=none", "--name", name,
                               "--background", *options, "--", *self.words]), env=self.box.env, cwd=self.box.dir,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stream, timeout=60)
        assert done.returncode == 0, said.read_text()

    def draw(self, word="draw"):
        return self.answer(word).split()[0]

    def answer(self, word):
        self.number += 1
        part = self.files / "part"
        part.write_text(word)
        part.chmod(0o644)
        part.rename(self.files / f"{self.number}.command")
        answer = self.files / f"{self.number}.answer"
        wait_for(f"the picture after command {self.number}", answer.exists, 30)
        return answer.read_text().rstrip("\n")


def native_pictures(mode, script, scene=SCENE, more=(), **environment):
    display = Display()
    try:
        program = subprocess.run([scene, mode, *map(str, more)], input="\n".join(script) + "\n", capture_output=True, text=True, timeout=60,
                                 env={**os.environ, "DISPLAY": display.name, **environment})
        assert program.returncode == 0, program.stderr
        return program.stdout.split("\n")[1:-1]
    finally:
        display.close()


@unittest.skipUnless(shutil.which("Xvfb"), "Xvfb is missing (scripts/setup --tests)")
class Sessions(ProgramTest):
    def generations(self, mode, before=("draw",)):
        native = native_pictures(mode, [*before, "draw", "draw", "extra", "draw"])
        scene = Scene(self, mode)
        scene.launch("scene", "--gl=on")
        seen = [scene.draw(word) for word in before]
        for word in ("draw", "draw", "extra"):
            self.box.save_and_kill("scene")
            self.box.restart("scene")
            seen.append(scene.draw(word))
        self.box.stasis("checkpoint", "scene")
        seen.append(scene.draw())
        self.assertEqual(seen, native)
        self.box.stasis("verify", "scene")

    def test_fixed_function_for_three_generations(self):
        self.generations("fixed")

    def test_core_profile_for_three_generations(self):
        self.generations("core")

    def test_a_matrix_that_is_never_loaded_for_three_generations(self):
        self.generations("turning", ["draw"] * 9)

    def test_what_only_the_driver_knows_for_three_generations(self):
        script = ["draw", "swap", "begin", "more", "draw", "swap", "draw"]
        native = native_pictures("driver", script)
        scene = Scene(self, "driver")
        scene.launch("scene", "--gl=on")
        seen = [scene.draw(script[0])]
        for number, word in enumerate(script[1:]):
            if number % 2 == 1:
                self.box.save_and_kill("scene")
                self.box.restart("scene")
            else:
                self.box.stasis("checkpoint", "scene")
            seen.append(scene.draw(word))
        self.assertEqual(seen, native)

    def test_another_driver(self):
        native = native_pictures("fixed", ["draw", "draw", "draw"], **SOFTPIPE)
        scene = Scene(self, "fixed")
        scene.launch("scene", "--gl=on")
        self.assertNotEqual(scene.draw(), native[0])
        self.box.save_and_kill("scene")
        self.box.restart("scene", "--gl-driver=softpipe")
        self.assertEqual([scene.draw(), scene.draw()], native[1:])

    def test_a_running_program_moves_to_another_driver(self):
        native = native_pictures("fixed", ["draw", "draw", "draw"], **SOFTPIPE)
        scene = Scene(self, "fixed")
        scene.launch("scene", "--gl=on")
        scene.draw()
        self.box.stasis("gl", "move", "scene", "--driver", "softpipe")
        self.assertEqual(scene.draw(), native[1])
        (program,) = json.loads(self.box.stasis("gl", "status", "scene", "--json").stdout)
        self.assertGreater(program["recorded"], 0)
        refused = self.box.stasis("gl", "move", "scene", "--driver", "nonsense", check=False)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("default, llvmpipe, softpipe, zink, virpipe", refused.stderr)
        self.assertEqual(scene.draw(), native[2])

    def test_a_move_to_a_driver_that_does_not_start_is_taken_back(self):
        native = native_pictures("fixed", ["draw", "draw"])
        scene = Scene(self, "fixed")
        scene.launch("scene", "--gl=on")
        self.assertEqual(scene.draw(), native[0])
        self.box.stasis("gl", "move", "scene", "--driver", "LIBGL_DRIVERS_PATH=/nowhere")
        self.assertEqual(scene.draw(), native[1])

    def test_a_driver_that_does_not_start_leaves_the_checkpoint(self):
        native = native_pictures("fixed", ["draw", "draw"])
        scene = Scene(self, "fixed")
        scene.launch("scene", "--gl=on")
        scene.draw()
        self.box.save_and_kill("scene")
        refused = self.box.stasis("restart", "scene", "--background", "--gl-driver=LIBGL_DRIVERS_PATH=/nowhere", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("--gl-driver", refused.stderr)
        self.box.assert_gone("scene")
        self.box.restart("scene")
        self.assertEqual(scene.draw(), native[1])

    def test_copies_side_by_side(self):
        native = native_pictures("fixed", ["draw", "draw", "draw"])
        scene = Scene(self, "fixed")
        scene.launch("scene", "--gl=on")
        scene.draw()
        self.box.save_and_kill("scene")
        for name in ("one", "two"):
            self.box.restart("scene", "--name", name)
        self.assertEqual(scene.draw(), native[1])  # whoever was first
        wait_for("both", lambda: len([p for n in ("one", "two") for p in self.box.session(n)["processes"]]) >= 4, 10)
        self.box.stasis("signal", "one", "KILL", "--all")
        self.assertEqual(scene.draw(), native[2])

    def test_end_of_the_session_ends_all_of_it(self):
        scene = Scene(self, "fixed")
        scene.launch("scene", "--gl=on")
        scene.draw()
        server = str(self.box.home / "sessions/scene/display/stasis-gl")

        def parts():
            found = []
            for entry in os.listdir("/proc"):
                try:
                    words = pathlib.Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if entry.isdigit() and server in words:
                    found.append(entry)
            return found

        self.assertEqual(len(parts()), 1)
        self.box.stasis("signal", "scene", "KILL", "--all")
        wait_for("the server has ended", lambda: not parts(), 10)


class Check(ProgramTest):
    """What `stasis check` says of OpenGL."""

    def findings(self, binary=None, **environment):
        self.box.env.update(environment)
        begun = time.monotonic()
        found = json.loads(self.box.run(binary or self.box.binary, "check", "--json").stdout)
        self.assertLess(time.monotonic() - begun, 10)  # where much else runs, too
        self.assertTrue(found["usable"], found)  # OpenGL is not essential
        return {one["name"].removeprefix("OpenGL: "): one for one in found["checks"] if one["name"].startswith("OpenGL")}

    def installed(self, renderer=None):
        """A command of its own, with these parts."""
        place = self.box.dir / "installed"
        (place / "gl").mkdir(parents=True)
        shutil.copy2(self.box.binary, place / "stasis")
        if renderer is not None:
            for part in ("stasis-gl-server", "stasis-gl-keeper", "libGLX_stasis.so.0", "libEGL_stasis.so.0", "stasis_egl.json"):
                (place / "gl" / part).touch()
            (place / "gl/stasis-gl-renderer").write_text(renderer)
            (place / "gl/stasis-gl-renderer").chmod(0o755)
        return place / "stasis"

    @unittest.skipUnless(pathlib.Path("/usr/lib/x86_64-linux-gnu/dri/swrast_dri.so").exists(), "Mesa is missing (scripts/setup --tests)")
    def test_drivers_are_started(self):
        found = self.findings()
        self.assertEqual(set(found), {"OpenGL", "GLVND", "default", "llvmpipe", "softpipe", "zink", "virpipe"})
        for name in ("OpenGL", "GLVND", "default", "llvmpipe", "softpipe"):
            self.assertEqual(found[name]["state"], "ok", found)
        for name in ("llvmpipe", "softpipe"):
            self.assertTrue(found[name]["reason"].startswith(name), found)

    def test_without_drivers(self):
        found = self.findings(LIBGL_DRIVERS_PATH="/nowhere")
        self.assertEqual(found["GLVND"]["state"], "ok")
        for name in ("default", "llvmpipe", "softpipe", "zink", "virpipe"):
            self.assertEqual(found[name]["state"], "missing")
            self.assertTrue(found[name]["reason"] and found[name]["remedy"], found)

    def test_without_parts(self):
        found = self.findings(self.installed())
        self.assertEqual(list(found), ["OpenGL"])
        self.assertEqual(found["OpenGL"]["state"], "missing")
        self.assertIn("stasis-gl-renderer", found["OpenGL"]["reason"])

    def test_without_glvnd(self):
        found = self.findings(self.installed("#!/bin/sh\necho 'error while loading shared libraries: libOpenGL.so.0' >&2\nexit 127\n"))
        self.assertEqual(set(found), {"OpenGL", "GLVND"})
        self.assertEqual(found["GLVND"]["state"], "missing")
        self.assertIn("libOpenGL.so.0", found["GLVND"]["reason"])

    def test_a_driver_that_hangs_or_crashes(self):
        found = self.findings(self.installed(
            "#!/bin/sh\ncase $GALLIUM_DRIVER in llvmpipe) exec sleep 1000;; softpipe) kill -SEGV $$;; *) echo other, OpenGL 9;; esac\n"))
        self.assertIn("it has not started", found["llvmpipe"]["reason"])
        self.assertIn("signal 11", found["softpipe"]["reason"])
        self.assertEqual(found["zink"]["reason"], "there is other, OpenGL 9 in its place")
        self.assertEqual(found["default"]["state"], "ok")
        for name in ("llvmpipe", "softpipe", "zink"):
            self.assertEqual(found[name]["state"], "missing")



# Asks the driver all the time, and says how often.
ASKING = """
import ctypes
x, gl = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libGL.so.1")
x.XOpenDisplay.restype = gl.glXChooseVisual.restype = ctypes.c_void_p
display = ctypes.c_void_p(x.XOpenDisplay(None))
visual = ctypes.c_void_p(gl.glXChooseVisual(display, 0, (ctypes.c_int * 3)(4, 5, 0)))
value, count = ctypes.c_int(), 0
gl.glXChooseFBConfig.restype = ctypes.c_void_p
while True:
    gl.glXGetConfig(display, visual, 8, ctypes.byref(value))
    assert value.value >= 8, value.value
    for _ in range(20):  # for these the driver takes its time
        assert gl.glXChooseFBConfig(display, 0, (ctypes.c_int * 1)(0), ctypes.byref(value)) and value.value > 0
    count += 1
    print(count, flush=True)
"""


@unittest.skipUnless(shutil.which("Xvfb"), "Xvfb is missing (scripts/setup --tests)")
class Questions(ProgramTest):
    """A program that waits for an answer nearly always: whatever happens then, it gets one."""

    def setUp(self):
        super().setUp()
        self.output = self.box.dir / "asking.output"
        with open(self.output, "ab") as output:
            if self.box.user:
                os.chown(self.output, self.box.user.pw_uid, self.box.user.pw_gid)
            self.box.stasis("launch", "--name", "asking", "--display=64x64", "--background", "--", "/usr/bin/python3",
                            "-c", ASKING, stdout=output)
        self.goes_on()

    def count(self):
        return len(self.output.read_text().splitlines())

    def goes_on(self):
        wait_for("it asks", lambda before=self.count(): self.count() > before + 2)

    def test_restart(self):
        for _ in range(20):
            self.box.save_and_kill("asking")
            self.box.restart("asking")
            self.goes_on()

    def test_killed_renderer(self):
        server = next(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and self.is_server(pid))
        for _ in range(15):
            for renderer in children_of(server, "stasis-gl-renderer"):
                os.kill(renderer, signal.SIGKILL)
            self.goes_on()

    def is_server(self, pid):
        try:
            words = pathlib.Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            return False
        return b"stasis-gl-server" in words and str(self.box.home).encode() in words


if __name__ == "__main__":
    unittest.main()
