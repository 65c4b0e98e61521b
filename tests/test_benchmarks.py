"""
The figures of the benchmarks: how samples become rows, rows the page, and whether the page is that of its figures.

Not here: measuring, which is `make bench`.
"""

import io
import json
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.aims import AIMS, Aim
from benchmarks.corpus import event_at, write_messages
from benchmarks.figures import Findings, Row, compare, percentile
from benchmarks.ground import Ground, Side, run
from benchmarks.plan import Plan
from benchmarks.rates import BULK, BULK_ENCODED, DRAIN
from benchmarks.sides.job import Job
from dkist_processing_core.events import encode
from tests.services.rabbitmq import RabbitMQNode

ROW = Row(name="draining", unit="messages/s", ours=20_000.0, other=12_345.678, other_name="a peer", ratio=1.62)


def results() -> page.Results:
    """Give the figures that the page in docs/ shows."""
    return page.Results.read()


def test_the_page_shows_the_last_figures() -> None:
    """docs/benchmarks.md is what the program writes from the figures kept beside it, to the letter."""
    expected = page.render(results())

    assert page.PAGE.read_text(encoding="utf-8") == expected


def test_every_plot_of_the_page_is_there_and_small() -> None:
    """The page's images are in the repository, and do not bloat it."""
    sizes = {path.name: path.stat().st_size for path in page.IMAGES.glob("bench-*.png")}

    named = {part.split(")")[0] for part in page.PAGE.read_text().split("](images/")[1:]}
    assert set(sizes) == named
    assert max(sizes.values()) < 100_000


def test_last_figures_are_rows_of_the_promised_form() -> None:
    """Whoever reads bench.json finds the same six keys in each row, figures as numbers."""
    rows = [row for part in results().parts.values() for row in part]

    assert rows
    assert {tuple(row) for row in rows} == {("name", "unit", "ours", "other", "other_name", "ratio")}
    assert {type(row[key]) for row in rows for key in ("ours", "other", "ratio")} <= {float, int}


def test_every_aim_finds_its_figure() -> None:
    """An aim that names no row would never be missed."""
    rows = [row for part in results().parts.values() for row in part]

    without = [aim.text for aim in AIMS if aim.value(rows) is None]

    assert without == []


def test_a_row_holds_medians_and_the_median_of_the_ratios_in_pairs() -> None:
    """A machine that gets slower during a run slows both sides, and the ratio stays."""
    row = compare("draining", "messages/s", [200.0, 100.0, 60.0], [100.0, 50.0, 20.0], "a peer")

    expected = Row(name="draining", unit="messages/s", ours=100.0, other=50.0, other_name="a peer", ratio=2.0)
    assert row == expected


def test_a_finding_keeps_the_spread() -> None:
    """Beside the medians it is told how far the samples lie apart."""
    findings = Findings()

    findings.add("draining", "messages/s", [3.0, 1.0, 2.0], [1.0, 1.0, 1.0], "a peer")

    assert findings.notes["draining | a peer"]["ours"] == {"median": 2.0, "least": 1.0, "most": 3.0, "samples": 3}


def test_percentile_is_a_sample() -> None:
    """The 99th percentile is a call that was made, and of few calls the slowest."""
    assert percentile([5.0, 1.0, 3.0], 0.99) == 5.0
    assert percentile([float(number) for number in range(101)], 0.99) == 99.0


def test_a_table_names_a_figure_once_for_all_its_peers() -> None:
    """Rows of one figure read as a group."""
    shown = page.table([ROW, Row(**{**ROW, "other_name": "another"})]).splitlines()[2:]

    assert shown == [
        "| draining, messages/s | 20,000 | 12,346 | a peer | 1.62 |",
        "|  | 20,000 | 12,346 | another | 1.62 |",
    ]


@pytest.mark.parametrize(("value", "text"), [(12_345.6, "12,346"), (123.4, "123"), (1.5, "1.50"), (0.01234, "0.0123")])
def test_figures_are_shown_with_the_digits_that_count(value: float, text: str) -> None:
    """Nobody measures to the seventh digit."""
    assert page.shown(value) == text


@pytest.mark.parametrize(("ratio", "is_met"), [(0.79, False), (0.8, True), (1.4, True)])
def test_an_aim_that_is_missed_is_said_to_be(ratio: float, is_met: bool) -> None:  # noqa: FBT001 - a table's column
    """The page does not pass over what was not reached."""
    aim = Aim("draining", "draining", "a peer", "ratio", least=0.8)

    value = aim.value([Row(**{**ROW, "ratio": ratio})])

    assert value == ratio
    assert aim.is_met_by(value) is is_met


def test_sides_take_turns_and_nobody_always_comes_first() -> None:
    """What one side leaves behind, such as a warm disk, does not always help the same one."""
    turns = list(Plan(rounds=3).turns(["ours", "one", "two"]))

    assert turns == ["ours", "one", "two", "one", "two", "ours", "two", "ours", "one"]


@pytest.mark.parametrize("size", [1024, 16 * 1024])
def test_every_body_has_the_size_that_is_told(size: int) -> None:
    """1 KiB means 1024 bytes, on both sides of a comparison."""
    sizes = {len(encode(event_at(number, size))) for number in (0, 7, 99_999)}

    assert sizes == {size}


def test_a_side_reads_the_job_and_the_messages_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers send the bytes that the library sends."""
    path = tmp_path / "messages"
    write_messages(path, 5)
    job = Job("host", 1, "/", "user", "word", "x", "q", {}, str(path), "state", count=3, warm_up=2)
    monkeypatch.setattr("sys.stdin", io.StringIO(job.to_line()))

    first, timed = Job.read().prepared()

    assert [message.body for message in (*first, *timed)] == [encode(event_at(number)) for number in range(5)]
    assert len(timed) == 3
    assert json.loads(timed[0].body)["id"] == timed[0].message_id


@pytest.mark.parametrize("side", [DRAIN, BULK, BULK_ENCODED], ids=lambda side: side.label)
def test_the_librarys_sides_deliver_what_they_are_told(side: Side, rabbitmq: RabbitMQNode, state_dir: Path) -> None:
    """Each says how long it took, and has checked the books before."""
    ground = Ground(rabbitmq, state_dir)

    with ground.job(30, warm_up=5) as job:
        found = run(side, job, ground.folder)

    assert 0 < found["seconds"] < 30
