#!/usr/bin/python3
"""restart --map-path: a program whose files are in another place when it comes back."""
import os
import shutil
import socket
import unittest

from harness import ProgramTest, find_program, wait_for

# Has a script, a log, a directory, a FIFO and a socket below its home, and says where it is when asked.
SERVICE = """
import os, socket, sys, time
os.chdir(os.path.dirname(os.path.abspath(__file__)))
log = open("service.log", "a", buffering=1)
data = open("data.txt")
data.read(4)
os.mkfifo("queue")
queue = os.open("queue", os.O_RDWR)
place = os.open("sub", os.O_RDONLY)
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.path.abspath("service.sock"))
listener.listen()
print("ready", flush=True)
count = 0
while True:
    client, _ = listener.accept()
    count += 1
    log.write(f"{count}\\n")
    seen = [os.readlink(f"/proc/self/fd/{fd}") for fd in (log.fileno(), data.fileno(), queue, place)]
    client.sendall(repr([count, os.getcwd(), data.read(4), seen, os.listdir(place)]).encode())
    client.close()
"""


class Moved(ProgramTest):
    def setUp(self):
        super().setUp()
        self.old, self.new = self.box.dir / "old", self.box.dir / "new"
        for place in self.old, self.old / "sub":
            place.mkdir()
        self.box.write("old/service.py", SERVICE)
        self.box.write("old/data.txt", "abcdefghijkl")
        self.box.write("old/sub/there", "")
        if self.box.user:
            for place in self.old, self.old / "sub":
                os.chown(place, self.box.user.pw_uid, self.box.user.pw_gid)
        output = self.box.launch("service", find_program("/usr/bin/python3"), self.old / "service.py")
        wait_for("it is ready", lambda: "ready" in output.read_text())

    def ask(self, place):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(place / "service.sock"))
            return eval(client.makefile().read())  # what our own service has said

    def test_home_directory(self):
        self.assertEqual(self.ask(self.old)[:3], [1, str(self.old), "efgh"])
        self.box.save_and_kill("service")
        self.old.rename(self.new)
        refused = self.box.stasis("restart", "service", "--background", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(str(self.old), refused.stderr)
        self.box.restart("service", f"--map-path={self.old}={self.new}")
        count, directory, data, seen, names = self.ask(self.new)
        self.assertEqual((count, directory, data, names), (2, str(self.new), "ijkl", ["there"]))
        self.assertEqual(seen, [str(self.new / name) for name in ("service.log", "data.txt", "queue", "sub")])
        self.assertEqual((self.new / "service.log").read_text(), "1\n2\n")
        # The next checkpoint knows the new place only.
        self.box.save_and_kill("service")
        self.box.restart("service")
        self.assertEqual(self.ask(self.new)[0], 3)

    def test_log_that_was_captured_is_put_back_there(self):
        self.box.stasis("checkpoint", "service")
        self.ask(self.old)
        self.box.stasis("signal", "service", "KILL")
        self.box.assert_gone("service")
        shutil.move(self.old, self.new)
        self.box.restart("service", f"--map-path={self.old}={self.new}")
        self.assertEqual(self.ask(self.new)[0], 1)
        self.assertEqual((self.new / "service.log").read_text(), "1\n")
        self.assertEqual([path.read_text() for path in self.new.glob("service.log.before-restart*")], ["1\n"])
        self.assertFalse(self.old.exists())

    def test_rules_that_are_none(self):
        for rule in ("old=new", "/old", "/old=new", ""):
            refused = self.box.stasis("restart", "service", f"--map-path={rule}", check=False)
            self.assertEqual(refused.returncode, 2, rule)


class Carried(ProgramTest):
    def test_program_that_the_host_does_not_have(self):
        """export --self-contained has the program; the host has it no more."""
        own = self.box.dir / "own-shell"
        shutil.copy2(find_program("/bin/bash"), own)
        os.chmod(own, 0o755)
        output = self.box.launch("shell", own, "-c", "for ((i = 0; ; ++i)); do echo $i; sleep 0.05; done")
        wait_for("it counts", lambda: output.read_text().count("\n") > 5)
        self.box.save_and_kill("shell")
        self.box.stasis("export", "shell", self.box.dir / "shell.stasis", "--self-contained", timeout=60)
        self.box.stasis("rm", "shell@1")
        own.unlink()
        imported = self.box.stasis("import", self.box.dir / "shell.stasis", timeout=60)
        before = output.read_text().count("\n")
        refused = self.box.stasis("restart", "shell", "--background", check=False)
        self.assertIn(str(own), refused.stderr)
        files = next((self.box.home / "store" / "shell").glob("*/files"))
        self.assertIn(f"--map-path /={files}\n", imported.stderr)
        self.box.restart("shell", f"--map-path=/={files}")
        wait_for("it goes on", lambda: output.read_text().count("\n") > before + 5)
        numbers = [int(line) for line in output.read_text().split("\n")[:-1] if line.isdigit()]
        self.assertEqual(numbers, list(range(len(numbers))))


if __name__ == "__main__":
    unittest.main()
