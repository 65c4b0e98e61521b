"""
Write docs/benchmarks.md from the figures: nothing on the page is typed by hand.

    .venv/bin/python -m benchmarks.page

writes the page from the figures of the last measurement. Not here: measuring. `benchmarks/last.json` holds the figures
of the page, and a test compares the page with it.
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
from dkist_processing_core.bus import MOST_AHEAD

ROOT = Path(__file__).parents[1]
LAST = ROOT / "benchmarks" / "last.json"
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
_FIGURES = {
    "batch": BATCH,
    "prefetch": MOST_AHEAD,
    "release": RELEASE,
    "collector_rounds": COLLECTOR_ROUNDS,
    "worker_rounds": WORKER_ROUNDS,
}

_HEAD = """\
# Benchmarks

The cost of the library, compared with other AMQP clients and with the release that it replaces. All figures are from
one run of

    make bench BENCH_ARGS=--write-docs

which writes this page. Without the argument, `make bench` only measures. It ran on
{machine}; load average before: {load:.2f}.
{apart}Figures of other machines differ, and vary on a busy machine. Compare the ratios of a run on your machine.
"""
_HOW = """\
## How it is measured

* Each side of a comparison runs in a separate process. The sides run in turn, in {rounds} rounds. A row shows the
  medians; its ratio is the median of the ratios of the rounds. The plots and `build/bench-detail.json` show the
  spread.
* All sides use one private RabbitMQ node on loopback. Each measurement has a new virtual host, so that all queues are
  empty. Exchange, bindings and bodies are the same: persistent messages of 1 KiB of JSON to `workflow.events.x`,
  which is bound to the archive stream, where the library's events go. Clients that support `mandatory` use it. The
  second setting has a durable classic queue instead of the archive.
* Before the clock starts, the connections are open, some messages have been sent, and the bodies exist. The clock
  stops at the last confirm; for the unconfirmed client, when the broker has closed the connection. *Bulk publishing*
  is different for the library: the time includes redacting and encoding each event, the journal (groups of {batch},
  each synced to disk before the next), sending, the confirm, and the removal from the journal. No other client has a
  journal.
* The other clients are installed from a separate lock file (`requirements/peers.txt`) into `.venv-peers`. talus adds
  an id to each body, uses its own properties, and declares its queue at each connection, as in the replaced system.
* The counts of the journal are checked after each delivery and each fault. If an event was lost or set aside, the
  figure is rejected.
"""
_TEXTS = {
    "rates": """\
## Rate

Confirmed messages per second.

* *Draining* delivers the messages of a filled journal.
* *Bulk publishing* includes all steps of an event: it is redacted, encoded, written to the journal in groups of
  {batch}, sent and confirmed. The other clients do not redact or encode while the clock runs.
* *Bulk publishing, encoded before* starts with encoded messages, as the other clients do. It writes them to the
  journal in the same groups, sends them, and waits for the confirms. This is the direct comparison.

In the plot, the library is blue and the other clients are grey.

![Rate of each side](images/bench-rate.png)
""",
    "publish": """\
## The cost of `publish()` for a task

One event is published every 5 ms, as a busy task may do, unless the row names a tight loop. When `publish()` returns,
the event is synced to disk. `publish()` does not wait for the broker, so a dead broker changes little. *Known to be
dead* means that an earlier process has recorded that the broker could not be reached. The bare insert is SQLite alone
with the same bytes (yellow in the plot); it shows the part of the disk. A client with a kept connection may return
earlier, since it writes nothing to disk. If it cannot deliver a message, its caller must keep the message.

*Without the disk sync* shows the time of the library itself: a tight loop with warm caches, the pace of a task with
cold caches. If the *broker is known to be dead*, the delivering thread is idle. If the *broker is up*, the thread
works at the same time, and the caller sometimes waits for it. To exclude SQLite, subtract the bare insert in the same
setting. The plot shows the medians of the table.

![Latency of publish](images/bench-latency.png)
""",
    "exit": """\
## The exit of a task when no service answers

The wall time of the complete process of a task that does nothing. No fault loses an event: each run checks that all
events are in the outbox afterwards. A *whole run* is a workflow of one such task with `Workflow.run`, from the start
to the end of the engine's process. Engine and task each wait at most `EVENT_FLUSH_TIMEOUT`, so a local run of one
task may wait twice.
""",
    "memory": """\
## A long outage

A publisher publishes while its broker is down. Then the broker returns, and all events are delivered. This is
measured once.
""",
    "growth": """\
## The growth of the cost

The cost depends on the number of pending events in the journal, and on the number of processes that publish into one
journal in tight loops. All processes share the processors and the disk. The minimum and the maximum of at least five
rounds are in brackets.
""",
    "consuming": """\
## Consumers

Events per second of a `Consumer`. The minimum and the maximum of the rounds are in brackets.

* *Stored* is the intake: it receives from a filled durable classic queue of 1 KiB events, decodes each event, stores
  it once, syncs the batch to the disk, and acknowledges it. The other clients decode each message and acknowledge it;
  they have no inbox, and store nothing. All have a prefetch of {prefetch}, except for the row of talus with its own.
  That row waits for the broker after each message, so its ratio depends on the machine most: where processes take
  turns more quickly, it was 3.5 to 4.3 in three runs, while the others were as here.
* *Effects* are the rows that a handler with a `transaction` writes. The inbox is filled, and each effect is committed
  together with the mark of its event. The hand-written loop has a separate small table: it claims the next row with
  `FOR UPDATE SKIP LOCKED`, writes the effect, marks the row, and commits. PostgreSQL syncs each commit to the disk.
* *Storing* and *claiming and marking* show the inbox alone, with many rows in it. One row in ten waits, the others are
  done, as after some days with a backlog.

SQLite is the file beside the journals. The replay of a whole archive into a consumer takes minutes and is measured
by `python -m benchmarks.replay_into_inbox 1000000`. It also counts the missing and the repeated effects.
""",
    "dashboard": """\
## The dashboard and its store

One round, since the numbers are large. The events are those of runs of six to fourteen tasks, with retries, failures
with stacks, progress, samples and a profile of each attempt.

* *Events into the store* are taken from a filled queue into the inbox, from there into the store, and into the rows of
  their runs. *Consumer alone* takes them into the inbox and handles them without an effect.
* *Room of an attempt* is that of all tables of the store with their indexes, divided by the number of attempts. Stacks,
  logs and profiles are stored apart, compressed.
* The pages are rendered as by the server, without the network, from an open store; the first time of each address is
  left out.
""",
    "pages": """\
## The dashboard's pages with millions of attempts

As above; the millions of attempts are copies of generated runs, with earlier times. Pages *in the past* show a time at
which the shown runs went on. The *memory* is the peak of the process that renders all these pages in turn.
""",
    "startup": """\
## What a task's process costs

Compared with a process that only imports the libraries that every such package needs.
""",
    "telemetry": """\
## What telemetry costs a task

The first rows are the process of a no-op task as its launcher starts it, to its end. It exports spans, metrics and log
records, and its collector is up. A launched process writes them to the journal of telemetry, and the launcher sends
them, so its row includes the delivery. Instrumentors are off: each costs what its library costs.

The *exit* is the time from the end of the task's `run` to the end of its last process. With launchers, this includes
the time that the launcher waits for the collector. It *refuses* if its port is closed. It is *silent* if it accepts a
connection and never answers.

Many spans and log records in a tight loop are appended to the journal by the task itself. If one is lost, the figures
are rejected. The minimum and the maximum of the rounds are in brackets.
""",
    "recorder": """\
## What the recorder costs a task

The process is that of a task as its launcher starts it, with and without a
[recorder](explanation/ends.md#the-recorder), in pairs. One task computes in Python alone, the other one writes a file
to the disk and reads it from there. Each does its work in *slices* of about a second, in turns with and without the
thread that takes the stacks; the *added* time is the median of the differences within the pairs. The no-op task has a
process for each figure, and its added time is the difference between the shortest of twenty with a recorder and of
twenty without one, in the median of the rounds.

The *launcher* follows a task whose ten processes wait. Its processor time is counted without the first ten seconds,
for the half minute in which it reports one sign of life. The minimum and the maximum of the rounds are in brackets.
""",
    "launch": """\
## The time until a task starts on a worker

Seconds from the start of the operator's command to the first line of the task's `run`. The release is a small
pipeline that requires this package with all its dependencies. A *second task* uses the environment that the first
task has built. *As established* means that each task creates an environment: `python -m venv`, `pip install --upgrade
pip`, `pip list`, `pip install` of the release, `pip list`, and the task. The time to remove the environment is not
counted. pip finds all wheels in a local folder, which corresponds to a warm cache, and queries the index for the
available versions. A *first task of a release* starts when other releases have filled the cache of uv.

The time that the launcher adds is compared with two alternatives. The first is the task's `run` alone, called by the
Python of the same environment without events or spans. The second is the same task called by hand, which opens the
journal and reports itself. There is no broker and no collector. The counts of the journal are checked at the end. The
minimum and the maximum of the rounds are in brackets, or of a hundred processes that find an environment.
""",
    "parse": """\
## The cost of the callbacks for the engine

Airflow parses an exported file repeatedly, and once more for each task. A *look* is Airflow's own function, which
executes the file and serializes its DAG, in a fork of a process that has loaded Airflow. Therefore the imports of the
file are executed each time. The comparison is the same file without the imports, callbacks and macros of this
library.
""",
    "replaced": """\
## Beside the release that it replaces

This section compares the library with dkist-processing-core {release}, as published. Both sides run on Python 3.13,
for which the release was published, and take turns. The minimum and the maximum of the rounds are in brackets.

*Processes* run in two environments with the same packages at the same versions: those of a published pipeline package
with its requirements. They differ only in this library. The older release instruments the libraries that it finds. It
imports less if it is *installed alone*, with only its requirements. This package imports a name at its first use, so
the import of the package alone means little. Each pipeline imports `TaskBase` and `Workflow`. Settings, telemetry,
events and bus are imported when a task is constructed or called, so the process of the no-op task includes them.
Nothing is subtracted: the start of Python is in the first row. With this library, the no-op task writes its two
events to the journal, which each run checks. With the older release, it publishes nothing.

The *collector* is set for both sides by the keys `otlp-traces-endpoint` and `otlp-metrics-endpoint` of `MESH_CONFIG`,
which both support. It *refuses* if the port is closed. It is *silent* if it accepts a connection and never answers.
Each run checks that the process has tried to connect. There are at most {collector_rounds} rounds.

A *second task on a worker* is launched by the exported DAG of each side. For the older release, this is exactly its
command: upgrade pip of the host, `python3 -m venv`, upgrade pip, `pip install` of the pipeline with its extra
`frozen`, which pins all requirements, and the task. pip finds all wheels in a local folder, which corresponds to a
warm cache, and queries the index for the available versions. The pip of the host is already up to date. The pipeline
is small and requires only the release. This library finds the environment that the first task has built; in the first
row, a process calls `Environments.prepare` and ends. There are at most {worker_rounds} rounds.

A *look* is that of the section above, with the same measuring code, in the two environments of the processes, which
contain the same Airflow. Both sides export the same pipeline. The *added* time is the difference from a look at the
same file without the parts of its side: for the older release, its failure callback.

The *environment* on disk holds a release and its requirements, at the versions of the same lock file, without an
installer and without bytecode. It is counted once.
""",
}


@dataclass(frozen=True)
class Results:
    """All figures of one run, with a general description of the machine."""

    machine: str
    load: float
    """The load average of the last minute before the run: it shows whether the machine was busy."""
    rounds: int
    parts: dict[str, list[Row]]
    spreads: dict[str, dict[str, list[float]]]
    """Least and most of `ours` and `other` by the key of a row, for the rows that show them."""
    apart: dict[str, str] = field(default_factory=dict)
    """For each part that was measured again in a later run: the machine and the conditions, in words."""

    @classmethod
    def read(cls, path: Path = LAST) -> Self:
        """Return the stored figures."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def conditions(self) -> str:
        """Where and how the part was measured, in words, as the page states it of a part of another run."""
        return f"on {self.machine}; {self.rounds} rounds; load average before: {self.load:.2f}"

    def with_parts_of(self, newer: Self) -> Self:
        """Return these figures with the parts of a later run in place, marked as measured separately."""
        renewed = {key_of(row) for part in newer.parts for row in self.parts.get(part, [])}
        kept = {key: spread for key, spread in self.spreads.items() if key not in renewed}
        return replace(
            self,
            parts=self.parts | newer.parts,
            spreads=kept | newer.spreads,
            apart=self.apart | dict.fromkeys(newer.parts, newer.conditions),
        )

    def write(self, path: Path = LAST) -> None:
        """Store the figures."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def describe_machine(processors: int, rabbitmq: str) -> str:
    """Return a general description of the machine that measures."""
    return (
        f"a Linux machine with {processors} processors, RabbitMQ {rabbitmq} on the same machine, "
        f"Python {platform.python_version()}"
    )


def shown(value: float) -> str:
    """Return a figure as the page shows it: three significant digits, and a separator for thousands."""
    if abs(value) >= 1000:  # noqa: PLR2004 - from here on the three digits are thousands
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


Spreads = Mapping[str, Mapping[str, list[float]]]


def table(rows: Iterable[Row], spreads: Spreads = MappingProxyType({})) -> str:
    """Return rows as a table, with the name of a figure only where it changes, and the spread if there is one."""
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
    """Return the extremes, if there are any: a limit is the same in each round."""
    return f" ({shown(least)} to {shown(most)})" if least < most else ""


def aims_table(rows: list[Row]) -> str:
    """Return each aim, its figure, and whether the figure reaches it."""
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
    apart = "A part that was measured in another run states this.\n" if results.apart else ""
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
    """Return where a part was measured, if that was in a separate run."""
    return f"Measured in another run,\n{results.apart[part]}.\n\n" if part in results.apart else ""


if __name__ == "__main__":
    PAGE.write_text(render(Results.read()), encoding="utf-8")
