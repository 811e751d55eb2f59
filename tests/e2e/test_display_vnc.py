#!/usr/bin/python3
"""Displays that VNC viewers can connect to."""
import socket
import struct
import time
import unittest

from display_harness import decode_xwd, DisplayTest, SIZE
from harness import find_program, wait_for


class Viewer:
    """As much of RFB as it takes to look at a screen."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        assert self.receive(12) == b"RFB 003.008\n"
        self.socket.sendall(b"RFB 003.008\n")
        assert 1 in self.receive(self.receive(1)[0])  # no password: the directory is the user's alone
        self.socket.sendall(b"\1")
        assert self.receive(4) == bytes(4)
        self.socket.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.receive(4))
        self.receive(16)
        self.receive(struct.unpack(">I", self.receive(4))[0])

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def screen(self):
        """The same as decode_xwd() gives."""
        self.socket.sendall(struct.pack(">BBHi", 2, 0, 1, 0))  # plain pixels
        self.socket.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        rows = [bytearray(self.width * 3) for _ in range(self.height)]
        kind, _, count = struct.unpack(">BBH", self.receive(4))
        assert kind == 0, kind
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.receive(12))
            assert encoding == 0, encoding
            for row in range(y, y + height):
                data = self.receive(width * 4)
                for colour in range(3):
                    rows[row][x * 3 + colour:(x + width) * 3:3] = data[2 - colour::4]
        return self.width, self.height, [bytes(row) for row in rows]

    def close(self):
        self.socket.close()


class Vnc(DisplayTest):
    def setUp(self):
        find_program("Xtigervnc")
        super().setUp()

    def view(self, name):
        viewer = Viewer(self.display(name)["vnc"])
        try:
            return viewer.screen()
        finally:
            viewer.close()

    def test_viewers_come_and_go(self):
        find_program("xcalc")
        said = self.launch("s", "xcalc", "-geometry", "+0+0", display="vnc:400x300")
        # The program may miss fonts, and say so.
        ours = [line for line in said.splitlines() if line.startswith("stasis: ")]
        self.assertEqual(ours, [f"stasis: to look at s: vncviewer {self.display('s')['vnc']}"])
        wait_for("it has drawn", lambda: len(set(self.view("s")[2])) > 20)
        time.sleep(0.3)
        before = self.view("s")
        self.assertEqual(before[:2], SIZE)
        viewer = Viewer(self.display("s")["vnc"])
        for _ in range(3):
            self.box.save_and_kill("s")
            self.box.restart("s")
            self.assertEqual(self.view("s"), before)
        with self.assertRaises((EOFError, ConnectionError)):
            viewer.screen()
        viewer.close()
        # Clones have viewers of their own.
        self.box.stasis("checkpoint", "s")
        self.box.restart("s", "--name", "t")
        self.keys("t", "mousemove", "60", "60", "key", "7")
        wait_for("it listens", lambda: self.view("t") != before)
        self.assertEqual(self.view("s"), before)
        self.box.stasis("signal", "t", "TERM")
        wait_for("the server ends with the program", lambda: self.box.session("t") is None)


if __name__ == "__main__":
    unittest.main()
