"""
The path of an event is short, and the page about it lists the files on the path of a task's run for each bus.

Not here: how the path is traced (flow).
"""

import re
from pathlib import Path

import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.flow import Flow, trace
from tests.services.broker import Broker
from tests.test_architecture import ROOT

pytestmark = pytest.mark.on_failure(
    "docs/explanation/flow.md lists the path. This prints that of the current code: .venv/bin/python -m tests.flow"
)

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "flow.md"
MOST_CALLS, MOST_FILES, MOST_FILES_TO_CODEC = 8, 7, 2
MOST_FILES_TO_BROKER, MOST_FILES_TO_VIEW = 4, 6
MOST_LINES = 300


def listed(title: str) -> list[list[str]]:
    """Return the files in the table of a section of the page, row by row: more than one where the buses differ."""
    section = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [re.findall(r"`([\w/]+\.py)`", row) for row in re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)]


@pytest.fixture
def on_journal() -> Flow:
    """The path on the embedded journal."""
    return trace(DKISTProcessingCoreConfiguration())


@pytest.fixture
def on_broker(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """The path on RabbitMQ."""
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)
    return trace(DKISTProcessingCoreConfiguration())


def test_the_path_to_the_journal_is_short_and_is_listed(on_journal: Flow) -> None:
    """A reader opens few files, each once, and finds them on the page in the order of the calls."""
    assert len(on_journal.calls_to_journal) <= MOST_CALLS
    assert len(on_journal.files_to_journal) <= MOST_FILES
    assert len(on_journal.files_to_codec) <= MOST_FILES_TO_CODEC
    assert on_journal.entered_again == []
    assert listed("From the task to the journal") == [[file] for file in on_journal.files_to_read]


def test_the_page_counts_the_calls_and_files_to_the_journal(on_journal: Flow) -> None:
    """The numbers in the text are those of the traced run."""
    numbers = re.search(
        r"takes (\d+) calls from `TaskBase.__call__` to `Journal.append`,\s+through (\d+) files.*?(\d+) more files",
        PAGE.read_text(),
        flags=re.DOTALL,
    )

    assert numbers is not None
    counted = (on_journal.calls_to_journal, on_journal.files_to_journal, on_journal.files_to_codec)
    assert list(map(int, numbers.groups())) == list(map(len, counted))


def test_both_buses_share_the_path_to_the_journal(on_journal: Flow, on_broker: Flow) -> None:
    """The calls to the journal are the same, whether its events wait for a broker or not."""
    assert on_broker.calls_to_journal == on_journal.calls_to_journal


def test_the_path_to_the_broker_is_short_and_is_listed(on_broker: Flow) -> None:
    """The code that delivers an event is in few files, none of them long."""
    files = on_broker.files_to_broker

    assert len(files) <= MOST_FILES_TO_BROKER
    assert [file for file in files if len((ROOT / file).read_text().splitlines()) > MOST_LINES] == []
    assert listed("From the journal to the broker") == [[file] for file in files]


def test_the_path_to_a_view_is_short_and_is_listed(on_journal: Flow, on_broker: Flow) -> None:
    """A consumer's path has few files, of which only the receiver depends on the bus."""
    for flow in (on_journal, on_broker):
        assert len(flow.files_to_view) <= MOST_FILES_TO_VIEW
    rows = listed("From a received message to a view")
    assert len(rows) == len(on_broker.files_to_view)
    assert rows[0] == [on_broker.files_to_view[0], *(set(on_journal.files_to_view) - set(on_broker.files_to_view))]
    assert [file for row in rows for file in row if file in on_broker.files_to_view] == on_broker.files_to_view


def test_the_page_names_files_that_exist() -> None:
    """Each file in a table exists, including the files to look in as well."""
    rows = re.findall(r"^\| `.*$", PAGE.read_text(), flags=re.MULTILINE)
    named = {file for row in rows for file in re.findall(r"`([\w/]+/(?:\w+\.py)?)`", row)}

    assert named
    assert {file for file in named if not (ROOT / file).exists()} == set()
