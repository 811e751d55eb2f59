#!/usr/bin/python3
"""Programs at a terminal. The terminal of launch is gone with its window; that of restart takes its place."""
import time
import unittest

from harness import ProgramTest, Terminal, find_program, wait_for


class Bash(ProgramTest):
    def start(self):
        self.box.write("rc", "PS1='prompt> '\nunset PROMPT_COMMAND\nbind 'set enable-bracketed-paste off' 2>/dev/null\n")
        terminal = Terminal(self.box, "launch", "--name", "bash", "--", find_program("bash"), "--noprofile", "--rcfile",
                            self.box.dir / "rc", "-i")
        terminal.expect("prompt> ")
        return terminal

    def move(self, terminal, rows=24, columns=80):
        self.box.save_and_kill("bash")
        terminal.end()
        terminal = Terminal(self.box, "restart", "bash", rows=rows, columns=columns)
        # Until then keys like ^Z are for the command that starts it, not for the program.
        wait_for("the program has the terminal", terminal.is_raw)
        return terminal

    def test_state_survives(self):
        terminal = self.start()
        terminal.send("x=4711; cd /usr; greet() { echo hello $1 $x; }\n")
        terminal.expect("prompt> ")
        terminal = self.move(terminal)
        terminal.send("greet there; pwd\n")
        terminal.expect("hello there 4711\r\n")
        terminal.expect("/usr\r\n")
        terminal.send("exit 7\n")
        self.assertEqual(terminal.end(), 7)

    def test_foreground_job_and_its_keys(self):
        terminal = self.start()
        terminal.send("sleep 1000\n")
        terminal.expect("sleep 1000\r\n")
        wait_for("the job runs", lambda: any(p["comm"] == "sleep" for p in self.box.session("bash")["processes"]))
        terminal = self.move(terminal)
        terminal.send("\x1a")  # ^Z: the terminal must know the job's group
        terminal.expect("Stopped")
        terminal.expect("prompt> ")
        terminal.send("jobs; kill %1; sleep 0.3\n")
        terminal.expect_after("\n", "Terminated")
        terminal.send("sleep 1000\n")
        terminal.expect("sleep 1000\r\n")
        time.sleep(0.2)
        terminal.send("\x03")  # ^C
        terminal.expect("prompt> ")
        terminal.send("echo code $?; exit 0\n")
        terminal.expect("code 130")
        self.assertEqual(terminal.end(), 0)

    def test_stopped_job_is_continued(self):
        terminal = self.start()
        # Not a shell: one that is stopped between vfork and exec of a command hangs, with us and without.
        terminal.send("/usr/bin/python3 -uc 'while not __import__(\"time\").sleep(0.1): print(\"tick\")'\n")
        terminal.expect("\ntick")  # not the echo of the command
        terminal.send("\x1a")
        terminal.expect("prompt> ")
        terminal = self.move(terminal)
        time.sleep(0.3)
        terminal.read(0.1)
        self.assertNotIn("tick", terminal.seen)
        terminal.send("fg\n")
        terminal.expect("tick\r\n.*tick\r\n.*tick")
        terminal.send("\x03")
        terminal.expect("prompt> ")
        terminal.send("exit 0\n")
        self.assertEqual(terminal.end(), 0)

    def test_line_half_typed(self):
        terminal = self.start()
        terminal.send("echo half a l")
        terminal.expect("half a l")
        terminal = self.move(terminal)
        terminal.send("ine\n")
        terminal.expect("half a line\r\n")
        terminal.send("exit 0\n")
        self.assertEqual(terminal.end(), 0)

    def test_size_of_the_new_terminal(self):
        terminal = self.start()
        terminal = self.move(terminal, rows=50, columns=132)
        terminal.send("stty size\n")
        terminal.expect("50 132")
        terminal.send("exit 0\n")
        self.assertEqual(terminal.end(), 0)

    def test_goes_on_after_a_checkpoint(self):
        terminal = self.start()
        for i in range(3):
            terminal.send(f"x{i}={i}\n")
            terminal.expect("prompt> ")
            self.box.stasis("checkpoint", "bash")
        terminal.send("echo $x0$x1$x2 $(echo sub)\n")
        terminal.expect("012 sub")
        terminal.send("exit 3\n")
        self.assertEqual(terminal.end(), 3)

    def test_three_terminals(self):
        terminal = self.start()
        for i in range(3):
            terminal.send(f"x{i}={i}{i}; echo set-$x{i}\n")
            terminal.expect(f"set-{i}{i}")
            terminal.expect("prompt> ")
            terminal = self.move(terminal)
        terminal.send("echo $x0-$x1-$x2\n")
        terminal.expect("00-11-22")
        terminal.send("exit 0\n")
        self.assertEqual(terminal.end(), 0)


class Editor(ProgramTest):
    def test_vi_keeps_what_is_not_saved(self):
        vi = find_program("vim.basic", "vim.tiny", "vim")
        self.box.write("text", "first line\n", 0o644)
        terminal = Terminal(self.box, "launch", "--name", "vi", "--", vi, "-u", "NONE", "text")
        terminal.expect("first line")
        terminal.send("ohello world\x1b")
        terminal.expect("world")
        terminal.send("yypccopied and changed\x1b")
        terminal.expect("changed")
        time.sleep(0.2)
        self.box.save_and_kill("vi")
        terminal.end()
        self.assertEqual((self.box.dir / "text").read_text(), "first line\n")
        terminal = Terminal(self.box, "restart", "vi")
        terminal.send("u\x0c")  # undo, and draw the screen again
        terminal.expect("world")
        terminal.send("Gothird\x1b:wq\r")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual((self.box.dir / "text").read_text().split("\n")[:2], ["first line", "hello world"])
        self.assertIn("third", (self.box.dir / "text").read_text())


if __name__ == "__main__":
    unittest.main()
