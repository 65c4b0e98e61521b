"""
What the figures should reach, and whether they do.

Not here: how they are measured. An aim that is missed is shown as missed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.figures import Row


@dataclass(frozen=True)
class Aim:
    """A limit on one figure of one row."""

    text: str
    name: str
    other_name: str
    figure: str
    """Which of the row's figures: `ratio` or `ours`."""
    least: float | None = None
    most: float | None = None

    def value(self, rows: Iterable[Row]) -> float | None:
        """Return the figure, or None where it was not measured."""
        for row in rows:
            if (row["name"], row["other_name"]) == (self.name, self.other_name):
                return row["ratio"] if self.figure == "ratio" else row["ours"]
        return None

    def is_met_by(self, value: float) -> bool:
        """Say whether a figure reaches the aim."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def limit(self) -> str:
        """The limit, in words."""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


_STREAM = "1 KiB to the archive stream"
_FAULTS = (
    "broker and collector refused",
    "broker and collector black-holed",
    "broker under memory alarm, collector black-holed",
    "drainer of another process stopped",
)
_LIMIT = "the limit that is promised"
AIMS = (
    Aim(
        "draining, beside pika's pipelined confirms",
        f"draining, {_STREAM}",
        "pika, confirms pipelined",
        "ratio",
        least=0.8,
    ),
    Aim(
        "draining, beside the fastest confirming peer",
        f"draining, {_STREAM}",
        "aio-pika with uvloop",
        "ratio",
        least=2,
    ),
    Aim(
        "bulk publishing, beside the fastest confirming peer",
        f"bulk publishing, {_STREAM}",
        "aio-pika with uvloop",
        "ratio",
        least=1.5,
    ),
    Aim(
        "bulk publishing, beside one connection per event",
        f"bulk publishing, {_STREAM}",
        "talus, connection per event",
        "ratio",
        least=50,
    ),
    Aim(
        "`publish()`, broker dead beside broker up, median",
        "publish(), broker dead, median",
        "publish(), broker up",
        "ratio",
        most=1.3,
    ),
    Aim(
        "`publish()`, synced, median, ms",
        "publish(), broker up, median",
        "talus, connection per event",
        "ours",
        most=1.0,
    ),
    Aim(
        "`publish()` without the disk sync, median, ms",
        "publish() without the disk sync, median",
        "talus, connection per event",
        "ours",
        most=0.1,
    ),
    *(
        Aim(f"a task's exit, {fault}: added to the same task with {base}, s", name, _LIMIT, "ours", most=2.0)
        for fault in _FAULTS
        for base in ("neither configured", "both well")
        for name in [f"added to the task with {base}: {fault}"]
    ),
    Aim(
        "memory grown while cut off for 100,000 events, MiB",
        "memory grown, cut off with 100,000 events",
        "the limit",
        "ours",
        most=30,
    ),
)
