#!/usr/bin/python3
"""OpenArena in play, with both of its renderers: the frame after a restart, on the same or another driver, after a move and
after the death of the renderer is to the bit the one that it draws natively there."""
import json
import os
import random
import re
import time
import unittest

from harness import find_program, wait_for
from opengl_harness import PATIENCE_s, SYSTEM_PATH, PicturesTest, Program, kill_renderer, pixels_of

# Nothing that is different in each run: lights that flicker, and messages with a time of their own.
QUIET = "+set r_autoExposure 0 +set r_dynamiclight 0 +set con_notifytime -1 +set cg_draw2D 0"


class OpenArena(Program):
    """Plays a demo, in steps of so many frames, and stands still in between, drawing the same frame again and again. With
    `timedemo` a frame is a twentieth of a second of the game, however long it takes. The commands are files, each of which
    says, when it is done, which is the next to look for."""

    def __init__(self, box, name, renderer):
        super().__init__(box, name, [
            find_program("/usr/games/openarena"), *(
                "+set r_mode -1 +set r_customwidth 160 +set r_customheight 120 +set r_fullscreen 0 +set com_maxfps 0 "
                f"+set r_swapInterval 0 +set s_initsound 0 +set com_introplayed 1 +set com_hunkMegs 512 {QUIET} "
                f"+set cl_renderer {renderer} +set fs_homepath {box.dir / name}").split(),
            "+set", "again", "exec 1; wait 2; vstr again", "+set", "activeAction", "vstr still; vstr again",
            "+set", "still", "set cl_freezeDemo 1; set timedemo 0", "+set", "timedemo", "1", "+demo", "demo088-test1"])
        self.files = self.place / "baseoa"
        self.files.mkdir()
        self.files.chmod(0o777)

    @property
    def environment(self):
        return {"PATH": SYSTEM_PATH, "HOME": str(self.place)}

    def say(self, frames):
        self.number += 1
        part = self.files / "part"
        part.write_text(f"set cl_freezeDemo 0\nset timedemo 1\nwait {frames}\nvstr still\nwait 2\nscreenshot {self.number}\n"
                        f'wait 2\nset again "exec {self.number + 1}; wait 2; vstr again"\nwriteconfig done{self.number}\n')
        part.chmod(0o644)
        part.rename(self.files / f"{self.number}.cfg")

    def has_drawn(self):
        return (self.files / f"done{self.number}.cfg").exists()

    def picture(self):
        wait_for(f"picture {self.number}", self.has_drawn, PATIENCE_s)
        return pixels_of(self.files / f"screenshots/{self.number}.tga")


class InPlay(PicturesTest):
    renderer = "opengl1"

    def setUp(self):
        find_program("Xvfb")
        find_program("identify")
        super().setUp()

    def program(self, name):
        return OpenArena(self.box, name, self.renderer)

    def test_fixed_function_renderer(self):
        self.check(["2"] * 8)

    def test_core_profile_renderer(self):
        self.renderer = "opengl2"
        self.check(["2"] * 8)

    def test_renderer_killed_at_random(self):
        """So often: STASIS_GL_KILLS=100 takes the whole demo. The last picture is right; natively, too, there is nothing random
        in it."""
        kills = int(os.environ.get("STASIS_GL_KILLS", 6))
        script = ["5", "3300" if kills > 20 else "95"]
        (_, native) = self.native(script)
        program = self.program("recorded")
        program.launch("p")
        program.draw(script[0])
        program.say(script[1])
        for number in range(kills):
            self.assertFalse(program.has_drawn(), f"the demo ended after {number} kills")
            kill_renderer(self.box)
            time.sleep(random.random() * (0.6 if kills > 20 else 0.2))
        self.assertEqual(program.picture(), native)
        self.box.stasis("checkpoint", "p")

    def test_log_does_not_grow(self):
        """Over the whole demo, with a driver that takes no time. The game itself says how many pixels its images have: all of
        them are given to the driver with four bytes each, nearly all with mipmaps."""
        self.box.env["GALLIUM_NOOP"] = "1"
        program = self.program("recorded")
        program.launch("p")
        program.draw("5")

        def status():
            (said,) = json.loads(self.box.stasis("gl", "status", "p", "--json").stdout)
            return said
        before = status()
        program.say("3300\nimagelist\ncondump images.txt")
        program.picture()
        after = status()
        self.assertGreater(after["recorded"], before["recorded"] + 3300 * 1000)
        self.assertAlmostEqual(after["kept"], before["kept"], delta=100)
        self.assertAlmostEqual(after["bytes"], before["bytes"], delta=1 << 16)
        self.assertGreater(after["recorded"], 1000 * after["kept"])
        said = (program.files / "images.txt").read_text()
        sizes = re.findall(r"^ *\d+: *(\d+)x *(\d+) ", said, re.MULTILINE)
        self.assertIn(f"{len(sizes)} total images", said)
        live = sum(int(width) * int(height) * 4 * 4 / 3 for width, height in sizes)
        self.assertLess(after["bytes"], 1.1 * live + (1 << 20))
        self.assertGreater(after["bytes"], 0.9 * live)


if __name__ == "__main__":
    unittest.main()
