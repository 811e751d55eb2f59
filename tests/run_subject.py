#!/usr/bin/python3
"""Runs subject programs under stasis and judges them.

    run_subject.py --build build                          every subject, every mode, a summary at the end
    run_subject.py --build build pipes                    the cases of one program
    run_subject.py --build build pipes/full --modes restart -v
    run_subject.py --build build --self-test              the liars must be found out

Modes: control (no checkpoint), continue (checkpoint, the program goes on), restart (checkpoint --stop, restart),
generations (that three times, or --generations), eager (restart --memory=eager), clones (the same checkpoint restarted twice at once).
"""
import argparse
import atexit
import concurrent.futures
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import outside  # noqa: E402

BUSY, SLOW, MAY_REFUSE, ONE_RUN, LIAR, TIMED, OWN_NETWORK = 1, 2, 4, 8, 16, 64, 128
MODES = ["control", "continue", "restart", "generations", "eager", "clones"]
REFUSALS = (4, 5, 8)
BEING_WORKED_ON = 6


class Failure(Exception):
    pass


class Skipped(Exception):
    pass


def echo_server():
    """Stands for the outside: a peer that no checkpoint contains. Returns its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                pass

    def serve():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class Stasis:
    """The command, with the state of one test in a directory of its own, perhaps as another user."""

    def __init__(self, binary, home, user=None, timeout=60):
        self.binary, self.user, self.timeout = str(binary), user, timeout
        self.env = dict(os.environ, STASIS_HOME=str(home), LC_ALL="C")
        self.env.pop("XDG_RUNTIME_DIR", None)
        self.log = []

    def line(self, args, program=None):
        """The command line, of stasis or another program, as the user of the test."""
        line = [str(program or self.binary)] + [str(a) for a in args]
        if self.user:
            keep = [f"{k}={v}" for k, v in self.env.items() if k in ("STASIS_HOME", "PATH", "LC_ALL") or k.startswith("SUBJECT_")]
            line = ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups",
                    "--inh-caps=-all", "env", "-i", f"HOME={self.user.pw_dir}"] + keep + line
        return line

    def run(self, *args, timeout=None):
        """Returns (exit status, stdout); what it said goes to the log of the test."""
        started = time.monotonic()
        try:
            done = subprocess.run(self.line(args), env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, errors="replace", timeout=timeout or self.timeout)
        except subprocess.TimeoutExpired as late:
            self.log.append(f"$ stasis {' '.join(map(str, args))}\n{late.stdout or ''}{late.stderr or ''}TIMEOUT")
            raise Failure(f"stasis {args[0]} did not return within {timeout or self.timeout} s")
        took = (time.monotonic() - started) * 1000
        shown = "" if args[0] == "ps" else done.stdout
        self.log.append(f"$ stasis {' '.join(map(str, args))}   -> {done.returncode}, {took:.0f} ms\n"
                        f"{shown}{done.stderr}".rstrip())
        return done.returncode, done.stdout

    def start(self, *args, output):
        self.log.append(f"$ stasis {' '.join(map(str, args))} &")
        return subprocess.Popen(self.line(args), env=self.env, stdin=subprocess.DEVNULL, stdout=output,
                                stderr=output, start_new_session=True)

    def session(self, name):
        status, text = self.run("ps", "--json")
        self.log.pop()
        if status != 0:
            raise Failure(f"stasis ps exits with {status}")
        try:
            for session in json.loads(text or "[]"):
                if session["name"] == name:
                    return session
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(f"stasis ps --json is no array of sessions: {error}: {text[:200]}")
        return None


class Run:
    """One case in one mode."""

    def __init__(self, options, program, case, traits, mode, user):
        self.options, self.program, self.case, self.traits, self.mode = options, program, case, traits, mode
        self.user = user
        self.top = pathlib.Path(tempfile.mkdtemp(prefix=f"subject-{case[:20]}-", dir=options.scratch))
        self.home, self.dir = self.top / "home", self.top / "dir"
        for directory in (self.home, self.dir):
            directory.mkdir()
        self.output_path = self.top / "output"
        self.output = open(self.output_path, "ab", buffering=0)
        os.chmod(self.top, 0o755)  # a subject may become another user
        if user:
            for place in (self.home, self.dir, self.output_path):
                os.chown(place, user.pw_uid, user.pw_gid)
        self.stasis = Stasis(options.stasis, self.home, user, options.timeout)
        self.stasis.env.update(SUBJECT_DIR=str(self.dir), SUBJECT_PEER_PORT=str(options.peer_port))
        self.foreground = None  # what stands for the program: its exit status is the program's
        self.name = "s"

    # --- waiting

    def wait_until(self, what, done, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done():
                return
            if self.foreground.poll() is not None:
                if done():
                    return
                if self.foreground.returncode == 77:
                    raise Skipped()
                raise Failure(f"ended with status {self.foreground.returncode} instead of: {what}")
            time.sleep(0.003)
        raise Failure(f"waited {seconds} s in vain: {what}")

    def ping(self, after):
        (self.dir / "ping").touch()
        self.wait_until(f"the program runs {after}", lambda: not (self.dir / "ping").exists(), self.options.timeout)

    def look(self):
        """What is seen of the program from outside."""
        if self.traits & BUSY or not self.options.outside:
            return None
        session = self.stasis.session(self.name)
        if session is None:
            raise Failure(f"stasis ps does not show session {self.name}")
        return outside.look(session["processes"])

    def compare(self, before, after):
        if before is None:
            return
        differences = outside.compare(before, after)
        if differences:
            raise Failure("differs from outside:\n  " + "\n  ".join(differences[:20]))

    # --- steps

    def launch(self):
        if self.mode == "control" and self.options.bare:
            self.foreground = subprocess.Popen(self.stasis.line([self.case], self.program), env=self.stasis.env,
                                               stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
                                               start_new_session=True)
        else:
            flags = ["--net=private"] if self.traits & OWN_NETWORK else []
            self.foreground = self.stasis.start("launch", "--name", self.name, *flags, "--", self.program, self.case,
                                                output=self.output)
        self.wait_until("the program is ready", (self.dir / "ready").exists, self.options.timeout)

    def checkpoint(self, *flags):
        # A restart in the foreground tells nobody when it has let go of the session: the program runs a moment before.
        for _ in range(40):
            status, _ = self.stasis.run("checkpoint", self.name, *flags)
            if status != BEING_WORKED_ON:
                break
            time.sleep(0.05)
        if status == 0:
            return True
        if status in REFUSALS and self.traits & MAY_REFUSE:
            return False
        raise Failure(f"stasis checkpoint exits with {status}")

    def restart(self, *flags):
        stopped = self.foreground
        try:
            stopped.wait(self.options.timeout)
        except subprocess.TimeoutExpired:
            raise Failure("checkpoint --stop left the foreground launch running")
        (self.dir / "restarted").touch()
        self.foreground = self.stasis.start("restart", self.name, *flags, output=self.output)
        self.ping("after the restart")

    def verify(self):
        (self.dir / "go").touch()
        try:
            status = self.foreground.wait(self.options.timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"did not finish verifying within {self.options.timeout} s")
        if status == 77:
            raise Skipped()
        if status != 0:
            raise Failure(f"the program ended with status {status}")

    def generation(self, *flags):
        """False when the checkpoint was refused as it may be: the program must be unharmed."""
        before = self.look()
        if not self.checkpoint("--stop"):
            self.ping("after the refusal")
            return False
        self.restart(*flags)
        self.compare(before, self.look())
        return True

    def clones(self):
        """The same checkpoint twice at the same time, under two names; each verifies."""
        if not self.checkpoint("--stop"):
            return
        self.foreground.wait(self.options.timeout)
        # Both see the same files, so they are told to go before they start, and neither is pinged.
        (self.dir / "go").touch()
        both = [self.stasis.start("restart", self.name, "--name", f"clone{i}", output=self.output) for i in (1, 2)]
        try:
            for clone in both:
                status = clone.wait(self.options.timeout)
                if status not in (0, 77):
                    raise Failure(f"a clone ended with status {status}")
        except subprocess.TimeoutExpired:
            raise Failure("a clone did not finish")
        finally:
            for clone in both:
                if clone.poll() is None:
                    clone.kill()
                clone.wait()

    def steps(self):
        self.launch()
        if self.mode == "clones":
            self.clones()
            return
        self.ping("before anything is done")
        if self.mode == "continue":
            before = self.look()
            for _ in range(2):
                self.checkpoint()
                self.ping("after the checkpoint")
            self.compare(before, self.look())
        elif self.mode == "restart":
            self.generation()
        elif self.mode == "eager":
            self.generation("--memory=eager")
        elif self.mode == "generations":
            for _ in range(self.options.generations):
                if not self.generation():
                    break
        self.verify()

    def judge(self):
        """Returns (verdict, story)."""
        started = time.monotonic()
        try:
            self.steps()
            verdict, story = "pass", ""
        except Skipped:
            verdict, story = "skip", self.said().replace("SKIP: ", "").strip().splitlines()[-1:]
            story = story[0] if story else ""
        except Failure as failure:
            verdict, story = "fail", str(failure)
        except Exception as error:  # a fault of the runner is a failure of the test
            verdict, story = "fail", f"{type(error).__name__}: {error}"
        self.clean_up()
        self.seconds = time.monotonic() - started
        if verdict == "fail":
            story += "".join(f"\n  | {line}" for line in self.said().splitlines()[-40:])
            story += "".join(f"\n  : {line}" for entry in self.stasis.log for line in entry.splitlines()[-25:])
        if not self.options.keep:
            self.output.close()
            shutil.rmtree(self.top, ignore_errors=True)
        return verdict, story

    def said(self):
        return self.output_path.read_text(errors="replace")

    def clean_up(self):
        """Ends everything of this run that is still there, found by the directory in its environment."""
        for _ in range(3):
            left = outside.having_in_environment(f"SUBJECT_DIR={self.dir}")
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if not left:
                break
            time.sleep(0.01)
        if self.foreground:
            if self.foreground.poll() is None:
                self.foreground.kill()
            self.foreground.wait()


def make_reachable(options):
    """Copies the command and the subjects to where an ordinary user may go: the build tree may be in root's home."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="subjects-", dir=options.scratch))
    os.chmod(place, 0o755)
    if options.stasis.exists():
        options.stasis = pathlib.Path(shutil.copy(options.stasis, place / "stasis"))
    (place / "tests" / "subjects").mkdir(parents=True)
    for program in programs_of(options):
        if not options.subjects or any(w.split("/")[0] == program.name for w in options.subjects):
            shutil.copy(program, place / "tests" / "subjects")
    options.build = place
    return place


def programs_of(options):
    directory = options.build / "tests" / "subjects"
    if not directory.is_dir():
        sys.exit(f"{directory}: no subjects; build them first")
    return sorted(p for p in directory.iterdir() if p.is_file() and os.access(p, os.X_OK) and "." not in p.name)


def cases_of(program):
    listed = subprocess.run([str(program), "--list"], capture_output=True, text=True, timeout=20)
    if listed.returncode != 0:
        sys.exit(f"{program} --list exits with {listed.returncode}: {listed.stderr}")
    return [(name, int(traits)) for name, traits in (line.split() for line in listed.stdout.splitlines())]


def wanted(options):
    """(program, case, traits, mode) for all that is asked for."""
    for program in programs_of(options):
        for case, traits in cases_of(program):
            if bool(traits & LIAR) != options.self_test:
                continue
            name = f"{program.name}/{case}"
            if options.subjects and not any(w in (program.name, name) for w in options.subjects):
                continue
            for mode in options.modes:
                if mode == "generations" and traits & ONE_RUN:
                    continue
                if mode == "clones" and not options.clones_of_all and not case.startswith("private_"):
                    continue
                if traits & SLOW and mode in options.skip_slow:
                    continue
                yield program, case, traits, mode


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", help="PROGRAM or PROGRAM/CASE; all when none is named")
    parser.add_argument("--all", action="store_true", help="all subjects (the default)")
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--stasis", type=pathlib.Path, help="the command (default: BUILD/stasis)")
    parser.add_argument("--modes", default=",".join(MODES), type=lambda s: s.split(","))
    parser.add_argument("--skip-slow", default="generations,eager,clones", type=lambda s: s.split(","),
                        help="modes without the large subjects")
    parser.add_argument("--as-user", help="run everything as this ordinary user")
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 2) * 2, help="cases at the same time")
    parser.add_argument("--generations", type=int, default=3, help="how many in the mode of that name")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for each step")
    parser.add_argument("--scratch", default=os.environ.get("STASIS_TEST_SCRATCH", "/var/tmp"))
    parser.add_argument("--bare", action="store_true", help="control without stasis: tests the subjects")
    parser.add_argument("--no-outside", dest="outside", action="store_false", help="do not compare from outside")
    parser.add_argument("--clones-of-all", action="store_true")
    parser.add_argument("--self-test", action="store_true", help="run the liars; all must be reported as failed")
    parser.add_argument("--keep", action="store_true", help="keep the directories of the runs")
    parser.add_argument("--failures", type=pathlib.Path, help="write the stories of the failures to this file")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    options.build = options.build.resolve()
    options.stasis = (options.stasis or options.build / "stasis").resolve()
    unknown = [m for m in options.modes if m not in MODES]
    if unknown:
        parser.error(f"no such mode: {unknown[0]}")
    if options.self_test:
        options.timeout = min(options.timeout, 4)
    return options


def known_limits():
    """PROGRAM/CASE or PROGRAM/CASE[MODE] -> why it fails today: what the engine does not keep yet, each said by docs/support.md as well."""
    limits = {}
    for line in (pathlib.Path(__file__).parent / "known_limits.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, reason = line.split(None, 1)
            limits[name] = reason
    return limits


def main():
    options = arguments()
    limits = known_limits()
    user = None
    if options.as_user and pwd.getpwnam(options.as_user).pw_uid != os.getuid():
        if os.getuid() != 0:
            sys.exit("--as-user needs root")
        user = pwd.getpwnam(options.as_user)

    options.peer_port = echo_server()
    if user and not outside.open_to_all(options.stasis):
        atexit.register(shutil.rmtree, make_reachable(options), True)
    counts, failures, seconds = {"pass": 0, "skip": 0, "fail": 0, "limit": 0}, [], time.monotonic()

    def one(item):
        run = Run(options, *item, user)
        result = run.judge()
        if result[0] == "fail" and item[2] & TIMED and not options.self_test:
            # Once more, and said: machines stand still for a second now and then, and this subject measures time.
            # Of any other subject a failure that comes and goes is a race, and what the tests are for.
            print(f"again {item[0].name}/{item[1]} [{item[3]}]: {result[1].splitlines()[0]}", flush=True)
            run = Run(options, *item, user)
            result = run.judge()
        return item, run, result

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for (program, case, _, mode), run, (verdict, story) in pool.map(one, list(wanted(options))):
            if options.self_test:
                verdict = "pass" if verdict == "fail" else "fail"
            name = f"{program.name}/{case} [{mode}]"
            reason = limits.get(f"{program.name}/{case}") or limits.get(f"{program.name}/{case}[{mode}]")
            if verdict == "pass" and reason and mode == "restart" and not run.traits & MAY_REFUSE:
                print(f"no limit any more? {name}: {reason}", flush=True)
            if verdict == "fail" and reason:
                verdict = "limit"
                print(f"known limit {name}: {reason}", flush=True)
            counts[verdict] += 1
            if verdict == "fail":
                failures.append((name, story))
                print(f"FAIL {name} ({run.seconds:.1f} s): {story}", flush=True)
            elif options.verbose or (verdict == "skip" and mode == options.modes[0]):
                print(f"{verdict:4} {name} ({run.seconds:.2f} s) {story if verdict == 'skip' else ''}", flush=True)
    seconds = time.monotonic() - seconds
    summary = f"{counts['pass']} passed, {counts['skip']} skipped, {counts['fail']} failed, " \
              f"{counts['limit']} known limits in {seconds:.0f} s"
    print(summary)
    if options.failures:
        lines = [summary] + [f"{name}: {story.splitlines()[0] if story else ''}" for name, story in failures]
        options.failures.write_text("\n".join(lines) + "\n\n" +
                                    "\n\n".join(f"=== {name}\n{story}" for name, story in failures) + "\n")
    if not sum(counts.values()):
        print("nothing was run")
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
