"""The tools that are compared, behind one interface: start a program, checkpoint it, restart it."""

import ctypes
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent


def log(text):
    print(text, file=sys.stderr, flush=True)


COMMAND_SECONDS = 120


class Failed(Exception):
    pass


def become_subreaper():
    """Orphans of the programs that we kill come to us, not to an init that may take seconds to reap them."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def build(source, directory):
    binary = directory / source.stem
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, "-std=c++20", "-O2", "-pthread", "-o", binary, source], check=True)
        binary.chmod(0o755)
    return binary


class Host:
    """Directories of one run. State files live on tmpfs: on a disk, a write to a mapped page may wait for the journal, and a
    pause would be seen that the tool did not make."""

    def __init__(self, directory, user):
        become_subreaper()
        self.user = user
        self.dir = directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self.images = pathlib.Path(tempfile.mkdtemp(prefix="images-", dir=directory))
        self.states = pathlib.Path(tempfile.mkdtemp(prefix="stasis-bench-", dir="/dev/shm"))
        for made in (self.images, self.states):
            made.chmod(0o755)
            if user:
                os.chown(made, user.pw_uid, user.pw_gid)

    def close(self):
        shutil.rmtree(self.images, ignore_errors=True)
        shutil.rmtree(self.states, ignore_errors=True)


def processes_of(workload, state):
    """The processes of the program that has this state file, the newest first."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == str(workload).encode() and str(state).encode() in words:
                found.append(int(entry))
    return sorted(found, reverse=True)


def timed(workload, command, log_path, user=None, env=None, keep_output=True):
    """Runs a command to its end through `workload timed`, which adds less than Python would, and reports it. Its output goes
    to files: a pipe would stay open as long as something that the command left in the background."""
    read, write = os.pipe()
    prefix = [str(workload), "timed"] + (["--user", f"{user.pw_uid}:{user.pw_gid}"] if user else []) + ["--"]
    words = [shlex.quote(str(word)) for word in prefix + list(command)]
    with open(log_path, "wb") as error, tempfile.TemporaryFile() as output:
        if user:
            os.fchown(error.fileno(), user.pw_uid, user.pw_gid)  # a program keeps it, and opens it again at a restart
        process = subprocess.Popen(["/bin/sh", "-c", f"exec {' '.join(words)} 3>&{write}"], cwd="/", env=env,
                                   stdin=subprocess.DEVNULL, stdout=output if keep_output else subprocess.DEVNULL,
                                   stderr=error, pass_fds=[write], start_new_session=True)
        os.close(write)
        try:
            process.wait(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(read)
            raise Failed(f"{pathlib.Path(str(command[0])).name} {command[1]}: not done after {COMMAND_SECONDS} s") from None
        output.seek(0)
        text = output.read().decode(errors="replace")
    with os.fdopen(read) as pipe:
        result = json.loads(pipe.readline())
    result["output"] = text
    result["wall_ms"] = result.pop("wall_ns") / 1e6
    if result["status"] != 0:
        said = pathlib.Path(log_path).read_text(errors="replace")[-600:]
        shown = " ".join(pathlib.Path(str(word)).name for word in command)
        raise Failed(f"{shown}: status {result['status']}: {said.strip()}")
    return result


class Tool:
    name = "?"

    def __init__(self, host, workload):
        self.host = host
        self.workload = workload
        self.count = 0

    def fresh_name(self):
        self.count += 1
        return f"{self.name}-{self.count}"

    def kill_program(self, state):
        """Kills it and returns when its pids are free again: a zombie's number cannot be restored."""
        deadline = time.monotonic() + 60
        killed = set()
        while True:
            alive = processes_of(self.workload, state.path)
            killed.update(alive)
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.reap()
            if not alive and not any(os.path.exists(f"/proc/{pid}") for pid in killed):
                return
            if time.monotonic() > deadline:
                raise Failed("the program does not die")
            time.sleep(0.01)

    def reap(self):
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            pass


class Stasis(Tool):
    name = "stasis"

    def __init__(self, host, workload, binary):
        super().__init__(host, workload)
        # A copy that every user can read and execute, whatever the modes of the tree it was built in.
        self.binary = host.images / "stasis"
        shutil.copy(os.path.realpath(binary), self.binary)
        self.binary.chmod(0o755)
        self.home = host.images / "home"
        self.home.mkdir()
        if host.user:
            os.chown(self.home, host.user.pw_uid, host.user.pw_gid)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "STASIS_HOME": str(self.home)}

        usage = subprocess.run([self.binary, "restart", "--help"], capture_output=True, text=True).stdout
        self.restart_json = ["--json"] if "--json" in usage else []

    def describe(self):
        version = subprocess.run([self.binary, "--version"], capture_output=True, text=True).stdout.strip()
        commit = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True)
        return f"{version or 'stasis'} ({commit.stdout.strip() or 'no commit'})"

    def command(self, *words, log_path=None, **options):
        return timed(self.workload, [self.binary, *words], log_path or self.host.images / "stasis.log", self.host.user,
                     self.env, **options)

    def start(self, row, state):
        session = self.fresh_name()
        # The program keeps this file as its standard error, so it is of no other command. The file of ticks is how
        # we watch it, not what it works on: a restart must not put it back.
        self.command("launch", "--name", session, "--files=none", "--background", "--", self.workload, *row.arguments(state.path),
                     log_path=self.host.images / f"{session}.log", keep_output=False)
        return session

    @staticmethod
    def engine_figures(said):
        return {key[:-3] + "_ms": value / 1e6 for key, value in said.items() if key.endswith("_ns")}

    def checkpoint(self, session):
        result = self.command("checkpoint", session, "--json", "--full")  # bench/increment measures the others
        said = json.loads(result["output"])
        result["engine"] = self.engine_figures(said)
        result["image"] = pathlib.Path(said["directory"])
        return result

    def finish_on_disk(self, result):
        return 0.0  # checkpoint returns when the image is on disk

    def restart(self, session, image, memory="mapped"):
        result = self.command("restart", session, "--background", f"--memory={memory}", *self.restart_json)
        result["engine"] = self.engine_figures(json.loads(result["output"])) if self.restart_json else {}
        return result

    def beside_rss_kib(self, state):
        """Peak RSS of what stays beside the program: its ancestors, up to what is not ours."""
        ours = {1, os.getpid()}
        peak, pid = 0, processes_of(self.workload, state.path)[-1]
        while pid not in ours:
            status = dict(line.split(":", 1) for line in pathlib.Path("/proc", str(pid), "status").read_text().splitlines())
            if pathlib.Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")[0] != str(self.workload).encode():
                peak = max(peak, int(status["VmHWM"].split()[0]))
            pid = int(status["PPid"])
        return peak

    def stop(self, session, state):
        self.kill_program(state)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            listed = self.command("ps", "--json")["output"]
            if not any(entry["name"] == session and entry.get("state") == "running" for entry in json.loads(listed)):
                return
            time.sleep(0.02)
        raise Failed("stasis ps lists a session that has ended")

    def forget(self, session, image):
        if image:
            shutil.rmtree(image, ignore_errors=True)


class Criu(Tool):
    name = "criu"

    def __init__(self, host, workload):
        super().__init__(host, workload)
        root = pathlib.Path(os.environ.get("STASIS_CRIU_DIR", "/var/tmp/stasis-criu"), "root")
        # As bench/criu does, without the shell.
        self.criu = [root / "lib64/ld-linux-x86-64.so.2", "--library-path", root / "usr/lib/x86_64-linux-gnu",
                     root / "usr/sbin/criu"]

    @staticmethod
    def missing():
        if os.geteuid() != 0:
            return "it needs root"
        check = subprocess.run([HERE / "criu", "check"], capture_output=True, text=True)
        return None if check.returncode == 0 else "run bench/criu-chroot first (" + check.stderr.strip()[-200:] + ")"

    def describe(self):
        out = subprocess.run([HERE / "criu", "--version"], capture_output=True, text=True).stdout
        return "CRIU " + out.split()[1]

    def start(self, row, state):
        # A session of its own and no terminal: what CRIU saves without further options.
        process = subprocess.Popen([self.workload, *row.arguments(state.path)], start_new_session=True, cwd="/",
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return process.pid

    def checkpoint(self, pid):
        image = self.host.images / self.fresh_name()
        image.mkdir()
        result = timed(self.workload, [*self.criu, "dump", "--tree", pid, "--images-dir", image, "--leave-running",
                                       "-v1"], self.host.images / "criu.log")
        result["image"] = image
        result["engine"] = {}
        return result

    def finish_on_disk(self, result):
        """CRIU does not sync. Milliseconds until its image is as safe as ours."""
        fd = os.open(result["image"], os.O_RDONLY)
        start = time.monotonic()
        # One for all: hundreds of files synced one by one would be hundreds of journal commits.
        ctypes.CDLL(None).syncfs(fd)
        took = (time.monotonic() - start) * 1e3
        os.close(fd)
        return took

    def restart(self, pid, image, memory="eager"):
        result = timed(self.workload, [*self.criu, "restore", "--images-dir", image, "--restore-detached", "-v1"],
                       self.host.images / "criu.log")
        result["engine"] = {}
        return result

    def beside_rss_kib(self, state):
        return 0

    def stop(self, pid, state):
        self.kill_program(state)

    def forget(self, pid, image):
        if image:
            shutil.rmtree(image, ignore_errors=True)
