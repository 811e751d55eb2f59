"""The demo: a Python program, a Redis server with data, bash at a terminal, a virtual machine, and a program that draws with
OpenGL. Started by scripts/demo."""
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "e2e" / "guests")]
import make_guests  # noqa: E402
from harness import Redis, Sandbox, Terminal, find_program, free_port, wait_for  # noqa: E402

BOLD, DIM, GREEN, OFF = ("\033[1m", "\033[2m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("", "", "", "")


def title(text):
    print(f"\n{BOLD}{text}{OFF}", flush=True)


def shown(text):
    print(f"  {text}", flush=True)


def proven(text):
    print(f"  {GREEN}proven:{OFF} {text}", flush=True)


class Demo(Sandbox):
    def stasis(self, *args, **more):
        done = super().stasis(*args, **more)
        if args[0] != "ps":
            line = " ".join(str(a).replace(str(self.dir), ".") for a in args)
            print(f"  {DIM}${OFF} stasis {line}   {DIM}{done.took * 1000:.0f} ms{OFF}", flush=True)
        return done

    def restart_and_show(self, name):
        self.save_and_kill(name)
        shown(f"no process of {name} is left")
        self.restart(name)
        for process in self.session(name)["processes"][:4]:
            shown(f"process {process['pid']} ({process['comm']}) runs again, as {process['host_pid']} of the host")


def python_program(demo):
    title("1. A Python program in the middle of a computation, with threads")
    script = demo.write("primes.py", """
import os, threading, time
found, lock = [], threading.Lock()
def search(start, step):
    n = start
    while True:
        if n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1)):
            with lock:
                found.append(n)
        n += step
        if n % 50 == 0:
            time.sleep(0.001)
for i in range(4):
    threading.Thread(target=search, args=(i, 4), daemon=True).start()
while True:
    time.sleep(0.1)
    with lock:
        print(os.getpid(), len(found), max(found, default=0), flush=True)
""")
    output = demo.launch("primes", find_program("/usr/bin/python3", "python3"), script)

    def last():
        # The first line is the session's name, said by `launch --background`.
        lines = [line.split() for line in output.read_text().splitlines()]
        return next((words for words in reversed(lines) if len(words) == 3), ["", "0", "0"])

    wait_for("the program finds primes", lambda: int(last()[1]) > 500)
    demo.restart_and_show("primes")
    pid, count, largest = last()
    shown(f"it had found {count} primes up to {largest}")
    wait_for("the program goes on", lambda: int(last()[1]) > int(count) + 200)
    now = last()
    assert now[0] == pid
    proven(f"the same process ({pid}) went on: {now[1]} primes up to {now[2]}")
    demo.stasis("signal", "primes", "KILL", check=False)


def redis_server(demo):
    title("2. A Redis server with 200,000 keys")
    port = free_port()
    demo.launch("redis", find_program("redis-server"), "--port", port, "--save", "", "--appendonly", "no", "--dir",
                demo.dir)
    wait_for("Redis answers", lambda: Redis.ready(port))
    client = Redis(port)
    for start in range(0, 200000, 1000):
        words = [w for i in range(start, start + 1000) for w in (f"key:{i}", f"value-{i * i}")]
        client("MSET", *words)
    shown(f"keys: {client('DBSIZE')}")
    demo.restart_and_show("redis")
    started = time.monotonic()
    client = Redis(port)
    first = client("GET", "key:123456")
    took = (time.monotonic() - started) * 1000
    assert first == b"value-%d" % (123456 * 123456)
    for i in range(0, 200000, 97):
        assert client("GET", f"key:{i}") == b"value-%d" % (i * i)
    client("SET", "after", "the restart")
    proven(f"{client('DBSIZE') - 1} keys are there, the first was answered after {took:.1f} ms, and new ones are taken")
    demo.stasis("signal", "redis", "KILL", check=False)


def bash_at_a_terminal(demo):
    title("3. An interactive bash at a terminal, with a job in the background")
    demo.write("rc", "PS1='$ '\nbind 'set enable-bracketed-paste off' 2>/dev/null\n")
    terminal = Terminal(demo, "launch", "--name", "bash", "--", find_program("bash"), "--noprofile", "--rcfile",
                        demo.dir / "rc", "-i")
    terminal.expect(r"\$ ")
    for line in ("answer=42", "cd /usr/share", "sleep 1000 &"):
        terminal.send(line + "\n")
        terminal.expect(r"\$ ")
        shown(f"bash$ {line}")
    demo.save_and_kill("bash")
    terminal.end()
    shown("its terminal is closed; a new one is opened, of another size")
    terminal = Terminal(demo, "restart", "bash", rows=40, columns=120)
    terminal.send("echo answer=$answer in $PWD, $(jobs | wc -l) job, $(stty size)\n")
    said = terminal.expect(r"answer=(\d+) in (\S+), (\d+) job, (\d+ \d+)")
    shown("bash$ echo answer=$answer in $PWD, $(jobs | wc -l) job, $(stty size)")
    shown(said.group(0))
    assert said.groups() == ("42", "/usr/share", "1", "40 120"), said.groups()
    terminal.send("kill %1; wait; exit 7\n")
    status = terminal.end()
    assert status == 7, status
    proven("variables, directory and jobs are there, it obeys the new terminal, and its exit status 7 came through")


def virtual_machine(demo):
    title("4. A virtual machine: Linux in QEMU, with a disk; then three clones of it")
    try:
        kernel, modules = make_guests.find_kernel()
        emulator = find_program("qemu-system-x86_64")
    except (make_guests.Missing, unittest.SkipTest) as missing:
        shown(f"left out, it needs {missing}")
        return False
    shutil.copy(kernel, demo.dir / "kernel")
    make_guests.initramfs(demo.dir / "initramfs", modules)
    (demo.dir / "disk").write_bytes(bytes(8 << 20))
    for name in ("kernel", "initramfs", "disk"):
        os.chmod(demo.dir / name, 0o666)
    demo.launch("vm", emulator, "-accel", "tcg", "-M", "q35", "-m", 192, "-cpu", "qemu64", "-nodefaults", "-display",
                "none", "-no-reboot", "-serial", f"file:{demo.dir / 'console'}", "-kernel", demo.dir / "kernel",
                "-initrd", demo.dir / "initramfs", "-append", "console=ttyS0 quiet panic=-1 tickms=50 fill=8 disk",
                "-drive", f"file={demo.dir / 'disk'},format=raw,if=virtio")

    def last(console):
        text = console.read_bytes().decode(errors="replace") if console.exists() else ""
        assert "BAD" not in text, text
        return max((int(found[1]) for found in re.finditer(r"TICK (\d+)[^\n]*\n", text)), default=-1)

    console = demo.dir / "console"
    wait_for("the guest has booted and checks its memory and its disk", lambda: last(console) >= 5, 60)
    demo.stasis("checkpoint", "vm")
    saved = last(console)
    wait_for("the guest goes on", lambda: last(console) > saved + 5)
    shown(f"saved around tick {saved}; it went on, and is killed at {last(console)}")
    os.kill(demo.session("vm")["processes"][0]["host_pid"], signal.SIGKILL)
    demo.assert_gone("vm")
    demo.restart("vm")
    wait_for("the guest goes on where it was", lambda: last(console) > saved + 5)
    proven(f"the guest, its disk and its console are of one instant again, and it is at tick {last(console)}")
    clones = ("one", "two", "three")
    for name in clones:
        demo.stasis("restart", "vm@1", "--name", name, "--background")
    for name in clones:
        own = demo.home / "store" / name / "files-1" / "console"
        wait_for(f"clone {name} goes on", lambda of=own: last(of) > saved + 5)
    proven("three clones tick beside it, each with a disk of its own")
    for name in ("vm", *clones):
        demo.stasis("signal", name, "KILL", check=False)
    return True


MOLECULE = """
import os, threading, time
from pymol import cmd
cmd.load("/usr/share/pymol/data/demo/pept.pdb")
for line in ("hide everything", "show cartoon", "show sticks, resi 1-4", "show surface, resi 10-13", "bg_color grey30"):
    cmd.do(line)
def serve():
    while True:
        if os.path.exists("turn"):
            cmd.do("turn y, 10")
        print("alive", flush=True)
        time.sleep(0.1)
threading.Thread(target=serve, daemon=True).start()
"""


def opengl_program(demo):
    title("5. PyMOL, which draws a molecule with OpenGL: saved on one driver, restarted on another")
    try:
        viewer = find_program("pymol")
        find_program("Xvfb")
    except unittest.SkipTest as missing:
        shown(f"left out: {missing}")
        return False
    script = demo.write("molecule.py", MOLECULE, 0o644)
    output = demo.launch("molecule", viewer, "-q", script, flags=("--display=640x480", "--gl=on"))

    def picture(number):
        return pathlib.Path(demo.home / "store" / "molecule" / str(number) / "screen.png")

    def driver():
        return json.loads(demo.stasis("gl", "status", "molecule", "--json").stdout)[0]["driver"]
    wait_for("PyMOL draws", lambda: b"alive" in output.read_bytes(), 60)
    time.sleep(2)  # its window is complete
    first = driver()
    demo.save_and_kill("molecule")
    shown(f"drawn by {first}; no process of it is left")
    alive = output.read_bytes().count(b"alive")
    demo.restart("molecule", "--gl-driver=softpipe")
    wait_for("it goes on", lambda: output.read_bytes().count(b"alive") > alive + 3, 60)
    second = driver()
    assert second != first, (first, second)
    demo.stasis("checkpoint", "molecule")
    demo.write("turn", "")
    time.sleep(2)
    demo.stasis("checkpoint", "molecule")
    proven(f"the same molecule is drawn by {second} now, and it still turns")
    for number, what in ((1, "before"), (2, "after"), (3, "turned")):
        place = ROOT / "build" / f"demo-{what}.png"
        shutil.copy(picture(number), place)
        shown(f"the screen: {place.relative_to(ROOT)}")
    demo.stasis("signal", "molecule", "KILL", check=False)
    return True


def main():
    user = None if "--as-root" in sys.argv or os.getuid() != 0 else "stasis-test"
    if user:
        import pwd
        try:
            pwd.getpwnam(user)
        except KeyError:
            user = None
    demo = Demo(user)
    started = time.monotonic()
    print(f"stasis as {'the ordinary user ' + user if user else 'user ' + str(os.getuid())}, state in {demo.home}")
    try:
        parts = (python_program, redis_server, bash_at_a_terminal, virtual_machine, opengl_program)
        done = sum(part(demo) is not False for part in parts)
    except BaseException:
        print("\n" + "\n".join(demo.log[-6:]), file=sys.stderr)
        raise
    finally:
        demo.close()
    print(f"\n{BOLD}{done} of {len(parts)} programs were saved, killed, restarted and went on, in {time.monotonic() - started:.0f} s."
          f"{OFF}")


if __name__ == "__main__":
    main()
