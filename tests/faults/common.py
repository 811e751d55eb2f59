"""What the fault tests share: a subject that runs under stasis in a sandbox, asked now and then whether it lives."""
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import ProgramTest, TESTS, wait_for  # noqa: E402,F401
import outside  # noqa: E402,F401

SUBJECTS = pathlib.Path(os.environ.get("STASIS_BUILD") or TESTS.parent / "build") / "tests" / "subjects"


class SubjectTest(ProgramTest):
    """self.start() runs a case in the background; the program then speaks through files, as subject.h says."""

    def start(self, program, case, *flags, name="s"):
        import shutil
        binary = self.box.dir / program
        if not binary.exists():
            shutil.copy2(SUBJECTS / program, binary)
            os.chmod(binary, 0o755)
        self.place = self.box.dir / f"dir-{name}"
        self.place.mkdir()
        if self.box.user:
            os.chown(self.place, self.box.user.pw_uid, self.box.user.pw_gid)
        self.box.env["SUBJECT_DIR"] = str(self.place)
        path = self.box.dir / f"{name}.output"
        with open(path, "ab") as output:
            if self.box.user:
                os.chown(path, self.box.user.pw_uid, self.box.user.pw_gid)
            self.box.stasis("launch", "--name", name, "--background", *flags, "--", binary, case, stdout=output)
        self.output = path
        wait_for("the subject is ready", (self.place / "ready").exists)

    def answers(self, seconds=10):
        (self.place / "ping").touch()
        end = time.monotonic() + seconds
        while (self.place / "ping").exists():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def said(self):
        """What the program complained of; stasis prints the name of a session, and messages of its own, before it."""
        return [line for line in self.output.read_text().splitlines()
                if not line.startswith("stasis: ") and " " in line.strip()]

    def assert_lives(self, after):
        self.assertTrue(self.answers(), f"the program is silent after {after}; it said:\n{self.output.read_text()}")
        self.assertEqual(self.said(), [], f"after {after}")

    def processes(self):
        """Those of the program itself, not of stasis."""
        found = []
        for pid in outside.having_in_environment(f"SUBJECT_DIR={self.place}"):
            try:
                if not os.readlink(f"/proc/{pid}/exe").startswith(str(self.box.binary)):
                    found.append(pid)
            except OSError:
                pass
        return found

    def verify_in_the_end(self):
        (self.place / "go").touch()
        wait_for("the program ends", lambda: not self.processes(), 30)
        self.assertEqual(self.said(), [])

    def checkpoints(self, session="s"):
        entries = json.loads(self.box.stasis("list", session, "--json").stdout or "[]")
        for entry in entries:
            entry.pop("own_bytes", None)  # depends on who else has the same files, also on what was left behind
        return entries
