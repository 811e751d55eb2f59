#!/usr/bin/python3
"""What a program gives up while the image of its checkpoint is still being written is free at once: locks, ports, connections,
and mounts."""
import fcntl
import os
import pathlib
import socket
import subprocess
import unittest

from harness import ProgramTest, free_port, wait_for

HOLDER = """import ctypes, fcntl, os, socket, sys, time
memory = os.urandom(500 << 20)
libc = ctypes.CDLL(None, use_errno=True)
def mounted():
    user = os.geteuid()
    if user != 0:
        group = os.getegid()
        libc.unshare(0x10000000)  # CLONE_NEWUSER
        for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    libc.unshare(0x20000)  # CLONE_NEWNS
    libc.mount(b"none", b"/", None, (1 << 14) | (1 << 18), None)  # MS_REC | MS_PRIVATE
    os.makedirs("mounted", exist_ok=True)
    return libc.mount(b"none", b"mounted", b"tmpfs", 0, None) == 0
has_mount = mounted()
if has_mount:
    inside = open("mounted/file", "w")
file = open("data", "w")
fcntl.flock(file, fcntl.LOCK_EX)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
print("holding", flush=True)
while not os.path.exists("go"):
    time.sleep(0.002)
for one in file, listener, connection:
    one.close()
if has_mount:
    inside.close()
    print("umount", libc.umount2(b"mounted", 0), flush=True)
print("let go", flush=True)
time.sleep(1000)
"""


class LetGo(ProgramTest):
    def test_while_the_image_is_written(self):
        port = free_port()
        output = self.box.launch("s", "/usr/bin/python3", self.box.write("holder.py", HOLDER), str(port))

        def connect():
            try:
                return socket.create_connection(("127.0.0.1", port))
            except ConnectionRefusedError:
                return None
        connection = wait_for("the program listens", connect)
        self.addCleanup(connection.close)
        wait_for("the program holds all", lambda: "holding" in output.read_text())
        program = self.box.session("s")["processes"][-1]["host_pid"]
        checkpoint = subprocess.Popen(self.box.line([self.box.binary, "checkpoint", "s"]), env=self.box.env, cwd=self.box.dir,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        status = pathlib.Path(f"/proc/{program}/status")
        wait_for("it stands still", lambda: "TracerPid:\t0\n" not in status.read_text())
        (self.box.dir / "go").touch()
        connection.settimeout(30)
        self.assertEqual(connection.recv(1), b"")
        wait_for("the program has let go", lambda: "let go" in output.read_text())
        with open(self.box.dir / "data") as data:
            fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        socket.create_server(("127.0.0.1", port)).close()
        self.assertFalse((self.box.home / "store" / "s" / "1").exists(), "not before the image was complete")
        self.assertEqual(checkpoint.wait(), 0)
        self.assertIn("umount 0", output.read_text())


if __name__ == "__main__":
    unittest.main()
