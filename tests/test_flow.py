"""
The path of an event is short: limits for the files and calls that one run of a task passes on each bus.

Not here: how the path is traced (flow).
"""

import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.flow import Flow, trace
from tests.services.broker import Broker

MOST_FILES_TO_BROKER, MOST_FILES_TO_VIEW = 4, 6


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


def test_an_event_enters_each_file_once_on_its_way_to_the_journal(on_journal: Flow) -> None:
    """A reader of the path never returns to a file."""
    assert on_journal.entered_again == []


def test_both_buses_share_the_path_to_the_journal(on_journal: Flow, on_broker: Flow) -> None:
    """The same calls lead to the journal, whether its events wait for a broker or not."""
    assert on_broker.calls_to_journal == on_journal.calls_to_journal


def test_a_few_more_files_lead_to_the_broker(on_broker: Flow) -> None:
    """What delivers an event is read in few files."""
    assert len(on_broker.files_to_broker) <= MOST_FILES_TO_BROKER


def test_a_few_files_lead_from_a_delivery_to_a_view_on_the_embedded_journal(on_journal: Flow) -> None:
    """A consumer's path is read in few files."""
    assert len(on_journal.files_to_view) <= MOST_FILES_TO_VIEW


def test_a_few_files_lead_from_a_delivery_to_a_view_on_a_broker(on_broker: Flow) -> None:
    """A consumer's path is read in few files."""
    assert len(on_broker.files_to_view) <= MOST_FILES_TO_VIEW
