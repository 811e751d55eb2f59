#!/usr/bin/python3
"""Programs that compute: saved and killed in the middle of their work, they finish it right."""
import time
import unittest

from harness import ProgramTest, find_program, until_kept, wait_for


class Interpreters(ProgramTest):
    def finish(self, name, output, expected, seconds=60):
        wait_for(f"{name} finishes with {expected!r}", lambda: expected in output.read_text(), seconds)

    def save_kill_restart(self, name, output, first, *flags):
        """Once the program has begun; what it had written before stays written once."""
        wait_for(f"{name} begins", lambda: first in output.read_text())
        self.box.save_and_kill(name)
        before = output.read_text()
        time.sleep(0.05)
        self.assertEqual(output.read_text(), before)  # it is really gone
        self.box.restart(name, *flags)

    def test_python_with_threads_and_children(self):
        script = self.box.write("work.py", """
import hashlib, multiprocessing, queue, threading, time
def hash_up(seed, rounds):
    h = seed.encode()
    for _ in range(rounds):
        h = hashlib.sha256(h).digest()
    return h.hex()
def main():
    done = queue.Queue()
    def slow():
        for i in range(150):
            time.sleep(0.01)
        done.put("slept")
    threading.Thread(target=slow).start()
    with multiprocessing.Pool(2) as pool:
        results = pool.starmap_async(hash_up, [(str(i), 60000) for i in range(8)])
        print("begun", flush=True)
        got = results.get()
    assert got == [hash_up(str(i), 60000) for i in range(8)]
    print(done.get(), "finished right", flush=True)
main()
""")
        output = self.box.launch("python", find_program("/usr/bin/python3", "python3"), script)
        self.save_kill_restart("python", output, "begun")
        self.finish("python", output, "slept finished right")

    def test_python_eager(self):
        script = self.box.write("count.py", """
import time
table = {i: str(i) * 20 for i in range(100000)}
print("begun", flush=True)
end = time.monotonic() + 1
while time.monotonic() < end:
    assert all(table[i] == str(i) * 20 for i in range(0, 100000, 17))
print("finished right", flush=True)
""")
        output = self.box.launch("python", find_program("/usr/bin/python3", "python3"), script)
        self.save_kill_restart("python", output, "begun", "--memory=eager")
        self.finish("python", output, "finished right")

    @until_kept("locks/fcntl_ranges")
    def test_sqlite_in_a_transaction(self):
        """Its locks are what keeps others out: they must be there after the restart."""
        script = self.box.write("database.py", """
import os, sqlite3, time
db = sqlite3.connect("data.db", isolation_level=None)
db.execute("create table t (i integer primary key, v text)")
db.execute("begin immediate")
for i in range(1000):
    db.execute("insert into t values (?, ?)", (i, "v" * i))
print("begun", flush=True)
while not os.path.exists("commit"):
    time.sleep(0.01)
db.execute("commit")
print(db.execute("select count(*), sum(length(v)) from t").fetchone(), flush=True)
""")
        python = find_program("/usr/bin/python3", "python3")
        output = self.box.launch("sqlite", python, script)
        self.save_kill_restart("sqlite", output, "begun")
        intruder = self.box.run(python, "-c", """
import sqlite3
try:
    sqlite3.connect("data.db", timeout=0.2).execute("begin immediate")
    print("came in")
except sqlite3.OperationalError as error:
    print(error)
""")
        self.assertIn("locked", intruder.stdout)
        self.box.write("commit", "")
        self.finish("sqlite", output, f"(1000, {sum(range(1000))})")

    def test_perl(self):
        script = self.box.write("work.pl", """
use strict; $| = 1;
my %h = map { $_ => $_ * 3 } (1 .. 50000);
my $rang = 0;
local $SIG{ALRM} = sub { print "alarm\\n"; $rang = 1 };
alarm 2;
print "begun\\n";
while (!$rang) { for my $k (1 .. 50000) { die "wrong" if $h{$k} != $k * 3 } }
print "finished right\\n";
""")
        output = self.box.launch("perl", find_program("perl"), script)
        self.save_kill_restart("perl", output, "begun")
        self.finish("perl", output, "finished right")
        self.assertIn("alarm", output.read_text())

    def test_shell_pipeline(self):
        """Six processes and their pipes, all blocked on one another."""
        script = self.box.write("pipe.sh", """
i=0
(while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); [ $i = 100 ] && echo begun >&2; sleep 0.005; done) |
  tee copy | grep line | sort | uniq | wc -l
""")
        output = self.box.launch("shell", "/bin/sh", script)
        self.save_kill_restart("shell", output, "begun")
        wait_for("the pipeline ends", lambda: output.read_text().split()[-1:] == ["300"])
        self.assertEqual(len((self.box.dir / "copy").read_text().splitlines()), 300)


class Compiler(ProgramTest):
    def test_gcc_in_the_middle(self):
        functions = "".join(f"int f{i}(int x) {{ int a[16]; for (int j = 0; j < 16; ++j) a[j] = x * j + {i}; "
                            f"int s = 0; for (int j = 0; j < 16; ++j) s += a[j] * a[15 - j]; return s; }}\n"
                            for i in range(6000))
        calls = "".join(f"s += f{i}({i});" for i in range(6000))
        self.box.write("big.c", f"#include <stdio.h>\n{functions}\n"
                                f"int main() {{ unsigned s = 0; {calls} printf(\"%u\\n\", s); }}\n")
        gcc = find_program("gcc")
        self.box.launch("gcc", "/bin/sh", "-c", f"{gcc} -O1 big.c -o big && ./big > result; echo status $? > done")
        wait_for("the compiler runs", lambda: any(p["comm"] == "cc1" for p in self.box.session("gcc")["processes"]))
        time.sleep(0.4)
        self.box.save_and_kill("gcc")
        self.assertFalse((self.box.dir / "done").exists(), "it was done before it was saved")
        self.box.restart("gcc")
        wait_for("the compiler finishes", (self.box.dir / "done").exists, 120)
        self.assertEqual((self.box.dir / "done").read_text(), "status 0\n")
        expected = 0
        for i in range(6000):
            a = [(i * j + i) for j in range(16)]
            expected += sum(a[j] * a[15 - j] for j in range(16))
        self.assertEqual(int((self.box.dir / "result").read_text()), expected % 2**32)


if __name__ == "__main__":
    unittest.main()
