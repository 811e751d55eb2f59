"""What can be seen of a process tree from outside, and whether it is the same before and after.

A subject checks what it thought of checking; /proc shows the rest: descriptors, areas of memory, masks, limits.
"""
import os
import pathlib
import re

# Of /proc/PID/task/TID/status. Not compared: counts of pages and switches, and State, which changes by itself.
STATUS = ["Name", "Umask", "Uid", "Gid", "Groups", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt",
          "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Cpus_allowed", "THP_enabled"]
FDINFO = ["pos", "flags", "eventfd-count", "eventfd-semaphore", "sigmask", "clockid", "settime flags", "inotify",
          "tfd"]


def having_in_environment(entry):
    """Processes that have this entry in their environment (and are not the caller)."""
    found, wanted = [], entry.encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if wanted in pathlib.Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
        except OSError:
            pass
    return found


def open_to_all(path):
    """Whether any user can get to the file and execute it."""
    path = pathlib.Path(path).resolve()
    return all(p.stat().st_mode & 0o001 for p in [path, *path.parents])


def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def areas(pid):
    """Ranges with protection and kind; neighbours of the same kind are one, as the kernel may merge or not."""
    merged = []
    for line in read(f"/proc/{pid}/maps").splitlines():
        span, perms, offset, _, _, *path = line.split(None, 5)
        start, end = (int(x, 16) for x in span.split("-"))
        path = path[0] if path else ""
        if path in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
            continue
        # Private memory may be mapped from an image afterwards, whatever it came from: its path is compared only for
        # code, which debuggers and profilers look up by it.
        private = perms[3] == "p"
        if path == "[vdso]":
            kind = path
        elif private and ("x" not in perms or "(deleted)" in path or not path.startswith("/") or is_image(path)):
            kind = "memory"
        elif not private and (not path.startswith("/") or "(deleted)" in path or path.startswith("/memfd:")
                              or is_image(path)):
            kind = "shared memory"
        else:
            kind = path
        if merged and merged[-1][1] == start and merged[-1][2:] == (perms, kind):
            merged[-1] = (merged[-1][0], end, perms, kind)
        else:
            merged.append((start, end, perms, kind))
    return [f"{start:x}-{end:x} {perms} {kind}" for start, end, perms, kind in merged]


def is_image(path):
    return "/pages" in path and ("/home/" in path or "stasis" in path)


def descriptors(pid, numbers):
    """number -> (link, position, flags...); the numbers of anonymous inodes are replaced by their order."""
    found = {}
    for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        link = re.sub(r"\[(\d+)\]", lambda m: "[#%d]" % numbers.setdefault(m.group(1), len(numbers)), link)
        link = re.sub(r"^/dev/pts/\d+$", "/dev/pts/N", link)
        if link.endswith("(deleted)"):
            link = "deleted file"
        info = []
        text = read(f"/proc/{pid}/fdinfo/{name}")
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key == "tfd":
                value = " ".join(value.split()[:5])  # without the inode and device of the target
            if key == "inotify" or line.startswith("inotify"):
                value = re.sub(r"(ino|sdev|fhandle|f_handle|fhandle-bytes|fhandle-type):\S+ ?", "", value)
            if key == "pos" and link.startswith(("/proc/", "/dev/urandom")):
                continue
            if key == "flags" and link == "deleted file":
                # How it was opened (O_NOFOLLOW, O_TMPFILE) says nothing any more.
                value = oct(int(value, 8) & ~0o020600000)
            if key == "tfd" and "40000018" in value:
                value = value.replace("40000018", "40000000")  # disarmed: EPOLL_CTL_MOD always adds ERR and HUP
            if key == "settime flags" and "clockid: 0" not in text:
                continue  # absolute or not is the same for a clock that nobody can set
            if key in FDINFO:
                info.append(f"{key}:{value.strip()}")
        # The watched files of an epoll come in the order of their addresses in the kernel.
        found[int(name)] = " ".join([link] + sorted(info))
    return found


def status_of(pid):
    return dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/status").splitlines() if ":\t" in line)


def filters_of_init(pid):
    """Seccomp filters of the session's init: the memory guard of a mapped restart is all over the session."""
    for _ in range(1000):
        status = status_of(pid)
        if not status or status["NSpid"].split()[-1] == "1":
            return int(status.get("Seccomp_filters", "0"))
        pid = int(status["PPid"])
    return 0


def tasks(pid):
    found = {}
    guard = filters_of_init(pid)
    for name in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
        status = dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/task/{name}/status").splitlines()
                      if ":\t" in line)
        if not status:
            continue
        own = status["NSpid"].split()[-1]
        entry = {key: status[key].strip() for key in STATUS if key in status}
        entry["seccomp filters"] = str(int(status.get("Seccomp_filters", "0")) - guard)
        stat = read(f"/proc/{pid}/task/{name}/stat").rpartition(")")[2].split()
        if stat:
            # priority, nice, real-time priority, policy; and whether it is stopped
            entry["scheduling"] = " ".join((stat[15], stat[16], stat[37], stat[38]))
            entry["stopped"] = str(stat[0] == "T")
        found[own] = entry
    return found


def look(processes):
    """State of a whole session: {pid in the session: {...}}."""
    numbers, seen = {}, {}
    for process in sorted(processes, key=lambda p: p["pid"]):
        pid = process["host_pid"]
        try:
            stat = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if not stat:
                continue
            entry = {"zombie": stat[0] == "Z", "exit signal": stat[35]}
            if stat[0] != "Z":
                entry.update(descriptors=descriptors(pid, numbers), areas=areas(pid), tasks=tasks(pid),
                             limits=read(f"/proc/{pid}/limits"), cmdline=read(f"/proc/{pid}/cmdline"),
                             environ=read(f"/proc/{pid}/environ"), auxv=auxv(pid),
                             exe=os.readlink(f"/proc/{pid}/exe"), cwd=os.readlink(f"/proc/{pid}/cwd"),
                             oom=read(f"/proc/{pid}/oom_score_adj"), personality=read(f"/proc/{pid}/personality"))
            seen[process["pid"]] = entry
        except (FileNotFoundError, ProcessLookupError):
            continue
    return seen


def auxv(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/auxv").read_bytes().hex()
    except OSError:
        return ""


def compare(before, after, where=""):
    """Differences as lines of text."""
    if isinstance(before, dict) and isinstance(after, dict):
        if before.get("zombie") != after.get("zombie"):
            return [f"{where} is {'a zombie' if after.get('zombie') else 'no zombie any more'}"]
        lines = []
        for key in sorted(set(before) | set(after), key=str):
            place = f"{where}{' ' if where else 'process '}{key}"
            if key not in before:
                lines.append(f"{place}: new: {brief(after[key])}")
            elif key not in after:
                lines.append(f"{place}: lost: {brief(before[key])}")
            else:
                lines += compare(before[key], after[key], place)
        return lines
    if isinstance(before, list) and isinstance(after, list):
        old, new = set(before), set(after)
        return [f"{where}: lost: {x}" for x in before if x not in new] + \
               [f"{where}: new: {x}" for x in after if x not in old]
    if before != after:
        if isinstance(before, str) and "\n" in before:
            return compare(before.splitlines(), after.splitlines(), where)
        return [f"{where}: was {brief(before)}, is {brief(after)}"]
    return []


def brief(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "..."
