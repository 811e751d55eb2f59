#!/usr/bin/python3
"""A program under `stasis launch` behaves as it would alone, and needs nobody."""
import json
import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

from harness import ProgramTest, Terminal, find_program, wait_for

PYTHON = "/usr/bin/python3"


class LaunchTest(ProgramTest):
    def start(self, *args, **more):
        """`stasis launch ARGS` in the foreground, in pipes unless told otherwise."""
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        process = subprocess.Popen(self.box.line([self.box.binary, "launch", *args]), env=self.box.env,
                                   cwd=self.box.dir, **more)
        self.addCleanup(self.finish, process)
        return process

    @staticmethod
    def finish(process):
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    def outcome(self, *args, text=None):
        process = self.start(*args, stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL)
        out, err = process.communicate(text, timeout=30)
        return process.returncode, out, err

    def alive(self, name):
        return self.box.session(name) is not None

    def record(self, name):
        return self.box.home / "sessions" / name / "session.json"


class ExitStatus(LaunchTest):
    def test_code(self):
        self.assertEqual(self.outcome("--", "sh", "-c", "echo out; echo err >&2; exit 7"), (7, b"out\n", b"err\n"))

    def test_signal(self):
        self.assertEqual(self.outcome("--", "sh", "-c", "kill -TERM $$")[0], -signal.SIGTERM)
        self.assertEqual(self.outcome("--", "sh", "-c", "kill -SEGV $$")[0], -signal.SIGSEGV)
        self.assertEqual(self.outcome("--", "sh", "-c", "kill -KILL $$")[0], -signal.SIGKILL)

    def test_without_dashes(self):
        self.assertEqual(self.outcome("sh", "-c", "exit 3")[0], 3)

    def test_dashes_of_the_program(self):
        self.assertEqual(self.outcome("--", "echo", "-n", "--", "x")[1], b"-- x")

    def test_not_found(self):
        code, _, err = self.outcome("--name", "none", "--", "/no/such/program")
        self.assertEqual(code, 127)
        self.assertEqual(err, b"stasis: run /no/such/program: No such file or directory\n")
        self.assertFalse(self.record("none").exists())
        self.assertEqual(self.outcome("--background", "--name", "none", "--", "/no/such/program")[0], 127)
        self.assertFalse(self.record("none").parent.exists())

    def test_not_executable(self):
        path = self.box.write("plain", "text", mode=0o644)
        code, _, err = self.outcome("--", str(path))
        self.assertEqual(code, 126)
        self.assertIn(b"Permission denied", err)

    def test_usage(self):
        self.assertEqual(self.outcome()[0], 2)
        self.assertEqual(self.outcome("--nonsense")[0], 2)
        self.assertEqual(self.outcome("--interval", "soon", "--", "true")[0], 2)

    def test_root_ends_before_the_others(self):
        code, _, _ = self.outcome("--name", "early", "--", "sh", "-c", "sleep 300 </dev/null >/dev/null 2>&1 & exit 4")
        self.assertEqual(code, 4)
        processes = self.box.session("early")["processes"]
        self.assertEqual([p["comm"] for p in processes], ["sleep"])
        self.box.stasis("signal", "early", "TERM", "--pid", str(processes[0]["pid"]))
        wait_for("the session ends with its last process", lambda: not self.alive("early"))


class Streams(LaunchTest):
    def test_pipe_in_and_out(self):
        text = os.urandom(1 << 20)
        self.assertEqual(self.outcome("--", "cat", text=text), (0, text, b""))

    def test_reader_goes_away(self):
        # sh reports what became of the command before the pipe.
        script = f"({self.box.binary} launch -- yes; echo $? >&2) | head -1"
        done = self.box.run("sh", "-c", script)
        self.assertEqual((done.stdout, done.stderr), ("y\n", "141\n"))

    def test_supervisor_holds_no_pipe(self):
        reader, writer = os.pipe()
        process = self.start("--", "sh", "-c", "echo x; exec >&-; sleep 300", stdout=writer)
        os.close(writer)
        self.assertEqual(os.read(reader, 10), b"x\n")
        self.assertEqual(os.read(reader, 10), b"")  # the end, though the command still runs
        self.assertIsNone(process.poll())
        os.close(reader)

    def test_other_descriptors_are_inherited(self):
        reader, writer = os.pipe()
        process = self.start("--", "sh", "-c", f"echo deep >&{writer}", pass_fds=[writer])
        os.close(writer)
        process.wait(30)
        self.assertEqual(os.read(reader, 10), b"deep\n")
        self.assertEqual(os.read(reader, 10), b"")
        os.close(reader)

    def test_nothing_of_ours_is_open_in_the_program(self):
        script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
        code, out, _ = self.outcome("--", PYTHON, "-c", script)
        self.assertEqual((code, out), (0, b"[0, 1, 2, 3]\n"))  # 3 is the listing itself

    def test_closed_streams(self):
        done = self.box.run("sh", "-c", f"{self.box.binary} launch -- sh -c 'echo ok >&2' <&- >&-")
        self.assertEqual(done.stderr, "ok\n")

    def test_surroundings(self):
        script = f"cd /usr; umask 027; ulimit -n 99; {self.box.binary} launch -- sh -c 'pwd; umask; ulimit -n; echo $X'"
        done = self.box.run("env", "X=1", "sh", "-c", script)
        self.assertEqual(done.stdout, "/usr\n0027\n99\n1\n")


class Signals(LaunchTest):
    HANDLER = ("import os, signal\n"
               "def seen(number, frame): os.write(1, signal.Signals(number).name.encode() + b'\\n')\n"
               "for s in 'INT TERM HUP QUIT USR1 USR2 ALRM CONT TSTP'.split():\n"
               "    signal.signal(getattr(signal, 'SIG' + s), seen)\n"
               "print('ready', flush=True)\n"
               "while True: signal.pause()\n")

    def test_forwarded(self):
        process = self.start("--name", "sig", "--", PYTHON, "-c", self.HANDLER)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        for name in "INT TERM HUP QUIT USR1 USR2 ALRM CONT TSTP".split():
            process.send_signal(getattr(signal, "SIG" + name))
            self.assertEqual(process.stdout.readline(), f"SIG{name}\n".encode())
        self.box.stasis("signal", "sig", "SIGKILL")
        self.assertEqual(process.wait(30), -signal.SIGKILL)

    def test_default_action(self):
        process = self.start("--name", "sig", "--", "sleep", "300")
        wait_for("it runs", lambda: self.alive("sig"))
        process.terminate()
        self.assertEqual(process.wait(30), -signal.SIGTERM)
        self.assertFalse(self.alive("sig"))

    def test_stop_and_continue(self):
        process = self.start("--name", "sig", "--", "sleep", "300")
        wait_for("it runs", lambda: self.alive("sig"))
        process.send_signal(signal.SIGTSTP)
        wait_for("both stop", lambda: self.box.session("sig")["state"] == "stopped"
                 and Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T")
        process.send_signal(signal.SIGCONT)
        wait_for("it goes on", lambda: self.box.session("sig")["state"] == "running")

    def test_dispositions_are_inherited(self):
        for wish in ("SIG_IGN", "SIG_DFL"):
            script = ("import signal, os, sys\n"
                      f"signal.signal(signal.SIGHUP, signal.{wish}); signal.signal(signal.SIGCHLD, signal.{wish})\n"
                      "signal.signal(signal.SIGPIPE, signal.SIG_DFL); signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
                      "signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGUSR1])\n"
                      "os.execv(sys.argv[1], sys.argv[1:])")
            show = ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]
            alone = self.box.run(PYTHON, "-c", script, "/bin/" + show[0], *show[1:])
            ours = self.box.run(PYTHON, "-c", script, self.box.binary, "launch", "--", *show)
            self.assertEqual(ours.stdout, alone.stdout)

    def test_names(self):
        process = self.start("--name", "sig", "--", PYTHON, "-c", self.HANDLER)
        process.stdout.readline()
        for text in ("USR1", "sigusr1", str(int(signal.SIGUSR1))):
            self.box.stasis("signal", "sig", text)
            self.assertEqual(process.stdout.readline(), b"SIGUSR1\n")
        self.assertEqual(self.box.stasis("signal", "sig", "NONSENSE", check=False).returncode, 2)
        self.assertEqual(self.box.stasis("signal", "sig", "TERM", "--pid", "999", check=False).returncode, 3)
        self.assertEqual(self.box.stasis("signal", "nobody", "TERM", check=False).returncode, 3)


class Independence(LaunchTest):
    COUNTER = "i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.01; done"

    def counts(self):
        def count():
            return int((self.box.dir / "count").read_text() or 0)
        before = wait_for("it counts", lambda: (self.box.dir / "count").exists() and count())
        wait_for("it goes on", lambda: count() > before + 5)

    def test_supervisor_is_killed(self):
        process = self.start("--name", "free", "--", "sh", "-c", self.COUNTER)
        self.counts()
        process.kill()
        process.wait()
        self.counts()
        self.assertEqual(len(self.box.session("free")["processes"]) >= 1, True)
        self.box.stasis("signal", "free", "KILL", "--all")
        wait_for("it ends", lambda: not self.alive("free"))

    def test_supervisor_is_killed_at_a_terminal(self):
        terminal = Terminal(self.box, "launch", "--name", "free", "--", "sh", "-c",
                            "i=0; while :; do i=$((i+1)); echo count $i; echo $i > count; sleep 0.001; done")
        terminal.expect("count 3")
        terminal.process.kill()
        terminal.end()
        # Long enough to fill the terminal's buffer many times, if nobody read it.
        self.counts()
        again = Terminal(self.box, "attach", "free")
        first = int(again.expect(r"count (\d+)\r\n").group(1))
        again.expect(f"count {first + 1}\r\n")
        again.send("\x1d")
        self.assertEqual(again.end(), 0)
        self.counts()

    def test_killed_while_starting(self):
        for delay in range(0, 30):
            name = f"early{delay}"
            process = self.start("--name", name, "--", "sleep", "300")
            time.sleep(delay / 2000)
            process.kill()
            process.wait()

            def all_or_nothing():
                session = self.box.session(name)
                return not session or [p["comm"] for p in session["processes"]] == ["sleep"]
            wait_for("the program runs, or nothing is left", all_or_nothing, 5)
            if self.alive(name):
                self.box.stasis("signal", name, "KILL")

    def test_pkill_does_not_hit_init(self):
        self.box.stasis("launch", "--name", "hidden", "--background", "--", "sleep", "300", stdout=subprocess.DEVNULL)
        init = json.loads(self.record("hidden").read_text())["init_pid"]
        with open(f"/proc/{init}/cmdline", "rb") as text:
            self.assertNotIn(b"stasis", text.read())
        with open(f"/proc/{init}/comm") as text:
            self.assertEqual(text.read(), "init\n")

    def test_init_holds_nothing_of_the_program(self):
        self.box.stasis("launch", "--name", "bare", "--background", "--", "sleep", "300", stdout=subprocess.DEVNULL)
        init = json.loads(self.record("bare").read_text())["init_pid"]
        links = [os.readlink(f"/proc/{init}/fd/{fd}") for fd in os.listdir(f"/proc/{init}/fd")]
        self.assertEqual(links.count("/dev/null"), 3, links)
        self.assertEqual(os.readlink(f"/proc/{init}/cwd"), "/")
        self.assertFalse([link for link in links if link.endswith(".output")], links)

    def test_orphans_are_reaped(self):
        script = "for i in 1 2 3 4 5 6 7 8; do (sleep 0.01 &) ; done; sleep 0.5; ps -e -o stat= | grep -c Z"
        process = self.start("--name", "orphans", "--", "sh", "-c", script)
        self.assertEqual(process.communicate(timeout=30)[0], b"0\n")

    def test_own_pids_and_proc(self):
        code, out, _ = self.outcome("--", "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'; cat /proc/1/comm")
        self.assertEqual(code, 0)
        self.assertRegex(out, rb"^2\n[1-5]\ninit\n$")

    def test_ids_are_kept(self):
        code, out, _ = self.outcome("--", "id", "-u")
        self.assertEqual(int(out), self.box.user.pw_uid if self.box.user else os.getuid())


class Background(LaunchTest):
    def test_returns_though_output_is_a_pipe(self):
        code, out, err = self.outcome("--background", "--", "sleep", "300")
        self.assertEqual((code, out, err), (0, b"sleep\n", b""))
        code, out, _ = self.outcome("--background", "--", "sleep", "300")
        self.assertEqual((code, out), (0, b"sleep-2\n"))
        self.assertTrue(self.alive("sleep") and self.alive("sleep-2"))

    def test_files_are_kept(self):
        output = self.box.launch("files", "sh", "-c", "echo to a file; sleep 300")
        wait_for("it writes", lambda: "to a file\n" in output.read_text())

    def test_no_supervisor_is_left(self):
        self.outcome("--background", "--name", "alone", "--", "sleep", "300")
        init = json.loads(self.record("alone").read_text())["init_pid"]
        with open(f"/proc/{init}/stat") as text:
            parent = int(text.read().rsplit(")", 1)[1].split()[1])
        wait_for("the supervisor is gone", lambda: not Path(f"/proc/{parent}").exists()
                 or Path(f"/proc/{parent}/comm").read_text() != f"{self.box.binary.name[:15]}\n", 5)

    def test_names(self):
        self.outcome("--background", "--name", "mine", "--", "sleep", "300")
        code, _, err = self.outcome("--background", "--name", "mine", "--", "sleep", "300")
        self.assertEqual(code, 6, err)
        for bad in ("", "-x", ".x", "a/b", "a b", "x" * 65):
            if bad:
                self.assertEqual(self.outcome("--background", f"--name={bad}", "--", "true")[0], 2, bad)

    def test_name_is_free_again(self):
        self.assertEqual(self.outcome("--name", "mine", "--", "true")[0], 0)
        self.assertEqual(self.outcome("--name", "mine", "--", "sh", "-c", "exit 5")[0], 5)

    def test_modes(self):
        self.outcome("--background", "--name", "mine", "--", "sleep", "300")
        self.assertEqual(self.record("mine").stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.record("mine").parent.stat().st_mode & 0o777, 0o700)

    def test_long_state_directory(self):
        deep = self.box.dir / ("d" * 100) / ("e" * 100)
        self.box.env["STASIS_HOME"] = str(deep)
        self.assertEqual(self.outcome("--background", "--name", "deep", "--", "cat", text=b"")[0], 0)
        self.assertTrue((deep / "sessions" / "deep" / "terminal.sock").is_socket())
        self.box.stasis("signal", "deep", "KILL", "--all")
        wait_for("it ends", lambda: not self.alive("deep"))

    def test_daemon(self):
        """The first process exits at once, twice over; the session goes on."""
        script = ("import os, time\n"
                  "if os.fork(): os._exit(0)\n"
                  "os.setsid()\n"
                  "if os.fork(): os._exit(0)\n"
                  "time.sleep(300)\n")
        self.outcome("--background", "--name", "daemon", "--", PYTHON, "-c", script)
        wait_for("only the daemon is left", lambda: len(self.box.session("daemon")["processes"]) == 1)

    def test_ps(self):
        self.outcome("--background", "--name", "tree", "--", "sh", "-c", "sleep 300 & sleep 301; true")
        wait_for("it has children", lambda: len(self.box.session("tree")["processes"]) == 3)
        session = self.box.session("tree")
        self.assertEqual(session["state"], "running")
        self.assertEqual(session["processes"][0]["pid"], 2)
        for process in session["processes"]:
            with open(f"/proc/{process['host_pid']}/comm") as text:
                self.assertEqual(text.read().strip(), process["comm"])
        self.assertIn("tree", self.box.stasis("ps").stdout)


class AtATerminal(LaunchTest):
    def shell(self, *args):
        terminal = Terminal(self.box, "launch", *args, "--", find_program("bash"), "--norc", "--noprofile", "-i")
        terminal.send("PS1='prompt'\\>\\ ; bind 'set enable-bracketed-paste off'\n")
        terminal.expect("prompt> ")
        return terminal

    def test_shell(self):
        terminal = self.shell()
        terminal.send("tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo 'all ttys'\n")
        terminal.expect(r"/dev/pts/\d+\r\n24 80\r\nall ttys\r\n")
        terminal.send("exit 9\n")
        self.assertEqual(terminal.end(), 9)

    def test_job_control(self):
        terminal = self.shell()
        terminal.send("sleep 300\n")
        terminal.expect("sleep 300\r\n")
        time.sleep(0.2)
        terminal.send("\x1a")
        terminal.expect("Stopped")
        terminal.expect("prompt> ")
        terminal.send("fg\n")
        terminal.expect("sleep 300\r\n")
        time.sleep(0.2)
        terminal.send("\x03")
        terminal.expect("prompt> ")
        terminal.send("echo code $?\n")
        terminal.expect("code 130")

    def test_window_size(self):
        import fcntl
        import struct
        import termios
        terminal = self.shell()
        terminal.send("trap 'stty size' WINCH\n")
        terminal.expect("prompt> ")
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.send("\n")
        terminal.expect("33 111")

    def test_terminal_is_restored(self):
        import termios
        terminal = Terminal(self.box, "launch", "--name", "raw", "--", "sleep", "300")
        slave = os.open(os.readlink(f"/proc/{terminal.process.pid}/fd/0"), os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, slave)
        wait_for("it is raw", lambda: not termios.tcgetattr(slave)[3] & termios.ICANON)
        terminal.process.send_signal(signal.SIGTERM)
        self.assertEqual(terminal.process.wait(30), -signal.SIGTERM)
        self.assertTrue(termios.tcgetattr(slave)[3] & termios.ICANON)
        self.assertTrue(termios.tcgetattr(slave)[3] & termios.ECHO)

    def test_all_output_arrives(self):
        terminal = Terminal(self.box, "launch", "--", "sh", "-c", "seq 1 20000; echo the end")
        wait_for("the end", lambda: terminal.read(0.1) and terminal.seen.endswith("the end\r\n"))
        seen = terminal.seen
        expected = "".join(f"{n}\r\n" for n in range(1, 20001)) + "the end\r\n"
        self.assertTrue(seen == expected, f"{len(seen)} of {len(expected)} bytes; the last: {seen[-200:]!r}")
        self.assertEqual(terminal.end(), 0)

    def test_mixed_streams(self):
        """Only what is a terminal becomes the session's."""
        path = self.box.dir / "mixed"
        script = f"exec >{path}; test -t 1 || echo file; test -t 0 && echo tty"
        terminal = Terminal(self.box, "launch", "--", "sh", "-c", script)
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(path.read_text(), "file\ntty\n")


class Attach(LaunchTest):
    def test_background_shell(self):
        shell = ["bash", "--norc", "--noprofile", "-i"]
        code, _, err = self.outcome("--background", "--name", "bg", "--", *shell, text=b"")
        self.assertEqual(code, 0, err)
        terminal = Terminal(self.box, "attach", "bg", rows=31, columns=99)
        terminal.send("echo $((6*7)); stty size\n")
        terminal.expect("42\r\n31 99\r\n")
        terminal.send("\x1d")
        terminal.expect("detached")
        self.assertEqual(terminal.end(), 0)
        terminal = Terminal(self.box, "attach", "bg")
        terminal.send("exit 12\n")
        self.assertEqual(terminal.end(), 12)
        self.assertFalse(self.alive("bg"))

    def test_earlier_output(self):
        self.outcome("--background", "--name", "bg", "--", "sh", "-c", "seq 1 50000; echo last; sleep 300")
        time.sleep(0.5)
        terminal = Terminal(self.box, "attach", "bg", "--detach-key", "ctrl-a")
        terminal.expect("50000\r\nlast\r\n")
        terminal.send("\x01")
        self.assertEqual(terminal.end(), 0)

    def test_one_at_a_time(self):
        self.outcome("--background", "--name", "bg", "--", "cat", text=b"")
        first = Terminal(self.box, "attach", "bg")
        first.send("one\n")
        first.expect("one\r\none\r\n")
        second = Terminal(self.box, "attach", "bg")
        second.expect("somebody is attached")
        self.assertEqual(second.end(), 6)
        third = Terminal(self.box, "attach", "bg", "--steal")
        first.expect("taken by")
        self.assertEqual(first.end(), 0)
        third.send("three\n")
        third.expect("three\r\nthree\r\n")
        third.process.kill()
        third.end()
        fourth = Terminal(self.box, "attach", "bg")
        fourth.send("four\n")
        fourth.expect("four\r\nfour\r\n")

    def test_steal_from_the_foreground(self):
        terminal = Terminal(self.box, "launch", "--name", "fg", "--", "cat")
        terminal.send("a\n")
        terminal.expect("a\r\na\r\n")
        thief = Terminal(self.box, "attach", "fg", "--steal")
        terminal.expect("taken by")
        thief.send("b\n")
        thief.expect("b\r\nb\r\n")
        thief.send("\x04")
        self.assertEqual(thief.end(), 0)
        self.assertEqual(terminal.end(), 0)

    def test_no_terminal(self):
        self.box.launch("files", "sleep", "300")
        terminal = Terminal(self.box, "attach", "files")
        terminal.expect("no terminal")
        self.assertEqual(terminal.end(), 4)


if __name__ == "__main__":
    unittest.main()
