#!/usr/bin/python3
"""Records what programs say to OpenGL, as inputs for the fuzz target of the renderer to begin with.

    STASIS=build/stasis record_streams.py BUILD DIRECTORY

They are not kept in the repository: a log is of one table of commands, and another one refuses it."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD, DIRECTORY = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
STASIS = os.environ.get("STASIS", str(BUILD / "stasis"))


def programs(commands):
    """Name -> words, and how many seconds until it has drawn something."""
    found = {"gears": (["glxgears"], 3)}
    for scene in ("fixed", "core", "turning", "driver"):
        found[scene] = ([str(BUILD / "tests/gl_scene"), scene, str(commands)], 3)
    found["pymol"] = (["pymol", "-q", str(HERE / "pymol_driver.py")], 15)
    return found


def record(name, words, seconds, place, commands):
    lines = ("turn y,30", "show surface") if name == "pymol" else ("draw", "extra", "draw")
    for number, line in enumerate(lines, 1):
        (commands / f"{number}.command").write_text(line + "\n")
    environment = {**os.environ, "XDG_STATE_HOME": str(place), "COMMANDS": str(commands),
                   "COMMANDS_MODULE": str(HERE / "commands.py")}
    session = f"stream-{name}"
    run = lambda *more: subprocess.run([STASIS, *more], env=environment, check=True, stderr=subprocess.DEVNULL,  # noqa: E731
                                       stdout=subprocess.DEVNULL)
    run("launch", "--display", "--name", session, "--background", "--", *words)
    time.sleep(seconds)
    run("checkpoint", session, "--stop")
    for log in place.rglob("gl-*.log"):
        shutil.copy(log, DIRECTORY / f"{name}.log")


def main():
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in programs(""):
        with tempfile.TemporaryDirectory(prefix="stasis-streams-") as place:
            commands = pathlib.Path(place, "commands")
            commands.mkdir()
            words, seconds = programs(commands)[name]
            if shutil.which(words[0]) is None:
                print(f"{name}: {words[0]} is missing")
                continue
            try:
                record(name, words, seconds, pathlib.Path(place), commands)
            except subprocess.CalledProcessError as failed:
                print(f"{name}: {failed}")
    print(f"{len(list(DIRECTORY.glob('*.log')))} streams in {DIRECTORY}")


if __name__ == "__main__":
    main()
