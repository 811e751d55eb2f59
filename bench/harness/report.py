"""From samples to tables. Every figure is the median over the rounds, with the smallest and the largest one."""

import statistics

from .rows import ALL

NONE = "-"


def values(samples, tool, *path):
    found = []
    for sample in samples:
        value = sample if tool is None else sample.get(tool)
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found.append(value)
    return found


def ratios(samples, upper, lower):
    """Paired: each round's own quotient."""
    pairs = []
    for sample in samples:
        above, below = values([sample], *upper), values([sample], *lower)
        if above and below and below[0]:
            pairs.append(above[0] / below[0])
    return pairs


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(numbers):
    if not numbers:
        return NONE
    middle = number(statistics.median(numbers))
    return middle if len(numbers) == 1 else f"{middle} ({number(min(numbers))}..{number(max(numbers))})"


def table(titles, lines):
    head = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    return "\n".join(head + ["| " + " | ".join(line) + " |" for line in lines]) + "\n"


def checkpoint_table(rows):
    lines = []
    for row in rows:
        s = row["samples"]
        lines.append([
            row["title"], cell(values(s, "stasis", "fork_ms") or values(s, "criu", "fork_ms")),
            cell(values(s, "stasis", "pause_ms")), cell(values(s, "stasis", "checkpoint_engine", "pause_ms")),
            cell(values(s, "criu", "pause_ms")),
            cell(values(s, "stasis", "quiet_ms") or values(s, "criu", "quiet_ms")),
        ])
    pause = table(["ms", "bare fork()", "stasis: pause", "the engine says", "CRIU: pause", "noise"], lines)
    lines = []
    for row in rows:
        s = row["samples"]
        lines.append([
            row["title"], cell(values(s, None, "write_ms")), cell(values(s, "stasis", "complete_ms")),
            cell(ratios(s, ("stasis", "complete_ms"), (None, "write_ms"))), cell(values(s, "criu", "complete_ms")),
            cell(values(s, "criu", "on_disk_ms")), cell(values(s, "stasis", "image_mib")),
            cell(values(s, "criu", "image_mib")),
        ])
    complete = table(["ms", "plain write + fsync", "stasis: complete, on disk", "stasis / plain", "CRIU: complete, not synced",
                      "CRIU: on disk", "stasis: MiB", "CRIU: MiB"], lines)
    return "### Pause of the program\n\n" + pause + "\n### Until the image is complete\n\n" + complete


def restart_table(rows):
    lines = []
    for row in rows:
        s = row["samples"]
        lines.append([
            row["title"], cell(values(s, "stasis", "restart_ms")), cell(values(s, "stasis", "restart_command_ms")),
            cell(values(s, "stasis", "restart_engine", "engine_ms")), cell(values(s, "criu", "restart_ms")),
            cell(values(s, "criu", "restart_command_ms")),
        ])
    return "### Restart\n\n" + table(["ms", "stasis: until every thread ticks", "its whole command", "inside the engine",
                                      "CRIU: until every thread ticks", "its whole command"], lines)


def floor_table(rows):
    lines = []
    for row in rows:
        s = row["samples"]
        floor = values(s, "stasis", "floor_pause_ms")
        if floor:
            lines.append([row["title"], cell(floor), cell(ratios(s, ("stasis", "pause_ms"), ("stasis", "floor_pause_ms"))),
                          cell(values(s, "stasis", "floor_start_ms")),
                          cell(ratios(s, ("stasis", "restart_ms"), ("stasis", "floor_start_ms")))])
    if not lines:
        return ""
    return "### What the kernel alone needs for so many tasks, with nothing in them\n\n" + table(
        ["ms", "stop, fork and let go", "pause / that", "create them bare", "restart / that"], lines)


def rss_table(rows):
    lines = []
    for row in rows:
        s = row["samples"]
        sizes = [values(s, "stasis", key) for key in ("checkpoint_rss_kib", "restart_rss_kib", "beside_rss_kib")]
        if any(sizes):
            lines.append([row["title"]] + [cell([kib / 1024 for kib in size]) for size in sizes])
    if not lines:
        return ""
    return "### Memory that stasis itself needs (peak RSS, MiB)\n\n" + table(
        ["program", "checkpoint", "restart", "what stays beside the program"], lines)


def overhead_table(rows):
    text = ""
    for row in rows:
        s = row["samples"]
        lines = []
        for work in ("compute", "syscall", "memory"):
            line = [work, cell(values(s, "stasis", "native_ms", work))]
            for way in ("launched", "after_checkpoint", "mapped", "eager"):
                line += [cell(values(s, "stasis", way, work))]
            lines.append(line)
        text += "### Cost while no checkpoint is taken\n\n" + table(
            ["fixed work", "native, ms", "launched / native", "after a checkpoint / native", "after a mapped restart / native",
             "after an eager restart / native"], lines)
    return text


class Bars:
    """The promises, each with what was measured."""

    def __init__(self, rows):
        self.samples = {row["row"]: row["samples"] for row in rows}
        self.lines = []

    def add(self, row, what, limit, measured, floor=()):
        """`floor`: what the kernel alone needs for it; a bar below cannot be met on this machine."""
        if measured:
            middle = statistics.median(measured)
            best = min(measured)
            verdict = "yes" if middle <= limit else ("at best" if best <= limit else "**no**")
            if middle > limit and floor and statistics.median(floor) > limit:
                verdict = f"not possible: the kernel alone needs {cell(floor)}"
            self.lines.append([row.title, what, number(limit), cell(measured), verdict])

    def median(self, row_name, *path):
        found = values(self.samples.get(row_name, []), *path)
        return statistics.median(found) if found else None

    def fill(self):
        for row in ALL:
            s = self.samples.get(row.name)
            if not s or row.overhead:
                continue
            pauses, restarts = values(s, "stasis", "pause_ms"), values(s, "stasis", "restart_ms")
            if row.pause_ms:
                self.add(row, "pause, ms", row.pause_ms, pauses, values(s, "stasis", "floor_pause_ms"))
            if "fork" in row.bars:
                excess = [sample["stasis"]["pause_ms"] - 1.5 * sample["stasis"]["fork_ms"] for sample in s if "stasis" in sample]
                self.add(row, "pause - 1.5 x bare fork, ms", 5, excess)
            if "write" in row.bars:
                self.add(row, "complete / plain write + fsync", 1.3, ratios(s, ("stasis", "complete_ms"), (None, "write_ms")))
            if "criu" in row.bars:
                self.add(row, "complete / CRIU on disk", 1, ratios(s, ("stasis", "complete_ms"), ("criu", "on_disk_ms")))
                self.add(row, "complete / CRIU not synced", 1, ratios(s, ("stasis", "complete_ms"), ("criu", "complete_ms")))
            if "engine" in row.bars:
                self.add(row, "restart inside the engine, ms", 6, values(s, "stasis", "restart_engine", "engine_ms"))
            if row.restart_ms:
                self.add(row, "restart until every thread ticks, ms", row.restart_ms, restarts,
                         values(s, "stasis", "floor_start_ms"))
            reference = self.median("1gib-4k", "stasis", "restart_ms")
            if "constant" in row.bars and reference:
                self.add(row, "restart / restart of 1 GiB", 1.2, [value / reference for value in restarts])
        return self.lines


def markdown(result):
    machine = result["machine"]
    timed = [row for row in result["rows"] if not row["row"] == "overhead"]
    overhead = [row for row in result["rows"] if row["row"] == "overhead"]
    parts = [
        f"Measured {machine['date']} with {', '.join(machine['tools'])}, as {result['user']}; {result['rounds']} paired rounds; "
        "median (smallest..largest).\n"
        f"Linux {machine['kernel']}, {machine['cpu']}, {machine['memory_gib']} GiB, virtualisation: {machine['virtualisation']}; "
        f"huge pages {machine['huge_pages']}; images on {machine['file_system']}; "
        f"load {machine['load_before'][0]:.1f} before, {result['load_after'][0]:.1f} after.\n"
    ]
    parts += [note + "\n" for note in result["notes"]]
    if timed:
        parts += [checkpoint_table(timed), restart_table(timed), floor_table(timed), rss_table(timed)]
    if overhead and any(row["samples"] for row in overhead):
        parts.append(overhead_table(overhead))
    bars = Bars(timed).fill()
    if bars:
        parts.append("### Bars\n\n" + table(["program", "what", "at most", "measured", "met"], bars))
    errors = [problem for row in result["rows"] for problem in row["errors"]]
    if errors:
        parts.append("### What went wrong\n\n" + "\n".join("* " + problem.replace("\n", " ") for problem in errors) + "\n")
    return "\n".join(part for part in parts if part)
