"""One row, measured in paired rounds: every round takes each figure once, of all tools, one after the other."""

import os
import statistics
import subprocess
import time

from .state import State, Timeout
from .tools import Failed, log, processes_of, timed

WORK_TIMES = 5  # portions of work per way, in turns with a native process
QUIET_SECONDS = 0.5  # how long the ticks are watched with nothing going on, to know the noise


class Pages:
    """`workload pages`: writes as many bytes as the program has; and makes free memory equally warm for everybody.

    A virtual machine gives memory that has been free for two seconds back to its host. Whoever needs it next pays a nested
    fault per page, which decides over a factor of three in the speed of the page cache."""

    def __init__(self, workload, row, directory):
        words = [workload, "pages", "--dir", directory, "--mib", str(row.total_mib)] + (["--huge"] if row.huge else [])
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, verb):
        self.process.stdin.write(verb + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()) / 1e6

    def settle(self):
        os.sync()
        self.ask("warm")

    def write_ms(self):
        self.settle()
        return self.ask("write")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def tree_mib(path):
    return sum(entry.stat().st_blocks * 512 for entry in path.rglob("*") if entry.is_file()) / (1 << 20)


class Bench:
    def __init__(self, host, workload, floor, tools, rounds):
        self.host = host
        self.workload = workload
        self.floor = floor
        self.tools = tools
        self.rounds = rounds

    def measure(self, row):
        log(f"{row.title}: {self.rounds} rounds")
        result = {"row": row.name, "title": row.title, "tick_us": row.tick_us, "samples": [], "errors": []}
        pages = Pages(self.workload, row, self.host.images)
        try:
            for number in range(self.rounds):
                sample = {"round": number}
                # Neither tool is always the second, who would find what the first left in the caches.
                order = self.tools if number % 2 == 0 else self.tools[::-1]
                if not row.overhead:
                    sample["write_ms"] = pages.write_ms()
                for tool in order:
                    try:
                        if row.overhead and tool.name != "stasis":
                            continue
                        one = self.overhead(tool, row) if row.overhead else self.checkpoint_and_restart(tool, row, pages)
                        sample[tool.name] = one
                        log(f"  {number + 1} {tool.name}: " + brief(one))
                    except (Failed, Timeout, ValueError, KeyError) as error:
                        problem = f"{tool.name}, round {number + 1}: {type(error).__name__}: {error}"
                        result["errors"].append(problem)
                        log("  " + problem)
                result["samples"].append(sample)
        finally:
            pages.close()
        return result

    def program(self, row):
        count = getattr(self, "count", 0) + 1
        self.count = count
        return State(self.host.states / f"state-{count}", row.tickers, self.host.user)

    def checkpoint_and_restart(self, tool, row, pages):
        state = self.program(row)
        handle = image = None
        try:
            handle = tool.start(row, state)
            state.wait_ready()
            one = {}
            pages.settle()
            state.new_epoch()
            state.wait_epoch()
            time.sleep(QUIET_SECONDS)
            one["quiet_ms"] = state.largest_gap_ms()
            one["fork_ms"] = state.fork_ms()
            state.new_epoch()
            state.wait_epoch()
            subprocess.run([self.floor, "stop", *map(str, processes_of(self.workload, state.path))], check=True)
            state.wait_ticks()
            one["floor_pause_ms"] = state.largest_gap_ms()
            one["floor_start_ms"] = self.floor_start_ms(row)

            state.new_epoch()
            state.wait_epoch()
            made = tool.checkpoint(handle)
            one["pause_ms"] = state.largest_gap_ms()
            image = made["image"]
            one["complete_ms"] = made["wall_ms"]
            one["on_disk_ms"] = made["wall_ms"] + tool.finish_on_disk(made)
            one["image_mib"] = tree_mib(image)
            one["checkpoint_rss_kib"] = made["rss_kib"]
            one["checkpoint_engine"] = made["engine"]
            if damaged := state.verify():
                raise Failed(f"{damaged} words of memory damaged after the checkpoint")

            if row.dense_us != row.tick_us:
                tool.forget(handle, image)
                state.put("dense_us", row.dense_us)
                state.new_epoch()
                state.wait_epoch()
                image = tool.checkpoint(handle)["image"]
            tool.stop(handle, state)
            pages.settle()
            state.new_epoch()
            back = tool.restart(handle, image)
            state.wait_epoch()
            state.put("dense_us", 0)
            one["restart_ms"] = (state.last_first_tick() - back["start"]) / 1e6
            one["restart_command_ms"] = back["wall_ms"]
            one["restart_rss_kib"] = back["rss_kib"]
            one["restart_engine"] = back["engine"]
            if damaged := state.verify():
                raise Failed(f"{damaged} words of memory damaged after the restart")
            one["beside_rss_kib"] = tool.beside_rss_kib(state)
            return one
        finally:
            self.clean(tool, handle, state, image)

    def floor_start_ms(self, row):
        words = [self.floor, "start", "--threads", row.threads, "--children", row.children]
        result = timed(self.workload, words, self.host.images / "floor.log", self.host.user)
        return (int(result["output"]) - result["start"]) / 1e6

    def clean(self, tool, handle, state, image):
        try:
            tool.kill_program(state)
        finally:
            tool.forget(handle, image)
            tool.reap()
            state.close()

    def overhead(self, tool, row):
        """The same portions of work by a native process and by one under stasis, in turns; per way the ratio of the medians."""
        native_state, state = self.program(row), self.program(row)
        native = subprocess.Popen([self.workload, *row.arguments(native_state.path)], stdin=subprocess.DEVNULL)
        handle = image = None

        def compare():
            state.work_ms()  # the first time after a restart reads the memory that the work needs
            pairs = [(native_state.work_ms(), state.work_ms()) for _ in range(WORK_TIMES)]
            return {name: statistics.median(own[name] for _, own in pairs) /
                    statistics.median(bare[name] for bare, _ in pairs) for name in pairs[0][0]}

        try:
            handle = tool.start(row, state)
            native_state.wait_ready()
            state.wait_ready()
            native_state.work_ms()
            one = {"native_ms": native_state.work_ms(), "launched": compare()}
            image = tool.checkpoint(handle)["image"]
            one["after_checkpoint"] = compare()
            tool.stop(handle, state)
            for memory in ("mapped", "eager"):
                state.new_epoch()
                tool.restart(handle, image, memory)
                state.wait_epoch()
                one[memory] = compare()
                if state.verify():
                    raise Failed("memory damaged")
                tool.stop(handle, state)
            return one
        finally:
            native.kill()
            native.wait()
            native_state.close()
            self.clean(tool, handle, state, image)


def brief(one):
    shown = ("fork_ms", "pause_ms", "complete_ms", "on_disk_ms", "restart_ms")
    return ", ".join(f"{name[:-3]} {one[name]:.1f}" for name in shown if name in one) or "done"
