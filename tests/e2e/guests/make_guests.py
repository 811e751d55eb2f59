"""Makes guests for virtual machines: boot ROMs of tick.S, an initramfs whose init is init.c for Debian's kernel, and a
Debian on a disk of its own, whose init is debian_init.sh.

The tests call it; by hand: make_guests.py DIRECTORY"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
HERE = pathlib.Path(__file__).resolve().parent
MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net"]
DISK_MODULES = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"]  # ext4 asks for a crc32c by name
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


def debian(path):
    """A file system with a Debian of its own and packages to install, 1 GiB, as a qcow2 image."""
    for tool in "debootstrap", "qemu-img", "mke2fs":
        if not shutil.which(tool, path=SYSTEM_PATH):
            raise Missing(tool)
    if os.geteuid() != 0:
        raise Missing("root, for debootstrap")
    environment = {**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C"}
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        def run(*words, **more):
            made = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **more)
            if made.returncode != 0:
                raise Missing(f"{words[0]}, which failed: {made.stdout[-500:]}")
        root = pathlib.Path(directory) / "root"
        run("debootstrap", "--variant=minbase", "--include=sqlite3", "bookworm", root)
        packages = root / "packages"
        packages.mkdir()
        run("apt-get", "download", "-qq", "ed", "tree", cwd=packages)
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        (root / "etc/hostname").write_text("guest\n")
        shutil.copy(HERE / "debian_init.sh", root / "sbin/guest")
        run("mke2fs", "-q", "-t", "ext4", "-d", root, f"{directory}/disk", "1G")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", f"{directory}/disk", path)


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
