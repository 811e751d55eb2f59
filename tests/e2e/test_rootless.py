#!/usr/bin/python3
"""Inside of a container without root: one user of the host is root there, groups cannot be set, mounts are locked."""
import os
import signal
import subprocess
import unittest

from harness import ProgramTest, Sandbox, wait_for

MOUNTED = """
mkdir -p $1/memory $1/bound $1/shared/part $1/peer
mount -t tmpfs -o mode=751 memory $1/memory
mount --bind $1/memory $1/bound
mount --bind $1/shared $1/shared; mount --make-shared $1/shared; mount --bind $1/shared/part $1/peer
echo kept > $1/memory/file
exec 3< $1/memory/file
i=0
while ! test -e $1/stop; do i=$((i+1)); echo $i > $1/count; sleep 0.02; done
read kept <&3
mount -t tmpfs late $1/shared/part
touch $1/peer/late
stat -c '%u %g %a' $1/memory; id -u; echo $kept; cat $1/bound/file; ls $1/shared/part
"""


class Container(Sandbox):
    """Every command is run in namespaces that `unshare --map-root-user` has made."""

    def __init__(self):
        super().__init__()
        self.inside = subprocess.Popen(
            super().line(["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
                          "sh", "-c", "echo ready; sleep 1000"]), stdout=subprocess.PIPE, cwd=self.dir)
        self.inside.stdout.readline()
        with open(f"/proc/{self.inside.pid}/task/{self.inside.pid}/children") as children:
            self.root = int(children.read())

    def line(self, line):
        return super().line(["nsenter", "--target", self.root, "--user", "--preserve-credentials", "--mount", "--pid",
                             f"--wd={self.dir}", *line])

    def close(self):
        super().close()
        os.kill(self.root, signal.SIGKILL)
        self.inside.wait()
        self.inside.stdout.close()


class RootlessContainer(ProgramTest):
    def sandbox(self):
        return Container()

    def count(self):
        path = self.box.dir / "count"
        return int((path.exists() and path.read_text()) or 0)

    def goes_on(self):
        before = wait_for("it counts", self.count)
        wait_for("it goes on", lambda: self.count() > before)

    def test_mounts(self):
        output = self.box.launch("s", "/usr/bin/unshare", "--mount", "/bin/sh", "-ec", MOUNTED, "sh", self.box.dir)
        for _ in range(3):
            self.goes_on()
            self.box.save_and_kill("s")
            self.box.restart("s")
        self.goes_on()
        (self.box.dir / "stop").touch()
        wait_for("it ends", lambda: not self.box.session("s"))
        self.assertEqual(output.read_text().split("\n")[4:], ["0 0 751", "0", "kept", "kept", "late", ""])


if __name__ == "__main__":
    unittest.main()
