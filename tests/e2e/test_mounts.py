#!/usr/bin/python3
"""Containers made by hand: mount namespaces with a root directory of their own, as root."""
import os
import shutil
import subprocess
import unittest

from harness import ProgramTest, Sandbox, find_program, wait_for

# What unshare(1) and pivot_root(8) make: a file system in memory with directories of the host in it.
CONTAINER = """
set -e
root=$1; shared=$2
mount -t tmpfs -o mode=755 container "$root"
for part in usr etc; do mkdir "$root/$part"; mount --bind -o ro /$part "$root/$part"; done
for link in bin sbin lib lib64; do ln -s usr/$link "$root/$link"; done
mkdir "$root/dev" "$root/proc" "$root/shared" "$root/old" "$root/tmp"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero urandom; do touch "$root/dev/$device"; mount --bind /dev/$device "$root/dev/$device"; done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount --bind "$shared" "$root/shared"
cd "$root"
pivot_root . old
cd /
umount -l old
rmdir old
exec /bin/sh -c 'exec < /dev/null; i=0
while ! test -e /shared/stop; do i=$((i+1)); echo $i > /tmp/count; echo $i > /shared/count; sleep 0.01; done
test "$(cat /tmp/count)" = "$i" && test ! -e /var && ls -l /proc/self/exe && cat /proc/self/mountinfo > /shared/mounts'
"""


class ContainerTest(ProgramTest):
    def sandbox(self):
        if os.getuid() != 0:
            self.skipTest("not root")
        return Sandbox(user=None)

    def setUp(self):
        super().setUp()
        self.shared = self.box.dir / "shared"
        self.shared.mkdir()

    def count(self):
        path = self.shared / "count"
        return int((path.exists() and path.read_text()) or 0)

    def goes_on(self):
        before = wait_for("it counts", self.count)
        wait_for("it goes on", lambda: self.count() > before)

    def through_generations(self, *program):
        self.box.launch("s", *program)
        self.goes_on()
        for _ in range(3):
            self.box.stasis("checkpoint", "s")
            self.goes_on()
            self.box.save_and_kill("s")
            self.box.restart("s")
            self.goes_on()
        (self.shared / "stop").touch()
        wait_for("it ends", lambda: not self.box.session("s"))
        with open(self.shared / "mounts") as lines:
            return [line.split()[4] for line in lines]

    def test_hidden_beneath_the_root(self):
        """What cannot be told is said: once, and only where there is such a mount."""
        for over, said in (("/", True), ("/mnt", False)):
            name = f"over{over.replace('/', '-')}"
            self.box.launch(name, "/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c",
                            f"mount -t tmpfs before /mnt; mount -t tmpfs over {over}; touch {self.shared}/{name}; sleep 1000")
            wait_for("it has mounted", (self.shared / name).exists)
            done = self.box.stasis("checkpoint", name)
            self.assertEqual(done.stderr.count("beneath the root directory"), int(said), done.stderr)
            self.box.save_and_kill(name)
            self.box.restart(name)
            self.box.stasis("signal", name, "KILL", check=False)

    def test_unshare_and_pivot_root(self):
        script = self.box.write("container", CONTAINER)
        (self.box.dir / "root").mkdir()
        points = self.through_generations("unshare", "--mount", "sh", script, self.box.dir / "root", self.shared)
        self.assertEqual(sorted(points), sorted(["/", "/usr", "/etc", "/dev", "/dev/null", "/dev/zero", "/dev/urandom",
                                                 "/proc", "/tmp", "/shared"]))

    def test_bubblewrap(self):
        bwrap = find_program("bwrap") if shutil.which("bwrap") else os.environ.get("STASIS_BWRAP")
        if not bwrap:
            self.skipTest("there is no bwrap")
        work = ("i=0; while ! test -e /shared/stop; do i=$((i+1)); echo $i > /tmp/count; echo $i > /shared/count; "
                "sleep 0.01; done; cat /proc/self/mountinfo > /shared/mounts")
        points = self.through_generations(
            bwrap, "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
            "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", self.shared,
            "/shared", "/bin/sh", "-c", work)
        self.assertIn("/shared", points)
        self.assertIn("/dev/pts", points)

    def test_files_that_are_written_inside(self):
        """By another path than outside, where a restart puts them back."""
        (self.shared / "data").write_text("")
        (self.box.dir / "root").mkdir()
        script = self.box.write("container", CONTAINER.split("exec /bin/sh")[0] + """exec /bin/sh -c 'exec 3<> /shared/data
while ! test -e /shared/stop; do read line < /shared/say && test "$line" != "$last" && { last=$line; echo $line >&3; echo $line > /shared/said; }; sleep 0.01; done'
""")

        def say(text):
            (self.shared / "new").write_text(text + "\n")
            (self.shared / "new").rename(self.shared / "say")
            wait_for("it says so", lambda: (self.shared / "said").exists() and (self.shared / "said").read_text() == text + "\n")

        (self.shared / "say").write_text("\n")
        self.box.launch("s", "unshare", "--mount", "sh", script, self.box.dir / "root", self.shared)
        say("before")
        self.box.stasis("checkpoint", "s")
        say("after")
        self.assertEqual((self.shared / "data").read_text(), "before\nafter\n")
        self.box.stasis("signal", "s", "KILL")
        self.box.assert_gone("s")
        (self.shared / "say").write_text("before\n")
        self.box.restart("s")
        self.assertEqual((self.shared / "data").read_text(), "before\n")
        say("again")
        self.assertEqual((self.shared / "data").read_text(), "before\nagain\n")

    def test_what_the_host_had_mounted_is_missing(self):
        disk = self.box.dir / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "disk", disk], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", disk], stderr=subprocess.DEVNULL)
        (disk / "point").mkdir()
        self.box.launch("s", "sh", "-c", f"mount -t tmpfs mine {disk}/point; touch {self.shared}/count; "
                                         f"echo 1 > {self.shared}/count; while :; do sleep 0.01; done")
        wait_for("it has mounted", self.count)
        self.box.save_and_kill("s")
        subprocess.run(["umount", disk], check=True)
        done = self.box.stasis("restart", "s", "--background", check=False)
        self.assertEqual(done.returncode, 3)
        self.assertIn(f"{disk}: disk (tmpfs) was mounted there, and is not", done.stderr)
        self.assertIn("mount it again to restart", done.stderr)
        subprocess.run(["mount", "-t", "tmpfs", "disk", disk], check=True)
        self.box.restart("s")
        self.assertTrue(self.box.session("s"))


if __name__ == "__main__":
    unittest.main()
