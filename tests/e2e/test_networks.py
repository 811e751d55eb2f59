#!/usr/bin/python3
"""Sessions with a network of their own (launch --net=private): programs and virtual machines with tap devices, and what
is refused by name."""
import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
import unittest

import kvm_harness
from harness import ProgramTest, Sandbox, find_program, wait_for
import test_virtual_machines

ECHO = """
import socket, sys
with socket.create_connection(("10.0.2.15", 7), timeout=5) as connection:
    connection.sendall(sys.argv[1].encode())
    print(connection.recv(100).decode())
"""
TAP = """
import fcntl, os, struct, sys, time
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH14x", sys.argv[1].encode(), 0x1002))
open(sys.argv[2], "w").close()
time.sleep(1000)
"""



TAKES_A_TAP = """
import socket, time
helper = socket.socket(socket.AF_UNIX)
helper.connect("helper")
tap = socket.recv_fds(helper, 1, 1)
helper.close()
open("ready", "w").close()
time.sleep(1000)
"""


class AsRoot:
    def sandbox(self):
        if os.getuid() != 0:
            self.skipTest("not root")
        return Sandbox(user=None)

FILTER = '''
table inet guard {
  counter dropped { }
  quota much { over 10 mbytes }
  set bad { type ipv4_addr; flags interval; elements = { 10.1.0.0/16, 192.168.7.1 } }
  set seen { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 1h; }
  map where { type inet_service : verdict; elements = { 22 : accept, 7779 : drop, 7778 : jump audit } }
  chain audit {
    counter name dropped reject with tcp reset comment "how many"
  }
  chain input {
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    ip saddr @bad drop
    iifname { "lo", "eth*" } tcp dport { 8000-8100, 9000 } counter packets 0 bytes 0 accept
    tcp dport 7777 tcp flags & (syn | ack) == syn drop
    tcp dport vmap @where
    ip protocol icmp limit rate 5/second accept
    add @seen { ip saddr . tcp dport }
  }
}
table ip nat {
  chain out {
    type nat hook postrouting priority srcnat;
    oifname "none" masquerade
  }
}
'''


class InNetwork:
    """A command in the network of a session."""

    def inside(self, name, *line, check=True):
        process = self.box.session(name)["processes"][0]["host_pid"]
        enter = [find_program("nsenter"), "-t", str(process), "-n"]
        if self.box.user or os.getuid() != 0:
            # Its network belongs to its user namespace, and that to the user.
            enter += ["-U", "--preserve-credentials"]
        return self.box.run(*enter, "--", *line, check=check)

    def addresses(self, name, device):
        text = self.inside(name, find_program("ip"), "-o", "-4", "addr", "show", "dev", device,
                           check=False).stdout
        return re.findall(r"inet (\S+)", text)


class Programs(InNetwork, ProgramTest):
    def script(self, name, text):
        return self.box.write(name, "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nset -e\n" + text, 0o755)

    def launch(self, name, *program, flags=("--net=private",)):
        self.box.output = self.box.dir / f"{name}.output"
        with open(self.box.output, "ab") as output:
            if self.box.user:
                os.chown(self.box.output, self.box.user.pw_uid, self.box.user.pw_gid)
            self.box.stasis("launch", "--name", name, "--background", *flags, "--", *program, stdout=output)

    def await_file(self, name):
        path = self.box.dir / name
        wait_for(name, path.exists)

    def refused(self, name, *words):
        done = self.box.stasis("checkpoint", name, check=False)
        self.assertEqual(done.returncode, 4, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertIsNotNone(self.box.session(name))

    def test_a_network_is_the_hosts_or_private(self):
        done = self.box.stasis("launch", "--net=other", "--", "true", check=False)
        self.assertEqual(done.returncode, 2)
        ours = os.readlink("/proc/self/ns/net")
        for flags, same in ((), True), (("--net=host",), True), (("--net=private",), False):
            with self.subTest(flags=flags):
                self.launch("s", "readlink", "/proc/self/ns/net", flags=flags)
                wait_for("it said so", lambda: "net:" in self.box.output.read_text())
                self.assertEqual(ours in self.box.output.read_text(), same)
                self.box.output.unlink()

    def test_a_restart_remembers_it_and_clones_have_the_same_port(self):
        server = self.script("server", "exec python3 -m http.server --bind 127.0.0.1 80\n")
        self.launch("web", server)

        def answers(name):
            code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:80/', timeout=5).status)"
            return "200" in self.inside(name, "python3", "-c", code, check=False).stdout
        wait_for("it serves", lambda: answers("web"))
        self.box.stasis("checkpoint", "web")
        for name in "one", "two", "three":
            self.box.restart("web", "--name", name)
        for name in "web", "one", "two", "three":
            wait_for(f"{name} serves", lambda who=name: answers(who))
        # A generation later it is still so.
        self.box.stasis("checkpoint", "one", "--stop")
        self.box.restart("one")
        wait_for("it serves again", lambda: answers("one"))

    def test_traffic_control_is_refused(self):
        tc = find_program("tc")
        self.launch("s", self.script("shaped", f"ip link add left type veth peer name right\nip link set left up\n"
                                               f"{tc} qdisc add dev left root tbf rate 1mbit burst 32kbit latency 400ms\n"
                                               "touch ready\nsleep 1000\n"))
        self.await_file("ready")
        self.refused("s", "traffic control", "tbf", "tc qdisc del")

    def inside_by_root(self, name, program, *args):
        if os.getuid() != 0:
            self.skipTest("not root")
        process = self.box.session(name)["processes"][0]["host_pid"]
        return subprocess.run([find_program("nsenter"), "-t", str(process), "-n", "--", find_program(program), *args],
                              check=True, capture_output=True, text=True).stdout

    def rules(self, name):
        # How much of an hour is left is not compared.
        return re.sub(r" expires [0-9a-z]+", "", self.inside_by_root(name, "nft", "list", "ruleset"))

    def reaches(self, name, port):
        code = ("import socket, sys\ntry: socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=0.5)\n"
                "except TimeoutError: print('lost')\nexcept OSError as error: print(error.errno)\nelse: print('yes')")
        return self.inside(name, "python3", "-c", code, port).stdout.strip()

    def test_a_packet_filter(self):
        nft = find_program("nft")
        self.box.write("filter", FILTER)
        # Both ends are of the session: their connection is made before the filter is there.
        server = self.box.write("server", '''#!/usr/bin/python3
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 7777))
client = socket.create_connection(("127.0.0.1", 7777))
server = listener.accept()[0]
subprocess.run([sys.argv[1], "-f", "filter"], check=True)
open("ready", "w").close()
while True:
    client.sendall(b"x" * 1000)
    if len(server.recv(1000, socket.MSG_WAITALL)) != 1000:
        break
''', 0o755)
        self.launch("s", server, nft)
        self.await_file("ready")
        before = self.rules("s")
        self.assertIn("vmap @where", before)
        for _ in range(3):
            self.assertEqual(self.reaches("s", "7777"), "lost")
            self.assertEqual(self.reaches("s", "7778"), "111")
            now = self.rules("s")
            self.box.save_and_kill("s")
            self.box.restart("s")
            self.assertEqual(self.rules("s"), now)
        self.assertTrue(self.box.session("s")["processes"])

    def test_rules_of_iptables(self):
        iptables = find_program("iptables-nft")
        self.launch("s", self.script("old", f"{iptables} -A INPUT -p tcp --dport 7777 -m comment --comment no -j REJECT\n"
                                            f"{iptables} -A INPUT -p udp -m multiport --dports 53,123 -j DROP\n"
                                            f"{iptables} -t nat -A POSTROUTING ! -o lo -j MASQUERADE\n"
                                            "touch ready\nsleep 1000\n"))
        self.await_file("ready")
        def save():
            return re.sub(r"#.*", "", self.inside_by_root("s", "iptables-nft-save"))
        before = save()
        self.assertIn("--dports 53,123", before)
        self.box.save_and_kill("s")
        self.box.restart("s")
        self.assertEqual(save(), before)

    def test_a_chain_within_a_rule_is_refused(self):
        self.launch("s", self.script("within", "nft 'add table ip t; add chain ip t c; "
                                               "add rule ip t c tcp dport 1 jump { accept; }'\ntouch ready\nsleep 1000\n"))
        self.await_file("ready")
        self.refused("s", "nftables", "give the chain a name")

    def test_an_interface_that_is_not_known_is_refused(self):
        self.launch("s", self.script("odd", "ip link add vx0 type vxlan id 7 remote 10.0.0.1 dstport 4789 dev lo ||\n"
                                            "touch skip\ntouch ready\nsleep 1000\n"))
        self.await_file("ready")
        if (self.box.dir / "skip").exists():
            self.skipTest("no vxlan here")
        self.refused("s", "vx0", "vxlan")

    def test_a_route_by_nexthop_object_is_refused(self):
        self.launch("s", self.script("hops", "ip link add left type veth peer name right\nip link set left up\n"
                                             "ip link set right up\n"
                                             "ip addr add 10.1.0.1/24 dev left\nip nexthop add id 7 via 10.1.0.2 dev left\n"
                                             "touch ready\nsleep 1000\n"))
        self.await_file("ready")
        self.refused("s", "nexthop")


class ProgramsAsRoot(AsRoot, Programs):
    def test_a_tap_that_an_outsider_serves_is_refused(self):
        self.launch("s", "sleep", "1000")
        process = self.box.session("s")["processes"][0]["host_pid"]
        ready = self.box.dir / "ready"
        outsider = subprocess.Popen([find_program("nsenter"), "-t", str(process), "-n", "--", sys.executable, "-c", TAP, "tap7",
                                     str(ready)])
        try:
            self.await_file("ready")
            self.refused("s", "tap7", "outside of the session")
        finally:
            outsider.kill()
            outsider.wait()
        self.box.stasis("checkpoint", "s")

    def test_a_tap_of_the_host_that_goes_with_its_program(self):
        """It is made again; there is one of a name only."""
        self.launch("s", "python3", "-c", TAP, "stasis-test", self.box.dir / "ready", flags=())
        self.await_file("ready")
        self.box.run(find_program("ip"), "addr", "add", "198.51.100.9/32", "dev", "stasis-test")
        self.box.stasis("checkpoint", "s")
        done = self.box.stasis("restart", "s", "--name", "second", "--background", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "stasis-test.*busy")
        self.box.stasis("checkpoint", "s", "--stop")
        self.assertFalse(self.interface("stasis-test"))
        self.box.restart("s")
        self.assertIn("198.51.100.9/32", self.interface("stasis-test"))

    def test_a_lasting_tap_of_the_host(self):
        """It belongs to an ordinary user, as those who have machines on a bridge have it."""
        self.box = Sandbox()
        self.addCleanup(self.box.close)
        if not self.box.user:
            self.skipTest("there is no ordinary user (STASIS_TEST_USER)")
        ip = lambda *words: subprocess.run([find_program("ip"), *words], check=True)
        make = lambda: ip("tuntap", "add", "dev", "stasis-lasts", "mode", "tap", "user", self.box.user.pw_name)
        make()
        self.addCleanup(lambda: subprocess.run([find_program("ip"), "link", "del", "stasis-lasts"], capture_output=True))
        self.launch("s", "python3", "-c", TAP, "stasis-lasts", self.box.dir / "ready", flags=())
        self.await_file("ready")
        carrier = lambda: "LOWER_UP" in self.interface("stasis-lasts")
        ip("link", "set", "stasis-lasts", "up")
        wait_for("somebody holds it", carrier)
        self.box.stasis("checkpoint", "s", "--stop")
        wait_for("nobody holds it", lambda: not carrier())
        self.box.restart("s")
        wait_for("the program holds it again", carrier)
        self.box.stasis("checkpoint", "s", "--stop")
        ip("link", "del", "stasis-lasts")
        done = self.box.stasis("restart", "s", "--background", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "no interface stasis-lasts any more.*ip tuntap add dev stasis-lasts mode tap")
        make()
        self.box.restart("s")

    def test_a_tap_of_the_host_that_its_user_could_not_have_again(self):
        """As qemu-bridge-helper hands them out: the interface would be gone, or another one's."""
        self.box = Sandbox()
        self.addCleanup(self.box.close)
        if not self.box.user:
            self.skipTest("there is no ordinary user (STASIS_TEST_USER)")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.box.dir / "helper"))
            os.chmod(self.box.dir / "helper", 0o777)
            listener.listen()
            self.launch("s", "python3", "-c", TAKES_A_TAP, flags=())
            helper, _ = listener.accept()
            with helper:
                tun = os.open("/dev/net/tun", os.O_RDWR)
                fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH14x", b"stasis-handed", 0x1002))  # TUNSETIFF
                socket.send_fds(helper, [b"x"], [tun])
                self.await_file("ready")
                self.refused("s", "stasis-handed", "cannot make it again", "ip tuntap add", "--net=private")
                fcntl.ioctl(tun, 0x400454cb, 1)  # TUNSETPERSIST
                fcntl.ioctl(tun, 0x400454cc, 0)  # TUNSETOWNER
                self.addCleanup(lambda: subprocess.run([find_program("ip"), "link", "del", "stasis-handed"]))
                self.refused("s", "stasis-handed", "cannot attach to it again")
                fcntl.ioctl(tun, 0x400454cc, self.box.user.pw_uid)
                os.close(tun)
                self.box.stasis("checkpoint", "s")

    def interface(self, name):
        return subprocess.run([find_program("ip"), "addr", "show", name], capture_output=True, text=True).stdout


class Machines(InNetwork, test_virtual_machines.MachineTest):
    """A guest at a tap device. The emulator makes the device by itself, or takes one that is there."""
    accelerator = "tcg"
    NETWORK = ("-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no")

    def wrap(self, before, beside=""):
        text = f"#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nset -e\n{before}\n{beside}\nexec {self.emulator} \"$@\"\n"
        self.emulator = self.box.write("machine", text, 0o755)

    def with_lasting_tap(self):
        self.wrap("ip tuntap add dev tap0 mode tap\nip addr add 10.0.2.2/24 dev tap0\nip link set tap0 up")

    def with_passing_tap(self):
        # Whoever waits has ended when the first checkpoint comes.
        self.wrap("", "( until ip link set tap0 up 2>/dev/null; do sleep 0.05; done; ip addr add 10.0.2.2/24 dev tap0 ) &")

    def boot_at_tap(self, device="virtio-net-pci"):
        self.boot_rom("interrupts.rom", *self.NETWORK, "-device", f"{device},netdev=n,romfile=", flags=("--net=private",),
                      accelerator=self.accelerator)
        wait_for("the address is there", lambda: self.addresses("vm", "tap0") == ["10.0.2.2/24"])

    def through_it_all(self):
        super().through_it_all()
        self.assertEqual(self.addresses("vm", "tap0"), ["10.0.2.2/24"])

    def test_tap_that_lasts(self):
        self.with_lasting_tap()
        self.boot_at_tap()
        self.through_it_all()

    def test_tap_that_goes_with_its_machine(self):
        self.with_passing_tap()
        self.boot_at_tap("e1000")
        self.through_it_all()

    def test_three_clones(self):
        self.with_passing_tap()
        self.boot_at_tap()
        self.reach(3)
        self.checkpoint()
        names = ("one", "two", "three")
        for name in names:
            self.restart("--name", name, what="vm@1")

        def ticks(name):
            return len(re.findall(r"TICK \d+[^\n]*\n", (self.store / name / "files-1" / "vm.console").read_text()))
        for name in names:
            wait_for(f"{name} goes on", lambda at=ticks(name), who=name: ticks(who) > at + 3)
            self.assertEqual(self.addresses(name, "tap0"), ["10.0.2.2/24"])
        self.go_on()
        self.whole()

    def echo(self, name, text):
        done = self.inside(name, "python3", "-c", ECHO, text, check=False)
        return done.returncode == 0 and done.stdout.strip() == text

    def test_a_guest_that_serves(self):
        self.with_passing_tap()
        self.boot_linux(*self.NETWORK, "-device", "virtio-net-pci,netdev=n", words=" net", flags=("--net=private",),
                        accelerator=self.accelerator)
        wait_for("the guest answers", lambda: self.echo("vm", "hello"), 60)
        self.checkpoint()
        for name in ("one", "two"):
            self.restart("--name", name, what="vm@1")
        for name in ("vm", "one", "two"):
            wait_for(f"the guest of {name} answers", lambda who=name: self.echo(who, f"hello {who}"))
        self.kill()
        self.restart()
        wait_for("the guest answers again", lambda: self.echo("vm", "hello again"))
        self.go_on()
        self.whole()


class MachinesAsRoot(AsRoot, Machines):
    pass


class MachinesWithKvm(Machines):
    accelerator = "kvm"
    test_a_guest_that_serves = None  # Linux takes minutes to boot where pages are not nested

    def sandbox(self):
        return kvm_harness.sandbox()


class MachinesWithKvmAsUser(MachinesWithKvm):

    def sandbox(self):
        return kvm_harness.sandbox_of_user(self)


if __name__ == "__main__":
    unittest.main()
