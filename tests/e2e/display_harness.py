"""For tests of sessions with a display: starting them, asking their X server, and reading pictures."""
import json
import os
import struct
import subprocess
import zlib
from pathlib import Path

from harness import ProgramTest, find_program, wait_for

PYTHON = "/usr/bin/python3"
SIZE = (400, 300)


def decode_xwd(data):
    """(width, height, rows of RGB) of a window dump with 32 bits for each pixel."""
    head = struct.unpack(">25I", data[:100])
    width, height, line, colours = head[4], head[5], head[12], head[19]
    start = head[0] + colours * 12
    rows = []
    for y in range(height):
        row = data[start + y * line:start + y * line + width * 4]
        rgb = bytearray(width * 3)
        rgb[0::3], rgb[1::3], rgb[2::3] = row[2::4], row[1::4], row[0::4]
        rows.append(bytes(rgb))
    return width, height, rows


def decode_png(data):
    """The same of a PNG as we write them: eight bits, RGB, filters none and Sub."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    at, packed, head = 8, b"", None
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0]
        at += 12 + size
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        packed += body if kind == b"IDAT" else b""
    width, height = head[:2]
    assert head[2:] == (8, 2, 0, 0, 0), head
    raw, rows = zlib.decompress(packed), []
    for y in range(height):
        line = bytearray(raw[y * (width * 3 + 1):(y + 1) * (width * 3 + 1)])
        how = line.pop(0)
        assert how in (0, 1), how
        for i in range(3, len(line) if how == 1 else 0):
            line[i] = (line[i] + line[i - 3]) & 255
        rows.append(bytes(line))
    return width, height, rows


class DisplayTest(ProgramTest):
    def setUp(self):
        find_program("Xvfb")
        super().setUp()

    def launch(self, name, *program, display=f"{SIZE[0]}x{SIZE[1]}"):
        """What it has said."""
        # Into files: of pipes the session would get a terminal.
        paths = [self.box.dir / f"{name}.{what}" for what in ("output", "said")]
        for path in paths:
            path.touch()
            os.chmod(path, 0o666)
        with open(paths[0], "ab") as output, open(paths[1], "ab") as said:
            done = subprocess.run(
                self.box.line([self.box.binary, "launch", f"--display={display}", "--name", name, "--background", "--",
                               *program]),
                env=self.box.env, cwd=self.box.dir, stdin=subprocess.DEVNULL, stdout=output, stderr=said, timeout=30)
        self.assertEqual(done.returncode, 0, paths[1].read_text())
        return paths[1].read_text()

    def display(self, name):
        return self.box.session(name)["display"]

    def inside(self, name, *line, **more):
        """A client that is no process of the session, but sees its display where the session's programs see it."""
        session = self.box.session(name)
        server = next(p["host_pid"] for p in session["processes"] if p["comm"] in ("Xvfb", "Xtigervnc"))
        enter = ["nsenter", f"--target={server}", "--mount"]
        if self.box.user or os.getuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        return self.box.run(*enter, "env", f"DISPLAY=:{session['display']['number']}",
                            "XAUTHORITY=/tmp/.X11-unix/authority", *line, **more)

    def screen(self, name):
        path = self.box.dir / f"{name}.xwd"
        self.inside(name, find_program("xwd"), "-root", "-silent", "-out", path)
        return decode_xwd(path.read_bytes())

    def still_screen(self, name):
        """When it has stopped changing, and shows something."""
        seen = [None, 0]

        def still():
            now = self.screen(name)
            seen[:] = now, seen[1] + 1 if now == seen[0] and len(set(now[2])) > 1 else 0
            return seen[1] >= 3
        wait_for("the screen stands still", still)
        return seen[0]

    def keys(self, name, *keys):
        self.inside(name, find_program("xdotool"), *keys)

    def checkpoints(self, name):
        return json.loads(self.box.stasis("list", name, "--json").stdout)

    def picture(self, name):
        """That of the newest checkpoint."""
        return decode_png(Path(self.checkpoints(name)[-1]["picture"]).read_bytes())

    def assert_shows(self, picture, screen):
        """A picture has the pointer in it, which is in the middle; a window dump has not."""
        self.assertEqual((picture[:2], screen[:2]), (SIZE, SIZE))
        x, y = SIZE[0] // 2 - 16, SIZE[1] // 2 - 16
        for number, (ours, theirs) in enumerate(zip(picture[2], screen[2])):
            if y <= number < y + 32:
                ours, theirs = (row[:x * 3] + row[(x + 32) * 3:] for row in (ours, theirs))
            self.assertEqual(ours, theirs, f"row {number}")

    def processes(self, name):
        return sorted(p["comm"] for p in (self.box.session(name) or {"processes": []})["processes"])
