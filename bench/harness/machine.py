"""What the numbers depend on and a reader has to know."""

import os
import pathlib
import platform
import subprocess
import time


def first_line(path, default="?"):
    try:
        return pathlib.Path(path).read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return default


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "?"


def mount_of(path):
    """Device, type and options of the file system of path: the longest mount point that is a prefix of it."""
    best = ("", "?", "?", "?")
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        device, point, kind, options, *_ = line.split()
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, device, kind, options)
    return f"{best[2]} ({best[3]}) on {best[1]}"


def virtualisation():
    try:
        return subprocess.run(["systemd-detect-virt"], capture_output=True, text=True).stdout.strip() or "none"
    except OSError:
        return "hypervisor" if " hypervisor" in pathlib.Path("/proc/cpuinfo").read_text() else "none seen"


def machine_facts(directory, tools):
    memory_kib = int(first_line("/proc/meminfo").split()[1])
    return {
        "date": time.strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {cpu_model()}",
        "virtualisation": virtualisation(),
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "huge_pages": first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "file_system": mount_of(directory.resolve()),
        "load_before": os.getloadavg(),
        "tools": tools,
    }
