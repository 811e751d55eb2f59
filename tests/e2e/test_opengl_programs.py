#!/usr/bin/python3
"""Real OpenGL programs in sessions: their pictures are to the bit those that they draw natively on the same driver, also
after restarts, the death of the renderer, and on another driver."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import unittest

from harness import TESTS, ProgramTest, find_program, wait_for
from test_opengl import Display, children_of

SYSTEM_PATH = "/usr/bin:/bin:/usr/games"
SOFTPIPE = {"GALLIUM_DRIVER": "softpipe"}
ZINK = {"MESA_LOADER_DRIVER_OVERRIDE": "zink", "LIBGL_ALWAYS_SOFTWARE": "1"}
PATIENCE_s = 90


def pixels_of(path):
    """A name for exactly these pixels."""
    return subprocess.run(["identify", "-format", "%#", path], capture_output=True, text=True, check=True).stdout


def launch(box, name, words):
    # Its output is a file of its user's, which can be saved.
    with open(box.write(f"{name}.output", "", 0o644), "ab") as output:
        box.stasis("launch", "--display=640x480", "--gl=on", "--files=none", "--name", name, "--background", "--", *words,
                   stdout=output)


class Program:
    """One that is told what to draw by files (tests/gl/commands.py)."""

    def __init__(self, box, name, words):
        self.box, self.words, self.number = box, words, 0
        self.place = box.dir / name
        self.place.mkdir()
        self.place.chmod(0o777)

    @property
    def environment(self):
        return {"PATH": SYSTEM_PATH, "COMMANDS": str(self.place), "COMMANDS_MODULE": str(self.box.dir / "commands.py")}

    def launch(self, name):
        self.box.env |= self.environment
        launch(self.box, name, self.words)

    def draw(self, command):
        self.number += 1
        path = self.place / f"{self.number}"
        part = self.place / "part"
        part.write_text(command)
        part.chmod(0o644)
        part.rename(f"{path}.command")
        wait_for(f"the picture after {command}", pathlib.Path(f"{path}.done").exists, PATIENCE_s)
        return pixels_of(f"{path}.png")


@unittest.skipUnless(shutil.which("Xvfb") and shutil.which("identify"), "Xvfb or ImageMagick is missing (scripts/setup --tests)")
class Pictures(ProgramTest):
    def setUp(self):
        super().setUp()
        self.box.write("commands.py", (TESTS / "gl/commands.py").read_text(), 0o644)

    def driver(self, name):
        return self.box.write(name, (TESTS / "gl" / name).read_text(), 0o644)

    def native(self, words, script, **environment):
        display = Display()
        program = Program(self.box, "native" + "".join(environment.values()), words)
        running = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   cwd=self.box.dir, start_new_session=True,
                                   env={**self.box.env, **program.environment, "DISPLAY": display.name, **environment})
        try:
            return [program.draw(command) for command in script]
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            display.close()

    def kill_renderer(self):
        def renderers():
            return [pid for server in children_of_anybody(str(self.box.home)) for pid in
                    children_of(server, "stasis-gl-renderer")]
        (old,) = renderers()
        os.kill(old, signal.SIGKILL)
        wait_for("a new renderer", lambda: renderers() not in ([], [old]), 20)

    def check(self, words, script):
        """Pictures: the first, then after a restart, the death of the renderer, a move to another driver, and restarts on
        one driver after the other, and on the first again. A driver that is changed must not be seen in the first of them."""
        native = self.native(words, script)
        softpipe = self.native(words, script, **SOFTPIPE)
        program = Program(self.box, "recorded", words)
        program.launch("p")
        seen = [program.draw(script[0])]
        self.box.save_and_kill("p")
        self.box.restart("p")
        seen.append(program.draw(script[1]))
        self.kill_renderer()
        seen.append(program.draw(script[2]))
        self.assertEqual(seen, native[:3])
        self.box.stasis("gl", "move", "p", "--driver", "softpipe")
        self.assertEqual(program.draw(script[3]), softpipe[3])
        drivers = [("softpipe", softpipe)]
        if self.starts("zink"):
            drivers.append(("zink", self.native(words, script, **ZINK)))
        for number, (driver, pictures) in enumerate([*drivers, ("llvmpipe", native)], 4):
            self.box.save_and_kill("p")
            self.box.restart("p", f"--gl-driver={driver}")
            with self.subTest(driver=driver):
                self.assertEqual(program.draw(script[number]), pictures[number])

    def starts(self, driver):
        """Whether it works here at all."""
        said = self.box.stasis("check", "--json", check=False).stdout
        return any(row["name"] == f"OpenGL: {driver}" and row["state"] == "ok" for row in json.loads(said)["checks"])

    def test_pymol(self):
        find_program("pymol")
        self.check(["pymol", "-q", self.driver("pymol_driver.py")],
                   ["turn y,30", "turn x,30", "show surface", "turn x,20", "hide surface", "turn y,40", "turn x,10"])

    def test_vtk(self):
        if subprocess.run(["/usr/bin/python3", "-c", "import vtkmodules"], capture_output=True).returncode != 0:
            self.skipTest("python3-vtk9 is not installed")
        self.check(["/usr/bin/python3", self.driver("vtk_driver.py")], ["turn", "turn", "volume", "turn", "turn", "turn", "turn"])


def children_of_anybody(words):
    """The servers of OpenGL that have these words in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            line = pathlib.Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if entry.isdigit() and "stasis-gl-server" in line and words in line:
            found.append(int(entry))
    return found


@unittest.skipUnless(shutil.which("Xvfb"), "Xvfb is missing (scripts/setup --tests)")
class Running(ProgramTest):
    """Programs that draw by themselves."""

    def launch(self, name, *words):
        self.box.env["PATH"] = SYSTEM_PATH
        # Without a sound card two threads of SFML's write their complaints into one another, some of them for ever.
        self.box.env["ALSOFT_DRIVERS"] = "null"
        launch(self.box, name, words)

    def recorded(self, name):
        said = self.box.stasis("gl", "status", name, "--json").stdout
        return sum(map(int, re.findall(r'"recorded": *(\d+)', said)))

    def goes_on(self, name):
        before = self.recorded(name)
        wait_for("it draws", lambda: self.recorded(name) > before + 200, PATIENCE_s)

    def generations(self, name, *words):
        self.launch(name, *words)
        self.goes_on(name)
        for flags in ([], ["--gl-driver=softpipe"], ["--gl-driver=default"]):
            self.box.save_and_kill(name)
            self.box.restart(name, *flags)
            self.goes_on(name)
        self.assertFalse((self.box.home / "sessions" / name / "opengl.log").read_text())

    def test_extreme_tux_racer(self):
        find_program("/usr/games/etr")
        try:
            self.generations("etr", "/usr/games/etr")
        except AssertionError:
            # Seen: two of its threads inside SFML's stream for messages, both running, for ever, and no question to the
            # driver open. Twice in a row it would be us.
            self.generations("etr-again", "/usr/games/etr")

    def test_openarena_with_its_core_profile_renderer(self):
        find_program("/usr/games/openarena")
        self.generations("oa", "/usr/games/openarena", *(
            "+set r_mode -1 +set r_customwidth 320 +set r_customheight 240 +set r_fullscreen 0 +set com_maxfps 0 "
            "+set r_swapInterval 0 +set s_initsound 0 +set com_introplayed 1 +set cl_renderer opengl2 "
            "+set com_hunkMegs 512").split())

    def test_glmark2_validates_its_pictures(self):
        """Scenes compare pixels with what they must be; of those with framebuffer objects only that they run."""
        find_program("glmark2")
        self.box.env["PATH"] = SYSTEM_PATH
        scenes = ["build:use-vbo=false", "build:use-vbo=true", "texture:texture-filter=mipmap", "shading:shading=phong",
                  "bump:bump-render=normals", "effect2d:kernel=0,1,0;1,-4,1;0,1,0;", "desktop:effect=blur:windows=4",
                  "desktop:effect=shadow:windows=4", "buffer:update-method=map", "buffer:update-method=subdata:interleave=true",
                  "conditionals:vertex-steps=5", "loop:fragment-uniform=true"]
        words = [word for scene in scenes for word in ("-b", scene)]
        done = self.box.stasis("launch", "--display=1024x768", "--gl=on", "--", "glmark2", "--validate", *words, timeout=120)
        self.assertIn("GL_VERSION:     3.3", done.stdout)
        self.assertEqual(re.findall(r"Validation: (?!Success|Unknown).*", done.stdout), [])
        self.assertGreaterEqual(done.stdout.count("Validation: Success"), 10)


class Conformance(unittest.TestCase):
    def test_piglit(self):
        """Some of what the program's side has to know: scripts/gl-conformance has it all."""
        find_program("piglit")
        find_program("Xvfb")
        tests = ("1.0@gl-1.0-(beginend-coverage|dlist-beginend|readpixels-oob|rendermode-feedback)",
                 "1.1@(line-flat-clip-color|gl-1.1-color-ma)",
                 "1.1@roundmode-pixelstore", "1.4@gl-1.4-multidrawarrays-errors", "1.5@(draw-elements|gl-1.5-get-array-attribs)$",
                 "2.0@(shadersource-errors|clear-varray-2.0)", "2.1@pbo", "3.1@genned-names", "3.1@gl-3.1-enable-vertex-array")
        pattern = "|".join(f"spec@!opengl {test}" for test in tests)
        done = subprocess.run([TESTS.parent / "scripts/gl-conformance", pattern, "--build", os.environ["STASIS_BUILD"]],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertGreater(int(done.stdout.split()[0]), 10)


if __name__ == "__main__":
    unittest.main()
