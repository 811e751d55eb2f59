"""Programs in namespaces of their own: unshare(1) and bubblewrap, as root and as the ordinary user."""
import json
import os
import unittest

from harness import ProgramTest, Sandbox, find_program, wait_for

# What a program sees of its namespaces, over and over; with a file of each /proc and of a directory in memory open.
LOOK = """
import errno, json, os, re, sys, time
directory = sys.argv[1]
status = open('/proc/self/status')
try:
    memory = open('/tmp/memory', 'w+')
    memory.write('kept')
    memory.flush()
except OSError:
    memory = None

def read(path):
    with open(path) as file:
        return file.read()

def mounts():
    # Numbers are the kernel's, new ones after a restart; so is the order.
    lines = [' '.join(line.split()[3:]) for line in read('/proc/self/mountinfo').splitlines()]
    return sorted(re.sub('(shared|master|propagate_from):[0-9]+', r'\\1', line) for line in lines)

def writes(path):
    try:
        with open(path, 'w'):
            pass
        os.unlink(path)
        return 'yes'
    except OSError as error:
        return errno.errorcode[error.errno]

n = 0
while True:
    n += 1
    status.seek(0)
    seen = {
        'pid': os.getpid(), 'uid': os.getuid(), 'gid': os.getgid(), 'cwd': os.getcwd(),
        'numbers': [p for p in os.listdir('/proc') if p.isdigit()],
        'init': read('/proc/1/comm'),
        'status': [line for line in status.read().splitlines() if line.startswith(('Pid:', 'NSpid:', 'Cap'))],
        'ids': read('/proc/self/uid_map') + read('/proc/self/gid_map') + read('/proc/self/setgroups'),
        'mounts': mounts(), 'usr': writes('/usr/stasis-test'), 'tmp': writes('/tmp/another'),
        'interfaces': sorted(os.listdir('/sys/class/net')) if os.path.isdir('/sys/class/net') else None,
        'null': os.path.exists('/dev/null') and os.stat('/dev/null').st_rdev,
    }
    if memory:
        memory.seek(0)
        seen['memory'] = [memory.read(), read('/tmp/memory')]
    seen['n'] = n
    seen['boottime'] = time.clock_gettime(time.CLOCK_BOOTTIME)
    with open(directory + '/.seen', 'w') as file:
        json.dump(seen, file)
    os.rename(directory + '/.seen', directory + '/seen')
    time.sleep(0.05)
"""

SHELL = r"""
(while :; do sleep 0.1; done) &
worker=$!
echo "$$ $worker" > "$1/numbers"
n=0
while kill -0 $worker; do
    n=$((n + 1))
    set -- "$1" /proc/[0-9]*
    [ -e /proc/$worker/stat ] && [ "$(readlink /proc/self)" != "" ] && echo "$n" > "$1/.n" && mv "$1/.n" "$1/n"
    sleep 0.05
done
"""


class Namespaces:
    """Each is a program in its sandbox; what it sees there is the same after restarts."""
    user = None
    maxDiff = None

    def setUp(self):
        if os.geteuid() == 0 and self.user is False:
            self.skipTest("no ordinary user")
        self.box = Sandbox(user=self.user or None)
        self.addCleanup(self.box.close)
        self.out = self.box.dir / "out"
        self.out.mkdir()
        self.out.chmod(0o777)

    def seen(self):
        try:
            return json.loads((self.out / "seen").read_text())
        except OSError:
            return {"n": 0}

    def goes_on(self, *program, directory=None):
        script = self.box.write("look.py", LOOK, 0o755)
        if directory:
            program = [word.replace("SCRIPT", str(script)).replace("OUT", str(self.out)) for word in program]
        self.box.launch("n", *program, "/usr/bin/python3", "-u", script if not directory else "/look.py",
                        directory or self.out)
        wait_for("the program's view", lambda: self.seen()["n"] > 3)
        first = self.seen()
        for round in range(4):
            before = self.seen()
            if round < 3:
                self.box.save_and_kill("n")
                self.box.restart("n")
            else:
                self.box.stasis("checkpoint", "n")
            wait_for("another view", lambda: self.seen()["n"] > before["n"] + 5)
            after = self.seen()
            self.assertGreater(after["boottime"], before["boottime"])
            for key in first:
                if key not in ("n", "boottime"):
                    self.assertEqual(first[key], after[key], key)
        return after

    def test_user(self):
        self.assertEqual(self.goes_on(find_program("unshare"), "-Ur")["uid"], 0)

    def test_user_and_pid(self):
        self.assertEqual(self.goes_on(find_program("unshare"), "-Ur", "--pid", "--fork")["pid"], 1)

    def test_user_pid_and_proc(self):
        seen = self.goes_on(find_program("unshare"), "-Ur", "--pid", "--fork", "--mount-proc")
        self.assertEqual((seen["pid"], seen["uid"], seen["numbers"]), (1, 0, ["1"]))

    def test_user_and_time(self):
        seen = self.goes_on(find_program("unshare"), "-Ur", "--time", "--boottime", "100000")
        self.assertGreater(seen["boottime"], 100000)

    def test_shell(self):
        self.box.launch("n", find_program("unshare"), "--user", "--map-root-user", "--pid", "--fork", "--mount-proc",
                        "/bin/bash", "-c", SHELL, "bash", self.out)
        count = lambda: int((self.out / "n").read_text()) if (self.out / "n").exists() else 0
        wait_for("the shell", lambda: count() > 3)
        numbers = (self.out / "numbers").read_text()
        self.assertTrue(numbers.startswith("1 "))
        for _ in range(3):
            self.box.save_and_kill("n")
            before = count()
            self.box.restart("n")
            wait_for("the shell to go on", lambda: count() > before + 5)
        self.assertEqual(numbers, (self.out / "numbers").read_text())

    def test_bubblewrap(self):
        seen = self.goes_on(find_program("bwrap"), "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
                            "--unshare-all", "--die-with-parent")
        self.assertEqual((seen["pid"], seen["numbers"]), (2, ["1", "2"]))

    def test_bubblewrap_as_flatpak_uses_it(self):
        links = [word for name in ("bin", "lib", "lib64", "sbin") if os.path.islink("/" + name)
                 for word in ("--symlink", "usr/" + name, "/" + name)]
        seen = self.goes_on(find_program("bwrap"), "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr",
                            *links, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run",
                            "--dir", "/run/user", "--ro-bind", "/sys/class", "/sys/class", "--ro-bind", "SCRIPT",
                            "/look.py", "--bind", "OUT", "/out", "--chdir", "/run/user", "--hostname", "sandbox",
                            "--remount-ro", "/", directory="/out")
        self.assertEqual((seen["pid"], seen["numbers"], seen["memory"], seen["usr"], seen["tmp"], seen["cwd"]),
                         (2, ["1", "2"], ["kept", "kept"], "EROFS", "yes", "/run/user"))


class AsUser(Namespaces, unittest.TestCase):
    user = os.environ.get("STASIS_TEST_USER") or (None if os.geteuid() != 0 else False)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class AsRoot(Namespaces, unittest.TestCase):
    user = None

    def test_pid(self):
        seen = self.goes_on(find_program("unshare"), "--pid", "--fork", "--mount-proc")
        self.assertEqual((seen["pid"], seen["numbers"]), (1, ["1"]))

    def refused(self, script, *words):
        """The program runs on, and when it is told to do without, it can be saved."""
        self.box.launch("n", "/bin/bash", "-c", script, "bash", self.out)
        wait_for("the program", lambda: (self.out / "ready").exists())
        said = self.box.stasis("checkpoint", "n", check=False)
        self.assertEqual(said.returncode, 4, said.stderr)
        for word in words:
            self.assertIn(word, said.stderr)
        (self.out / "without").touch()
        wait_for("the program to go on", lambda: (self.out / "done").exists())
        self.box.save_and_kill("n")
        self.box.restart("n")

    def test_proc_of_a_namespace_that_has_ended_is_refused(self):
        self.refused("""mkdir "$1/proc"; unshare --pid --fork mount -t proc inner "$1/proc"; touch "$1/ready"
                     while [ ! -e "$1/without" ]; do sleep 0.02; done
                     umount "$1/proc"; touch "$1/done"; sleep 1000""",
                     "the mount of inner (proc) at", "has ended", "unmount it")

    def test_a_file_of_a_process_that_is_gone_is_refused(self):
        self.refused("""unshare --pid --fork --mount-proc /bin/bash -c '
                     sleep 1000 & exec 5</proc/$!/status; kill $!; wait; touch "$1/ready"
                     while [ ! -e "$1/without" ]; do sleep 0.02; done
                     exec 5<&-; touch "$1/done"; while :; do sleep 1000; done' bash "$1" """,
                     "descriptor 5", "/status", "is gone", "close it")

    def test_children_in_a_time_namespace_are_refused(self):
        self.refused("""/usr/bin/python3 -c '
import ctypes, os, sys, time
ctypes.CDLL(None).unshare(0x80)
open(sys.argv[1] + "/ready", "w")
while not os.path.exists(sys.argv[1] + "/without"): time.sleep(0.02)
open(sys.argv[1] + "/done", "w")
os.execv("/bin/sleep", ["sleep", "1000"])' "$1" """, "time namespace", "exec()")

    def refused_for_a_thread(self, flag, name):
        self.refused(f"""exec /usr/bin/python3 -c '
import ctypes, os, sys, threading, time
def elsewhere():
    ctypes.CDLL(None).unshare({flag})
    if {flag} == 0x20000000 and os.fork() == 0:
        time.sleep(1000)
    open(sys.argv[1] + "/ready", "w")
    while not os.path.exists(sys.argv[1] + "/without"): time.sleep(0.02)
for thread in [threading.Thread(target=time.sleep, args=(1000,), daemon=True) for _ in range(20)]: thread.start()
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
open(sys.argv[1] + "/done", "w")
time.sleep(1000)' "$1" """, f"its threads are in different namespaces ({name})")

    def test_a_thread_with_another_host_name_is_refused(self):
        self.refused_for_a_thread(0x04000000, "uts")

    def test_a_thread_in_another_network_is_refused(self):
        self.refused_for_a_thread(0x40000000, "net")

    def test_a_thread_with_children_in_another_pid_namespace_is_refused(self):
        self.refused_for_a_thread(0x20000000, "pid_for_children")

    def test_time(self):
        seen = self.goes_on(find_program("unshare"), "--time", "--boottime", "100000")
        self.assertGreater(seen["boottime"], 100000)


if __name__ == "__main__":
    unittest.main()
