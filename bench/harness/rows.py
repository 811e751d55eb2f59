"""What is measured: one Row per line of the tables, with the bar that it has to meet."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    mib: int = 1
    huge: bool = False
    threads: int = 1
    children: int = 0
    child_mib: int = 0
    # Bars in milliseconds; None where the figure is only reported.
    pause_ms: float | None = None
    restart_ms: float | None = None
    bars: tuple[str, ...] = field(default=())  # names of further bars, see report.py
    overhead: bool = False
    quick: bool = True

    @property
    def total_mib(self):
        return self.mib + self.children * self.child_mib

    @property
    def tickers(self):
        return self.threads + self.children

    @property
    def tick_us(self):
        """Sleep between two ticks of one ticker. All tickers together make at most some 20,000 ticks per second, which is a
        tenth of a processor; else the measuring would be what keeps the processors busy."""
        return max(200, 50 * self.tickers)

    @property
    def dense_us(self):
        """The same for what is to be restarted: there a sleep that goes on after the restart counts as part of it."""
        return max(200, 10 * self.tickers)

    def arguments(self, state):
        words = ["run", "--state", str(state), "--mib", self.mib, "--threads", self.threads, "--children",
                 self.children, "--child-mib", self.child_mib, "--tick-us", self.tick_us]
        return [str(word) for word in words] + (["--huge"] if self.huge else [])


GIB_BARS = ("fork", "write", "criu", "engine")

ALL = [
    Row("1gib-4k", "1 GiB, 4 KiB pages", mib=1024, restart_ms=15, bars=GIB_BARS),
    Row("1gib-2m", "1 GiB, 2 MiB pages", mib=1024, huge=True, restart_ms=15, bars=GIB_BARS),
    Row("100mib", "100 MiB, 4 KiB pages", mib=100, restart_ms=15, bars=("fork", "constant")),
    Row("8gib", "8 GiB, 2 MiB pages", mib=8192, huge=True, restart_ms=15, bars=("constant",), quick=False),
    Row("1mib", "1 MiB", pause_ms=4, restart_ms=10),
    Row("100-threads", "100 threads", threads=100, pause_ms=8, restart_ms=15),
    Row("50-processes", "50 processes of 1 MiB", children=49, child_mib=1, pause_ms=40, restart_ms=50),
    Row("1000-threads", "1,000 threads", threads=1000, quick=False),
    Row("300-processes", "300 processes of 1 MiB", children=299, child_mib=1, quick=False),
    Row("overhead", "overhead while no checkpoint is taken", mib=64, overhead=True),
]
NAMES = [row.name for row in ALL]


def choose(names, quick):
    return [row for row in ALL if (row.name in names if names else row.quick or not quick)]
