"""Makes guests for virtual machines: boot ROMs of tick.S, an initramfs whose init is init.c for Debian's kernel, and a
Debian on a disk of its own, whose init is debian_init.sh or job_init.sh.

The tests call it; by hand: make_guests.py DIRECTORY"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
HERE = pathlib.Path(__file__).resolve().parent
MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net"]
DISK_MODULES = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"]  # ext4 asks for a crc32c by name
# What a kernel loads by itself where it finds its modules.
USUAL_MODULES = ["unix_diag", "tcp_diag", "udp_diag", "raw_diag", "packet_diag", "netlink_diag", "af_packet", "overlay", "loop"]
# cli; cld; ds = f000, es = 1000; copy 64 KiB from 0 to 0; jump to 1000:0
COPIER = bytes.fromhex("fafcb800f08ed8b800108ec031f631ffb90040f3a5ea00000010")


class Missing(Exception):
    """What a guest cannot be made without."""


def rom(path, *defines):
    """64 KiB that a processor finds at the end of its first megabyte, and begins to execute 16 bytes before the end."""
    if not shutil.which("gcc") or not shutil.which("ld"):
        raise Missing("gcc and ld")
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["gcc", "-c", "-x", "assembler-with-cpp", *defines, "-o", f"{directory}/o", HERE / "tick.S"],
                       check=True)
        subprocess.run(["ld", "-m", "elf_x86_64", "-Ttext", "0x10000", "--oformat", "binary", "-o", f"{directory}/b",
                        f"{directory}/o"], check=True)
        code = pathlib.Path(f"{directory}/b").read_bytes()
    assert len(code) < 0xf000
    image = bytearray(b"\xff" * 65536)
    image[:len(code)] = code
    image[0xff00:0xff00 + len(COPIER)] = COPIER
    image[0xfff0:0xfff5] = bytes.fromhex("ea00ff00f0")
    pathlib.Path(path).write_bytes(image)


def find_kernel():
    """The newest kernel with its modules: /boot/vmlinuz-VERSION, /lib/modules/VERSION."""
    for kernel in sorted(pathlib.Path("/boot").glob("vmlinuz-*"), reverse=True):
        modules = pathlib.Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")
        if (modules / "kernel").is_dir():
            return kernel, modules
    raise Missing("a kernel in /boot with its modules in /lib/modules (linux-image-cloud-amd64)")


def in_order(modules, names):
    """The files of these modules and of what they need, each behind what it needs. What is built in is in no file."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    order = []

    def add(path):
        for other in needs[path]:
            add(other)
        if modules / path not in order:
            order.append(modules / path)
    for name in names:
        for path in needs:
            if pathlib.Path(path).name.split(".")[0] == name:
                add(path)
    return order


def cpio(entries):
    """The "newc" format, as in Documentation/driver-api/early-userspace/buffer-format.rst: (name, mode, data)."""
    out = bytearray()
    for number, (name, mode, data) in enumerate(entries + [("TRAILER!!!", 0, b"")], 1):
        encoded = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        out += b"\0" * (-len(out) % 4)
        out += data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(path, modules, source="init.c", names=MODULES):
    with tempfile.TemporaryDirectory() as directory:
        made = subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", f"{directory}/init", HERE / source],
                              capture_output=True, text=True)
        if made.returncode != 0:
            raise Missing(f"a static C library: {made.stderr.strip()}")
        init = pathlib.Path(f"{directory}/init").read_bytes()
    entries = [("init", 0o100755, init), ("modules", 0o40755, b""), ("dev", 0o40755, b"")]
    for number, found in enumerate(in_order(modules, names)):
        data = found.read_bytes()
        if found.suffix == ".xz":
            data = subprocess.run(["xz", "-dc"], input=data, check=True, stdout=subprocess.PIPE).stdout
        entries.append((f"modules/{number:02}-{found.name}", 0o100644, data))
    pathlib.Path(path).write_bytes(cpio(entries))


def root_of_debian(place, packages):
    """A Debian in a directory, with no more than these packages need. Returns what runs programs for it."""
    for tool in "debootstrap", "qemu-img", "mke2fs":
        if not shutil.which(tool, path=SYSTEM_PATH):
            raise Missing(tool)
    if os.geteuid() != 0:
        raise Missing("root, for debootstrap")

    def run(*words, **more):
        made = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env={**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C"}, **more)
        if made.returncode != 0:
            raise Missing(f"{words[0]}, which failed: {made.stdout[-500:]}")
    run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", "bookworm", place)
    for archive in (place / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    (place / "etc/hostname").write_text("guest\n")
    return run


def disk_of(root, path, size, run):
    """A qcow2 image of a file system with what is in this directory."""
    run("mke2fs", "-q", "-t", "ext4", "-d", root, f"{path}.raw", size)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", f"{path}.raw", path)
    os.unlink(f"{path}.raw")


def debian(path):
    """A Debian that installs packages and writes to a database, 1 GiB."""
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        root = pathlib.Path(directory) / "root"
        run = root_of_debian(root, ["sqlite3"])
        packages = root / "packages"
        packages.mkdir()
        run("apt-get", "download", "-qq", "ed", "tree", cwd=packages)
        shutil.copy(HERE / "debian_init.sh", root / "sbin/guest")
        disk_of(root, path, "1G", run)


def debian_with_stasis(path, build, tests, packages):
    """A Debian that does what the command line of its kernel asks for (job_init.sh), 2 GiB: with this build of stasis, these tests
    and the libraries that they need, and with the user "tester"."""
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        root = pathlib.Path(directory) / "root"
        run = root_of_debian(root, ["python3", "procps", "iproute2", *packages])
        run("chroot", root, "useradd", "-m", "tester")
        shutil.copy(HERE / "job_init.sh", root / "sbin/guest")
        shutil.copytree(tests, root / "stasis/tests", ignore=shutil.ignore_patterns("__pycache__"))
        place = root / "stasis/build"
        (place / "tests").mkdir(parents=True)
        shutil.copy(build / "stasis", place / "stasis")
        shutil.copytree(build / "tests/subjects", place / "tests/subjects")
        needed = subprocess.run(["ldd", place / "stasis", *(place / "tests/subjects").iterdir()], capture_output=True, text=True)
        for found in sorted(set(re.findall(r"=> (/\S+)", needed.stdout))):
            if not (root / found.lstrip("/")).exists():
                shutil.copy(found, root / "usr/lib/x86_64-linux-gnu")
        run("chroot", root, "ldconfig")
        disk_of(root, path, "2G", run)


def fetched_kernel(suite, directory):
    """The newest kernel of another Debian suite, as find_kernel() returns it."""
    place = directory / suite
    (place / "lists/partial").mkdir(parents=True)
    (place / "cache/archives/partial").mkdir(parents=True)
    (place / "sources.list").write_text(f"deb http://deb.debian.org/debian {suite} main\n")
    options = ["-qq", "-o", f"Dir::Etc::sourcelist={place}/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::State::status=/dev/null",
               "-o", f"Dir::State::lists={place}/lists", "-o", f"Dir::Cache={place}/cache", "-o", "APT::Sandbox::User=root"]

    def run(*words):
        made = subprocess.run(words, capture_output=True, text=True, cwd=place, env={**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C"})
        if made.returncode != 0:
            raise Missing(f"the kernel of {suite}: {made.stderr[-500:]}")
        return made.stdout
    run("apt-get", *options, "update")
    package = re.search(r"Depends: (linux-image-\S+)", run("apt-cache", *options, "depends", "linux-image-cloud-amd64"))[1]
    run("apt-get", *options, "download", package)
    run("dpkg-deb", "-x", *place.glob("*.deb"), place)
    version = package.removeprefix("linux-image-")
    run("depmod", "-b", place, version)
    return place / f"boot/vmlinuz-{version}", place / "lib/modules" / version


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    rom(directory / "interrupts.rom", "-DINTERRUPTS")
    rom(directory / "memory.rom", "-DMEMORY=8")
    kernel, modules = find_kernel()
    initramfs(directory / "initramfs", modules)
    print(kernel)


if __name__ == "__main__":
    main()
