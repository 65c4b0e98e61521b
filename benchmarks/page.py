"""
docs/benchmarks.md, written from the figures: nothing on it is typed by hand.

Not here: measuring. `benchmarks/last.json` holds what the page shows, and a test holds the page to it.
"""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

from benchmarks.aims import AIMS
from benchmarks.figures import Row, key_of
from benchmarks.rates import BATCH
from benchmarks.replaced import COLLECTOR_ROUNDS, RELEASE, WORKER_ROUNDS

ROOT = Path(__file__).parents[1]
LAST = ROOT / "benchmarks" / "last.json"
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
_FIGURES = {
    "batch": BATCH,
    "release": RELEASE,
    "collector_rounds": COLLECTOR_ROUNDS,
    "worker_rounds": WORKER_ROUNDS,
}

_HEAD = """\
# Benchmarks

What delivery costs, beside the clients that one would use instead. The figures are those of one run of

    make bench BENCH_ARGS=--write-docs

which writes this page; without its argument it only measures. It ran on
{machine}; load average before: {load:.2f}.
{apart}Figures of another machine differ, and on a busy one they scatter: compare ratios, from one run of your own.
"""
_HOW = """\
## How it is measured

* Every side of a comparison runs in a process of its own, in turn, {rounds} rounds of all; a row shows the medians, and
  as its ratio the median of the rounds' ratios. The spread is drawn in the plots, and in `build/bench-detail.json`.
* All sides talk to one private RabbitMQ node on loopback, each time in a fresh virtual host, so that nobody meets a
  fuller queue. Exchange, bindings and bodies are the same: persistent messages of 1 KiB of JSON to `workflow.events.x`,
  bound to the archive stream, which is where the library's events go; the clients that can ask for
  `mandatory` do. The same with a durable classic queue in the archive's place is the second setting.
* Connections stand and some messages have gone before the clock starts. It stops when the last confirm is in; for the
  unconfirmed ceiling when the broker has said goodbye. Bodies are made before it starts, but for what *bulk
  publishing* says of the library: there it covers redacting and encoding each event, the journal (groups of {batch},
  each synced to disk before the next), sending, the confirm, and the removal from the journal. No peer journals.
* The peers are installed from a lock of their own (`requirements/peers.txt`) into `.venv-peers`. talus adds an id of
  its own to each body, chooses its own properties, and declares its queue each time it connects, as it does in the
  system that this one replaces.
* The journal's books are checked after every delivery and every fault: a figure for which an event was lost or set
  aside is refused.
"""
_TEXTS = {
    "rates": """\
## Rate

Whole messages per second, confirmed. *Draining* empties a journal that was filled before. *Bulk publishing* is the
whole way of an event: it is redacted, encoded, journalled in groups of {batch}, sent and confirmed, while no peer
redacts or encodes anything as the clock runs. *Bulk publishing, encoded before* starts from the same thing as the
peers, messages whose bodies are ready, and journals them in the same groups, sends and confirms them: it is the one
that compares like with like. The plot has the library in blue and its peers in grey.

![Rate of each side](images/bench-rate.png)
""",
    "publish": """\
## What `publish()` costs a task

One event each 5 ms, as a busy task may publish them, unless a tight loop is named. When `publish()` returns, the event
is synced to disk; the broker is not waited for, so a dead one changes little. *Known to be dead* means that an earlier
process has left word of it. The bare insert is SQLite alone with the same bytes (yellow in the plot): the part of the
disk. A client with a kept connection may return sooner: it has written nothing down, and what it cannot deliver is its
caller's to keep.

*Without the disk sync* leaves what the library itself takes: a tight loop shows it with warm caches, the pace of a task
with cold ones. With the *broker known to be dead* the thread that delivers is idle; with the *broker up* it works
beside the caller, who waits for it now and then. To leave out SQLite, subtract the bare insert of the same manner. The
plot draws what the table says, medians of the rounds.

![Latency of publish](images/bench-latency.png)
""",
    "exit": """\
## A task's exit when nothing answers

The wall time of the whole process of a task that does nothing, from its start to its end. A fault never costs an event:
all are in the outbox afterwards, which each run checks. A *whole run* is that of a workflow of one such task by
`Workflow.run`, from the start of the engine's process to its end: engine and task each wait at most
`EVENT_FLUSH_TIMEOUT`, so a local run of one task may wait twice.
""",
    "memory": """\
## A long outage

A publisher whose broker is away while it publishes; then the broker returns, and all is delivered. Measured once.
""",
    "growth": """\
## How the cost grows

With what is pending in the journal, and with the processes that publish into one journal in tight loops, on the same
two things that all of them share: the processors and the disk. In brackets stand the least and the most of the rounds,
of which there are five at least.
""",
    "startup": """\
## What a task's process costs

Beside a process that only imports the libraries that any such package needs.
""",
    "launch": """\
## How soon a task begins on a worker

Seconds from the start of the operator's command to the first line of the task's `run`, for a release that is a tiny
pipeline and needs this package with all its dependencies. A *second task* finds the environment that the first one
has built. *As established*, each task makes one: `python -m venv`, `pip install --upgrade pip`, `pip list`,
`pip install` of the release, `pip list`, and the task; what it takes to remove it afterwards is not counted. Its pip
finds every wheel in a folder beside it, as in the warmest of caches, and asks the index which versions there are. A
*first task of a release* is launched where other releases have filled uv's cache.

What the launcher adds is told beside the task's `run` alone, called by the Python of the same environment without any
event or span, and beside the same task called by hand, which opens the journal and reports for itself. There is neither
broker nor collector; the journal's books are checked at the end. In brackets stand the least and the most of the
rounds, and for a process that finds an environment those of a hundred.
""",
    "parse": """\
## What the callbacks cost the engine

Airflow looks at an exported file again and again, and once more for each task. A look is Airflow's own function, which
executes the file and serializes its DAG, in a fork of a process that has Airflow loaded: what the file imports is
imported each time. Beside it stands the same file without our imports, callbacks and macros.
""",
    "replaced": """\
## Beside the release that it replaces

dkist-processing-core {release}, as published. Both sides run on Python 3.13, for which it was published, and take
turns; in brackets stand the least and the most of the rounds.

*Processes* run in two environments that hold the same packages at the same versions, those of a published pipeline
package with all that it requires, and differ in this library alone. The older release instruments what it finds there,
and imports less where it is *installed alone*, with nothing but what it requires. Our package imports a name when it is
first used, so that its own name alone tells nothing; to import `TaskBase` and `Workflow` is what each pipeline does.
Settings, telemetry, events and bus are imported when a task is made or called: the no-op task's process has all of it.
Nothing is subtracted: Python's own start stands in the first row. The no-op task journals its two events with ours,
which each run checks, and publishes nothing with the other.

The *collector* is named to both by the one setting that both know, `otlp-traces-endpoint` and `otlp-metrics-endpoint`
of `MESH_CONFIG`; it *refuses* where nobody listens at the port, and is *silent* where it accepts a connection and never
speaks. That each process has tried it is checked. At most {collector_rounds} rounds.

A *second task on a worker* is launched by what each side exports. For the older release this is its command, to the
letter: the host's pip upgraded, `python3 -m venv`, pip upgraded, `pip install` of the pipeline with its extra `frozen`,
which pins all that the release requires, and the task. Its pip finds every wheel in a folder beside it, as in the
warmest of caches, and asks the index which versions there are; the host's pip is up to date before. The pipeline is
tiny and needs the release alone. Ours finds the environment that the first task has built: for the first row in a
process that calls `Environments.prepare` and ends. At most {worker_rounds} rounds.

A *look* is that of the part above, by the same measuring code, in the two environments of the processes, which hold the
same Airflow. The pipeline is the same text, exported by each side. What is *added* is the look less that at the same
file without what its side attaches: for the older release its failure callback.

The *environment* on disk is one that holds a release and what it requires, at the versions of the same lock, without an
installer and without bytecode. It is counted once.
""",
}


@dataclass(frozen=True)
class Results:
    """All figures of one run, and in general terms where they come from."""

    machine: str
    load: float
    """The load average of the last minute before it, which tells of what else ran."""
    rounds: int
    parts: dict[str, list[Row]]
    spreads: dict[str, dict[str, list[float]]]
    """Least and most of `ours` and `other` by the key of a row, for the rows that show them."""
    apart: dict[str, str] = field(default_factory=dict)
    """Of the parts that were measured anew since, each in a run of its own: where and how, in words."""

    @classmethod
    def read(cls, path: Path = LAST) -> Self:
        """Return the figures that were kept."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def conditions(self) -> str:
        """Where it ran, in words, as a part tells that was measured apart."""
        return f"on {self.machine}; {self.rounds} rounds; load average before: {self.load:.2f}"

    def with_parts_of(self, newer: Self) -> Self:
        """Return these figures, with those parts in place that a later run has measured, which are told apart."""
        renewed = {key_of(row) for part in newer.parts for row in self.parts.get(part, [])}
        kept = {key: spread for key, spread in self.spreads.items() if key not in renewed}
        return replace(
            self,
            parts=self.parts | newer.parts,
            spreads=kept | newer.spreads,
            apart=self.apart | dict.fromkeys(newer.parts, newer.conditions),
        )

    def write(self, path: Path = LAST) -> None:
        """Keep the figures."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def describe_machine(processors: int, rabbitmq: str) -> str:
    """Return where something was measured, in general terms."""
    return (
        f"a Linux machine with {processors} processors, RabbitMQ {rabbitmq} on the same machine, "
        f"Python {platform.python_version()}"
    )


def shown(value: float) -> str:
    """Return a figure as the page shows it: three digits that count, thousands apart."""
    if abs(value) >= 1000:  # noqa: PLR2004 - from here on the three digits are thousands
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


Spreads = Mapping[str, Mapping[str, list[float]]]


def table(rows: Iterable[Row], spreads: Spreads = MappingProxyType({})) -> str:
    """Return rows as a table, the name of a figure only where it changes, the spread where there is one."""
    lines = ["| what | ours | beside it | | ratio |", "|---|---:|---:|---|---:|"]
    before = ""
    for row in rows:
        name = "" if row["name"] == before else f"{row['name']}, {row['unit']}"
        before = row["name"]
        spread = spreads.get(key_of(row), {})
        ours, other = (
            shown(value) + _between(*spread.get(side, (value, value)))
            for side, value in (("ours", row["ours"]), ("other", row["other"]))
        )
        figures = [name, ours, other, row["other_name"], shown(row["ratio"])]
        lines.append(f"| {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _between(least: float, most: float) -> str:
    """Return the extremes, where there are any: a limit is what it is in each round."""
    return f" ({shown(least)} to {shown(most)})" if least < most else ""


def aims_table(rows: list[Row]) -> str:
    """Return what was aimed at, the figure and whether it reaches that."""
    lines = ["| aim | limit | measured | |", "|---|---|---:|---|"]
    for aim in AIMS:
        value = aim.value(rows)
        if value is not None:
            word = "met" if aim.is_met_by(value) else "**missed**"
            other = aim.other(rows)
            beside = "" if other is None else f" ({aim.other_name}: {shown(other)})"
            lines.append(f"| {aim.text}{beside} | {aim.limit} | {shown(value)} | {word} |")
    return "\n".join(lines) + "\n"


def render(results: Results) -> str:
    """Return the page."""
    apart = "A part that was measured in another run says so.\n" if results.apart else ""
    sections = [_HEAD.format(machine=results.machine, load=results.load, apart=apart)]
    sections.append("## At a glance\n\n" + aims_table([row for rows in results.parts.values() for row in rows]))
    sections += [
        f"{text.format_map(_FIGURES)}\n{_apart(results, part)}{table(results.parts[part], results.spreads)}"
        for part, text in _TEXTS.items()
        if part in results.parts
    ]
    sections.append(_HOW.format(rounds=results.rounds, batch=BATCH))
    return "\n".join(sections)


def _apart(results: Results, part: str) -> str:
    """Return where a part was measured, if that was in a run of its own."""
    return f"Measured in another run,\n{results.apart[part]}.\n\n" if part in results.apart else ""
