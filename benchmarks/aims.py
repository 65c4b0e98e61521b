"""
The aims for the figures, and whether the figures reach them.

Not here: the measuring. A missed aim is shown as missed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks import (
    consuming,
    dashboard,
    growth,
    latency,
    launch,
    pages,
    parse,
    rates,
    recorder,
    replaced,
    startup,
    telemetry,
)
from benchmarks.figures import Row, rounded
from benchmarks.ground import Side
from benchmarks.latency import Scene


@dataclass(frozen=True)
class Aim:
    """A limit on one figure of one row."""

    text: str
    name: str
    other_name: str
    figure: str
    """Which of the row's figures: `ratio`, `ours`, or `times`, which is how many times ours the other one is."""
    least: float | None = None
    most: float | None = None
    shows_other: bool = False
    """Whether the compared figure is shown in addition, so that a reader can subtract."""

    def value(self, rows: Iterable[Row]) -> float | None:
        """Return the figure, or None where it was not measured."""
        row = self._row(rows)
        if row is None:
            return None
        if self.figure == "times":
            return rounded(1 / row["ratio"])
        return row["ratio"] if self.figure == "ratio" else row["ours"]

    def other(self, rows: Iterable[Row]) -> float | None:
        """Return the compared figure if it is shown, or None."""
        row = self._row(rows) if self.shows_other else None
        return None if row is None else row["other"]

    def _row(self, rows: Iterable[Row]) -> Row | None:
        wanted = (self.name, self.other_name)
        return next((row for row in rows if (row["name"], row["other_name"]) == wanted), None)

    def is_met_by(self, value: float) -> bool:
        """Return True if the figure reaches the aim."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def limit(self) -> str:
        """The limit, in words."""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


_SETTING = "1 KiB, archive stream"


def _rate(ours: Side, peer: Side, peer_name: str, least: float) -> Aim:
    return Aim(
        f"{ours.label}, beside {peer_name} ({_SETTING})",
        f"{ours.label}, {rates.PRIMARY.name}",
        peer.label,
        "ratio",
        least=least,
    )


def _unsynced(manner: str, ours: Scene, bare: Scene) -> Aim:
    return Aim(
        f"`publish()` without the disk sync, {manner}, broker known to be dead, median, ms",
        f"{ours.label}, median",
        bare.label,
        "ours",
        most=0.1,
        shows_other=True,
    )


def _replaced(name: str, most: float) -> Aim:
    return Aim(f"{name}, beside {replaced.BESIDE}", name, replaced.BESIDE, "ratio", most=most)


def _consuming(ours: Side, other: Side, least: float) -> Aim:
    return Aim(f"{ours.label}, beside {other.label}", ours.label, other.label, "ratio", least=least)


CONSUMING = (
    *(
        _consuming(ours, other, least)
        for ours in consuming.STORED.values()
        for other, least in zip(consuming.PEERS, (5, 5, 1), strict=True)
    ),
    _consuming(consuming.EFFECTS, consuming.HAND_WRITTEN, 0.8),
    _consuming(consuming.EFFECTS_BATCH, consuming.HAND_WRITTEN, 2),
)
_FAULTS = (
    "broker and collector refused",
    "broker and collector black-holed",
    "broker under memory alarm, collector black-holed",
    "drainer of another process stopped",
)
_LIMIT = "the limit that is promised"
AIMS = (
    _rate(rates.DRAIN, rates.PIPELINED, f"pika's pipelined confirms (window {rates.WINDOW})", 0.8),
    _rate(rates.DRAIN, rates.AIO_PIKA, rates.AIO_PIKA.label, 2),
    *(
        _rate(ours, peer, peer.label, least)
        for ours in (rates.BULK, rates.BULK_ENCODED)
        for peer, least in ((rates.AIO_PIKA, 1.5), (rates.TALUS, 50))
    ),
    Aim(
        "`publish()`, broker dead beside broker up, median",
        f"{latency.DEAD.label}, median",
        latency.UP.label,
        "ratio",
        most=1.3,
    ),
    Aim("`publish()`, synced, median, ms", f"{latency.UP.label}, median", latency.INSERT.label, "ours", most=1.0),
    _unsynced("in a tight loop", latency.TIGHT_UNSYNCED, latency.TIGHT_INSERT_UNSYNCED),
    _unsynced(f"one each {1000 * latency.PACE_SECONDS:g} ms", latency.UNSYNCED, latency.INSERT_UNSYNCED),
    # In proportion to the processes, which share the disk and its syncs.
    *(
        Aim(
            f"`publish()`, {processes} processes on one journal beside {growth.ONE}, p99",
            growth.name_of(processes, growth.SLOWEST_CALLS),
            growth.ONE,
            "ratio",
            most=most,
        )
        for processes, most in ((4, 5), (16, 20))
    ),
    *CONSUMING,
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
    Aim(
        f"a {startup.PROCESS}, wall, beside the {startup.BESIDE}",
        f"{startup.PROCESS}, wall",
        startup.BESIDE,
        "ratio",
        most=1.5,
    ),
    *(
        Aim(
            f"{telemetry.PROCESS}, {what}, beside {telemetry.OFF}",
            f"{telemetry.PROCESS}, {figure}",
            telemetry.OFF,
            "ratio",
            most=telemetry.RATIO,
        )
        for figure, what in (("cpu", "processor time"), ("wall", "wall"))
    ),
    *(
        Aim(f"{name}, beside telemetry off, s", name, telemetry.LIMIT, "ours", most=telemetry.LIMIT_SECONDS)
        for how, fault in telemetry.EXITS
        for name in [telemetry.exit_name(how, fault)]
    ),
    Aim(f"{telemetry.GROWN}, MiB", telemetry.GROWN, telemetry.LIMIT, "ours", most=telemetry.GROWN_MIB),
    *(
        Aim(f"{name}, {unit}", name, recorder.LIMIT, "ours", most=most)
        for name, unit, most in (
            *((recorder.added_name(work), "%", recorder.PERCENT) for work in recorder.WORK.values()),
            *((recorder.share_name(work), "%", recorder.PERCENT) for work in recorder.WORK.values()),
            (f"{recorder.ADDED}, wall", "ms", recorder.ADDED_MS),
            (recorder.LAUNCHER, "%", recorder.LAUNCHER_PERCENT),
        )
    ),
    *(
        Aim(f"{name}, {unit}", name, pages.LIMIT, "ours", most=most)
        for size in (f"{pages.MANY_ATTEMPTS:,} attempts",)
        for database in dashboard.COLLECTING
        for name, unit, most in (
            (pages.room_name(size, database), "bytes", pages.ATTEMPT_BYTES),
            *((pages.page_name(page, size, database), "ms", pages.PAGE_MS) for page in pages.PAGES_AIMED),
        )
    ),
    Aim(
        f"{launch.SECOND}: how many times as fast as {launch.ESTABLISHED}",
        launch.SECOND,
        launch.ESTABLISHED,
        "times",
        least=launch.LEAST_TIMES,
    ),
    Aim(f"{parse.LOOK}, beside {parse.PLAIN}", parse.LOOK, parse.PLAIN, "ratio", most=parse.LIMIT),
    Aim(f"{launch.ADDED}, beside {launch.FLOOR}, s", launch.ADDED, launch.LIMIT, "ours", most=launch.LIMIT_SECONDS),
    _replaced(f"{replaced.IMPORT}, wall", 0.1),
    *(_replaced(f"{name}, wall", 0.2) for name in (replaced.TASK, replaced.REFUSED, replaced.SILENT)),
    _replaced(replaced.ENVIRONMENT, 0.05),
    _replaced(replaced.LOOK, 0.2),
    _replaced(replaced.ADDED, 0.2),
    _replaced(replaced.SIZE, 0.25),
    *(
        Aim(f"{name}, events/s", name, dashboard.LIMIT, "ours", least=dashboard.EVENTS_PER_SECOND)
        for name in dashboard.COLLECTING.values()
    ),
)
