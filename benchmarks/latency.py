"""
Cost of `publish()` for the calling task: at a task's pace and in a tight loop, with the broker up and dead.

Without the disk sync it is measured twice: with a broker that is up, where a thread delivers at the same time, and with
a broker that is known to be dead, where that thread is idle.

Not here: messages per second.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks import rates
from benchmarks.figures import Findings, percentile_99
from benchmarks.ground import Ground, Side, run
from benchmarks.plan import Plan
from tests.services.sockets import closed_port

PACE_SECONDS = 0.005
_COUNT, _TIGHT_COUNT = 300, 2000
_WARM_UP = 20
STATISTICS = (("median", median), ("p99", percentile_99))


@dataclass(frozen=True)
class Scene:
    """One way to call it."""

    side: Side
    is_dead: bool = False
    count: int = _COUNT

    @property
    def label(self) -> str:
        """The name of the scene in the figures."""
        return self.side.label


def _ours(label: str, *, synced: bool = True, pause: float = PACE_SECONDS, marked: bool = False) -> Side:
    options = {"synced": synced, "pause": pause, "marked": marked, "barrier": False, "delivers": False}
    return Side(label, "library_publish", options=options)


def _bare(label: str, *, synced: bool, pause: float = PACE_SECONDS) -> Side:
    return Side(label, "sqlite_insert", options={"synced": synced, "pause": pause})


def _paced(side: Side) -> Side:
    return replace(side, options=side.options | {"pause": PACE_SECONDS})


UP = Scene(_ours("publish(), broker up"))
DEAD = Scene(_ours("publish(), broker dead"), is_dead=True)
MARKED = Scene(_ours("publish(), broker known to be dead", marked=True), is_dead=True)
TIGHT_UP = Scene(_ours("publish() in a tight loop, broker up", pause=0), count=_TIGHT_COUNT)
TIGHT_DEAD = Scene(_ours("publish() in a tight loop, broker dead", pause=0), is_dead=True, count=_TIGHT_COUNT)
UNSYNCED_UP = Scene(_ours("publish() without the disk sync, broker up", synced=False))
UNSYNCED = Scene(
    _ours("publish() without the disk sync, broker known to be dead", synced=False, marked=True), is_dead=True
)
TIGHT_UNSYNCED_UP = Scene(
    _ours("publish() without the disk sync in a tight loop, broker up", synced=False, pause=0), count=_TIGHT_COUNT
)
TIGHT_UNSYNCED = Scene(
    _ours(
        "publish() without the disk sync in a tight loop, broker known to be dead", synced=False, marked=True, pause=0
    ),
    is_dead=True,
    count=_TIGHT_COUNT,
)
INSERT = Scene(_bare("bare SQLite insert, synced", synced=True))
INSERT_UNSYNCED = Scene(_bare("bare SQLite insert, not synced", synced=False))
TIGHT_INSERT_UNSYNCED = Scene(
    _bare("bare SQLite insert, not synced, in a tight loop", synced=False, pause=0), count=_TIGHT_COUNT
)
TALUS = Scene(_paced(rates.TALUS))
TALUS_KEPT = Scene(_paced(rates.TALUS_KEPT))
SCENES = (
    UP, DEAD, MARKED, TIGHT_UP, TIGHT_DEAD, UNSYNCED_UP, UNSYNCED, TIGHT_UNSYNCED_UP, TIGHT_UNSYNCED,
    INSERT, INSERT_UNSYNCED, TIGHT_INSERT_UNSYNCED, TALUS, TALUS_KEPT,
)  # fmt: skip
PAIRS = (
    (DEAD, UP),
    (MARKED, UP),
    (TIGHT_DEAD, TIGHT_UP),
    (UP, INSERT),
    (UP, TALUS),
    (UP, TALUS_KEPT),
    (UNSYNCED_UP, INSERT_UNSYNCED),
    (UNSYNCED_UP, TALUS),
    (UNSYNCED, INSERT_UNSYNCED),
    (TIGHT_UNSYNCED_UP, TIGHT_INSERT_UNSYNCED),
    (TIGHT_UNSYNCED, TIGHT_INSERT_UNSYNCED),
)


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return median and 99th percentile of each pair, taken round by round."""
    findings = Findings()
    laps: dict[str, list[list[float]]] = defaultdict(list)
    for scene in plan.turns(SCENES):
        laps[scene.label].append([1000 * lap for lap in _run(ground, plan, scene)["laps"]])
    for ours, other in PAIRS:
        for name, statistic in STATISTICS:
            findings.add(
                f"{ours.label}, {name}",
                "ms",
                [statistic(samples) for samples in laps[ours.label]],
                [statistic(samples) for samples in laps[other.label]],
                other.label,
            )
    findings.laps = dict(laps)
    return findings


def _run(ground: Ground, plan: Plan, scene: Scene) -> dict[str, Any]:
    with ground.job(plan.count(scene.count), warm_up=_WARM_UP) as job, closed_port() as port:
        return run(scene.side, replace(job, port=port) if scene.is_dead else job, ground.folder)
