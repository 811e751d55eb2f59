#!/usr/bin/python3
"""EGL: as test_opengl.py, in windows, into pbuffers, and without any surface or X server."""
import json
import os
import shutil
import signal
import subprocess
import unittest

import test_opengl as gl
from harness import ProgramTest, wait_for

SCENE = gl.BUILD / "tests" / "egl_scene"
IN_WINDOWS = ("window", "core")
WITHOUT_X = ("pbuffer", "surfaceless")


def kill_renderer(server):
    old = gl.children_of(server, "stasis-gl-renderer")
    os.kill(old[0], signal.SIGKILL)
    wait_for("a new renderer", lambda: set(gl.children_of(server, "stasis-gl-renderer")) - set(old), 20)


@unittest.skipUnless(shutil.which("Xvfb"), "Xvfb is missing (scripts/setup --tests)")
class Egl(gl.Recorded):
    scene = SCENE
    pictures, check_pictures, check_move = (vars(gl.OpenGl)[name] for name in ("pictures", "check_pictures", "check_move"))

    def test_after_the_death_of_the_renderer(self):
        for mode in IN_WINDOWS + WITHOUT_X:
            with self.subTest(mode):
                self.check_pictures(mode)

    def test_on_another_driver(self):
        for mode in IN_WINDOWS + WITHOUT_X:
            with self.subTest(mode):
                self.check_move(mode)

    def test_a_picture_without_frames_is_begun_again(self):
        """Many calls and a half of a picture, after which the renderer dies."""
        program = self.start(SCENE, "surfaceless", DISPLAY="")
        native = self.start(SCENE, "surfaceless", recorded=False)
        said = []
        for one in (native, program):
            for word in ("draw", "begin", "end"):
                if one is program and word == "end":
                    self.kill_renderer()
                one.stdin.write(word + "\n")
                one.stdin.flush()
                if word == "draw":
                    self.assertEqual(one.stdout.readline(), "ready\n")
                said.append(one.stdout.readline())
        self.assertRegex(said[2], "^[0-9a-f]{16}$")
        self.assertEqual(said[:3], said[3:])

    def test_depth_and_stencil_go_along(self):
        """What is drawn after a move is behind what was drawn before it, or not drawn."""
        for mode in ("surfaceless", "textured", "window"):
            with self.subTest(mode):
                said = []
                for recorded in (False, True):
                    program = self.start(SCENE, mode, recorded=recorded)
                    self.assertEqual(program.stdout.readline(), "ready\n")
                    for word in ("draw", "long", "move", "end"):
                        if word == "move" and recorded:
                            old = self.renderer()
                            self.assertEqual(self.ask("move LIBGL_ALWAYS_SOFTWARE=1"), "ok")
                            wait_for("a new renderer", lambda old=old: self.renderer() not in (None, old), 20)
                        elif word != "move":
                            program.stdin.write(word + "\n")
                            program.stdin.flush()
                            said.append(program.stdout.readline())
                    self.end(program)
                self.assertRegex(said[2], "^[0-9a-f]{16}$")
                self.assertEqual(said[3:], said[:3])

    def environment(self):
        return {**os.environ, "DISPLAY": self.display.name, "STASIS_GL_SOCKET": str(self.socket),
                "__EGL_VENDOR_LIBRARY_FILENAMES": str(gl.BUILD / "gl/stasis_egl.json"), "LD_LIBRARY_PATH": str(gl.BUILD / "gl")}

    def test_without_an_x_server_the_default_display_has_no_screen(self):
        unreachable = {"DISPLAY": ":987654"}
        native = self.pictures("pbuffer", ["draw"], recorded=False, **unreachable)
        self.assertEqual(self.pictures("default", ["draw"], **unreachable), native)
        self.assertEqual(self.pictures("default", ["draw"], DISPLAY=""), native)

    def test_no_binaries_of_programs_are_offered(self):
        program = self.start(SCENE, "surfaceless", DISPLAY="")
        self.assertEqual(program.stdout.readline(), "ready\n")
        program.stdin.write("formats\n")
        program.stdin.flush()
        self.assertEqual(program.stdout.readline(), "0\n")

    @unittest.skipUnless(shutil.which("es2gears_x11"), "es2gears_x11 is missing (scripts/setup --tests)")
    def test_log_does_not_grow_with_time(self):
        gears = self.start("es2gears_x11")

        wait_for("some frames", lambda: self.status()[0] > 2000, 20)
        recorded, kept, size = self.status()
        wait_for("three times as many calls", lambda: self.status()[0] > 3 * recorded, 60)
        self.assertEqual(self.status()[1:], (kept, size))
        self.assertLess(size, 1 << 20)
        recorded = self.status()[0]
        self.kill_renderer()
        wait_for("frames of the new renderer", lambda: self.status()[0] > recorded + 2000, 60)
        self.end(gears)

    @unittest.skipUnless(shutil.which("eglinfo"), "eglinfo is missing (scripts/setup --tests)")
    def test_what_is_not_recorded_is_not_there(self):
        said = subprocess.run(["eglinfo"], capture_output=True, text=True, timeout=60, env=self.environment()).stdout
        self.assertEqual(said.count("EGL vendor string: stasis"), 2)  # X11, and without surfaces
        self.assertEqual(said.count("EGL version string: 1.4"), 2)
        self.assertIn("EGL_KHR_surfaceless_context", said)
        for absent in ("gbm", "wayland", "EGL_KHR_image", "EGL_KHR_wait_sync", "pix"):
            self.assertNotIn(absent, said.replace("EGL_EXT_pixel", ""), absent)


@unittest.skipUnless(shutil.which("Xvfb"), "Xvfb is missing (scripts/setup --tests)")
class Sessions(ProgramTest):
    def scene(self, mode):
        return gl.Scene(self, mode, SCENE, "--display=640x480" if mode in IN_WINDOWS else None)

    def server(self, name):
        """The pid of the session's server."""
        path = str(self.box.home / f"sessions/{name}/display/stasis-gl").encode()
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if path in file.read().split(b"\0"):
                        return int(entry)
            except OSError:
                continue
        raise AssertionError("there is no server")

    def generations(self, mode):
        native = gl.native_pictures(mode, ["draw", "draw", "extra", "draw", "draw"], SCENE)
        softpipe = gl.native_pictures(mode, ["draw", "draw", "extra", "draw", "draw", "draw", "draw"], SCENE, **gl.SOFTPIPE)
        self.assertNotEqual(native, softpipe[:5])
        scene = self.scene(mode)
        scene.launch("scene", "--gl=on")
        seen = [scene.draw()]
        for word in ("draw", "extra"):
            self.box.save_and_kill("scene")
            self.box.restart("scene")
            seen.append(scene.draw(word))
        kill_renderer(self.server("scene"))
        seen.append(scene.draw())
        self.box.stasis("checkpoint", "scene")
        seen.append(scene.draw())
        self.assertEqual(seen, native)
        self.box.stasis("verify", "scene")
        self.box.stasis("gl", "move", "scene", "--driver", "softpipe")
        self.assertEqual(scene.draw(), softpipe[5])
        self.box.save_and_kill("scene")
        self.box.restart("scene", "--gl-driver=softpipe")
        self.assertEqual(scene.draw(), softpipe[6])
        (program,) = json.loads(self.box.stasis("gl", "status", "scene", "--json").stdout)
        self.assertGreater(program["objects"], 0)

    def test_window(self):
        self.generations("window")

    def test_core_profile(self):
        self.generations("core")

    def test_pbuffer_without_x(self):
        self.generations("pbuffer")

    def test_surfaceless_without_x(self):
        self.generations("surfaceless")

    def test_copies_side_by_side_without_x(self):
        native = gl.native_pictures("pbuffer", ["draw", "draw", "draw"], SCENE)
        scene = self.scene("pbuffer")
        scene.launch("scene", "--gl=on")
        scene.draw()
        self.box.save_and_kill("scene")
        for name in ("one", "two"):
            self.box.restart("scene", "--name", name)
        self.assertEqual(scene.draw(), native[1])  # whoever was first
        self.box.stasis("signal", "one", "KILL", "--all")
        self.assertEqual(scene.draw(), native[2])

    def test_without_asking_nothing_is_recorded_without_x(self):
        self.box.launch("plain", "sleep", "1000")
        refused = self.box.stasis("gl", "status", "plain", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("--gl=on", refused.stderr)

    @unittest.skipUnless(shutil.which("es2gears_x11"), "es2gears_x11 is missing (scripts/setup --tests)")
    def test_es2gears_goes_on(self):
        self.box.stasis("launch", "--display=640x480", "--gl=on", "--files=none", "--name", "gears", "--background", "--",
                        "sh", "-c", "exec es2gears_x11 > /dev/null 2>&1", stdout=subprocess.DEVNULL)

        def recorded():
            programs = json.loads(self.box.stasis("gl", "status", "gears", "--json").stdout)
            return programs[0]["recorded"] if programs else 0

        def goes_on(what):
            before = recorded()
            wait_for(f"frames {what}", lambda: recorded() > before + 200, 60)

        goes_on("at first")
        self.box.save_and_kill("gears")
        self.box.restart("gears")
        goes_on("after a restart")
        self.box.stasis("gl", "move", "gears", "--driver", "softpipe")
        goes_on("with another driver")
        kill_renderer(self.server("gears"))
        goes_on("with another renderer")


if __name__ == "__main__":
    unittest.main()
