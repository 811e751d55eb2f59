#!/usr/bin/python3
"""OpenGL: a program whose stream of calls makes no sense (tests/gl/hostile.cpp) gets an error that names the call, from a
renderer that ends in order. A real driver is at work: what it would be handed without the checks makes it crash."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import wait_for

BUILD = pathlib.Path(os.environ["STASIS_BUILD"])
HOSTILE = BUILD / "tests" / "gl_hostile"
# What is said of each; the renderers of a ring come first, those of a log later.
REFUSED = {
    "an-address-for-an-offset": "glTexImage2D: an offset where no buffer is bound",
    "cut-off-ring": "the program has cut off its ring",
    "huge-count": "glDrawArrays: vertices 0 to 2147483646 of array 0",
    "index-beyond-the-array": "glDrawElements: vertices 0 to 2147483647 of array 0",
    "list-beyond-its-buffer": "glDrawArrays: a vertex beyond the buffer of an array, which has 4",
    "negative-size": "glDrawArrays: an array of 4 values of type 5126 with a stride of -1073741824",
    "offset-beyond-the-data": "glDrawArrays: vertices 0 to 2 of array 0",
    "room-of-an-answer": "glReadPixels: an offset where no buffer is bound",
    "rows-beyond-the-pixels": "glTexImage2D: 16 bytes where 67108864 are read",
    "texts-beyond-the-packet": "glTransformFeedbackVaryings: 1048576 bytes where 2147483647 are read",
    "truncated-call": "glTexImage2D: its packet has 8 bytes",
    "unknown-call": "it is none that is recorded",
}


class Hostile(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="stasis-gl-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.said = self.directory / "said"
        with open(self.said, "ab") as said:
            self.server = subprocess.Popen([BUILD / "gl/stasis-gl-server", self.directory / "socket", "--no-x"], stdout=subprocess.PIPE,
                                           stderr=said, text=True)
        self.addCleanup(self.end, self.server)
        self.assertEqual(self.server.stdout.readline(), "ready\n")

    @staticmethod
    def end(process):
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def run_case(self, case):
        program = subprocess.Popen([HOSTILE, case], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env={**os.environ, "STASIS_GL_SOCKET": str(self.directory / "socket")})
        self.addCleanup(self.end, program)
        return program

    def test_what_is_right_is_drawn(self):
        self.assertEqual(self.run_case("nothing-wrong").stdout.readline(), "done\n")
        self.assertEqual(self.said.read_text(), "")

    def check(self, case):
        self.run_case(case)
        wait_for("the end of a renderer", lambda: REFUSED[case] in self.said.read_text(), 20)
        self.assertNotIn("signal 11", self.said.read_text())

    def test_the_log_is_refused_like_the_ring(self):
        """The keeper has kept the call, so every new renderer gets it with the log."""
        self.check("rows-beyond-the-pixels")
        wait_for("a log that is refused",
                 lambda: f"stasis: OpenGL: {REFUSED['rows-beyond-the-pixels']}" in self.said.read_text(), 20)

    def test_every_case_is_tested(self):
        cases = subprocess.run([HOSTILE], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        self.assertEqual(set(cases), {"nothing-wrong", *REFUSED})


for name in REFUSED:
    setattr(Hostile, "test_" + name.replace("-", "_"), lambda self, name=name: self.check(name))

if __name__ == "__main__":
    unittest.main()
