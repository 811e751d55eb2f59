#!/usr/bin/python3
"""OpenGL: all that it can tell of random state is the same after moves, restarts and deaths of the renderer.
STASIS_GL_SEEDS=FIRST-LAST tries other states than those of the tests."""
import os
import shutil
import unittest

from harness import ProgramTest
from test_opengl import BUILD, Recorded, Scene, native_pictures

ORACLE = BUILD / "tests" / "gl_oracle"
FIRST, _, LAST = os.environ.get("STASIS_GL_SEEDS", "").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1) if FIRST else (1, 3)
# Everything that only the driver knows is kept at a move; after a death there is nothing newer.
SCRIPT = ["calls", "move LIBGL_ALWAYS_SOFTWARE=1", "tell", "kill", "tell", "calls", "move LIBGL_ALWAYS_SOFTWARE=1",
          "calls", "calls", "move LIBGL_ALWAYS_SOFTWARE=1", "tell", "keeper", "kill", "tell"]
ASKS = ("calls", "tell")


def facts(answer):
    """By name; what is told natively alone is of an extension that is not recorded."""
    return dict(fact.rpartition("=")[::2] if "=" in fact else (number, fact) for number, fact in enumerate(answer.split(";")))


def differences(native, seen):
    """Of two lists of answers, as lines."""
    found = []
    for number, (one, other) in enumerate(zip(native, seen, strict=True)):
        left, right = facts(one), facts(other)
        found += [f"answer {number}, {name}: {left.get(name)} natively, but {value}" for name, value in right.items()
                  if left.get(name) != value]
    return found


class States(Recorded):
    maxDiff = None

    def answers(self, mode, seed, script, recorded):
        program = self.start(ORACLE, mode, str(seed), recorded=recorded)
        self.assertEqual(program.stdout.readline(), "ready\n")
        return self.answers_of(program, script)

    def check(self, mode):
        for seed in SEEDS:
            with self.subTest(mode=mode, seed=seed):
                native = self.answers(mode, seed, [word for word in SCRIPT if word in ASKS], recorded=False)
                seen = self.answers(mode, seed, SCRIPT, recorded=True)
                self.assertEqual("", "\n".join(differences(native, seen)))

    def test_core_profile(self):
        self.check("core")

    def test_fixed_function(self):
        self.check("fixed")


@unittest.skipUnless(shutil.which("Xvfb"), "Xvfb is missing (scripts/setup --tests)")
class Generations(ProgramTest):
    """The same in a session, three times."""
    maxDiff = None

    def check(self, mode):
        script = ["calls", "tell", "calls", "tell", "tell"]
        native = native_pictures(mode, script, ORACLE, [SEEDS[0]])
        scene = Scene(self, mode, ORACLE, more=[str(SEEDS[0])])
        scene.launch("oracle", "--gl=on")
        seen = []
        for number, word in enumerate(script):
            seen.append(scene.answer(word))
            if number != 1:
                self.box.save_and_kill("oracle")
                self.box.restart("oracle")
        self.assertEqual("", "\n".join(differences(native, seen)))

    def test_core_profile(self):
        self.check("core")

    def test_fixed_function(self):
        self.check("fixed")


if __name__ == "__main__":
    unittest.main()
