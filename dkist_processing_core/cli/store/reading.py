"""
The store as the commands read it: up to date, with a remark on what this host knows besides.

Not here: taking in reports (collect.collector), and the questions (collect.questions).
"""

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.cli.waiting import waiting_remark
from dkist_processing_core.errors import BusError, ExtraMissingError
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import print_remark

_FORM = "%Y-%m-%d %H:%M:%S"
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from dkist_processing_core.collect.collector import Collector
    from dkist_processing_core.collect.questions.questions import Questions


@contextmanager
def open_collector(*, remark: "Callable[[str], None]" = print_remark, migrates: bool = False) -> "Iterator[Collector]":
    """
    Open the store of the settings.

    Args:
        remark: Called with a text if the command has to wait.
        migrates: Whether tables of an earlier release are migrated.

    Raises:
        ExtraMissingError: The extra `consumer` is not installed.
        InboxVersionError: The tables are those of another release.
    """
    try:
        from dkist_processing_core.collect.collector import Collector  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise ExtraMissingError("consumer", "the store of runs is read and kept", str(error.name)) from error
    with Collector(read_settings(), remark=remark, migrates=migrates) as collector:
        yield collector


@contextmanager
def store_to_read(*, remarks: bool = True) -> "Iterator[Questions]":
    """
    Catch the store up unless a service does, and answer questions about one state of it.

    Args:
        remarks: Whether to print what this host knows besides: messages that wait for the broker, and lost runs.

    Raises:
        BusError: The broker cannot be reached or used; the questions were answered from the store as it was.
    """
    with open_collector(remark=print_remark if remarks else _nothing) as collector:
        error = collector.catch_up()
        with collector.questions() as questions:
            yield questions
        if error is not None:
            raise out_of_date(error, collector.completed_at())
        if remarks:
            _print_remarks(collector)


def _print_remarks(collector: "Collector") -> None:
    from dkist_processing_core.delivery.lost_runs import end_of, lost_runs  # noqa: PLC0415 - not needed for the answer

    if (remark := waiting_remark(collector.settings)) is not None:
        print_remark(remark)
    for lost in lost_runs(collector.bus.journal_path):
        print_remark(f"run {lost.run.run_id} has no end yet, {end_of(lost).reason}")


def _nothing(_: str) -> None:
    """Print no remark."""


def out_of_date(error: BusError, completed_at: "datetime | None") -> BusError:
    """Return the error of a broker, with the time until which the store has everything."""
    if completed_at is None:
        return type(error)(f"{error}; the store has never had all events of this broker")
    return type(error)(f"{error}; the store has all events until {local_time(completed_at, _FORM, None)}")
