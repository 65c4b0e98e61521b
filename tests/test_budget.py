"""
The table of time limits: together, the processes that observe one attempt keep the promised limit.
"""

import pytest

from dkist_processing_core import budget
from dkist_processing_core.airflow import _bus_reader, _pending_reports, _unreported
from dkist_processing_core.budget import Allowance
from dkist_processing_core.bus.amqp.bus import CONNECT_SECONDS
from dkist_processing_core.config import DKISTProcessingCoreConfiguration

SECONDS = 2.0
"""The promised limit on the cost of observing an attempt."""


@pytest.mark.parametrize("path", budget.PATHS.values(), ids=budget.PATHS.keys())
def test_each_way_to_run_a_task_costs_at_most_two_seconds(path: tuple[Allowance, ...]) -> None:
    """
    A process waits for its journal first, and has less time for bus and collector after that.
    """
    timeout = DKISTProcessingCoreConfiguration.model_fields["event_flush_timeout"].default

    assert sum(each.cost(timeout) for each in path) <= SECONDS + 1e-9
    assert sum(each.bus for each in path) <= 1 + 1e-9


def test_a_launcher_whose_run_was_killed_ends_within_ten_seconds_of_its_task() -> None:
    """
    No process waits for it, but a long timeout for a slow broker must not keep it on the host for minutes.
    """
    assert budget.ORPHANED_LAUNCHER.cost(SECONDS) == 10.0
    assert budget.ORPHANED_LAUNCHER.cost(60.0) == 10.0


def test_parts_of_a_wait_are_within_it() -> None:
    """
    Of two processes that wait at the same time, the longer wait counts; a first connection ends before its process.
    """
    assert budget.LAUNCHER.journal >= budget.START_SECONDS
    assert budget.LAUNCHER.cost(SECONDS) >= budget.DYING_SECONDS
    assert budget.CALLED_TASK.bus > budget.FIRST_CONNECTION


@pytest.mark.parametrize("path", budget.PATHS.values(), ids=budget.PATHS.keys())
def test_the_waits_for_the_journal_of_telemetry_are_part_of_a_share(path: tuple[Allowance, ...]) -> None:
    """
    They are subtracted from what each process has for bus and collector; a fork ends beside its task.
    """
    assert all(each.for_bus(SECONDS) >= budget.TELEMETRY_JOURNAL_SECONDS for each in path)
    assert all(each.for_bus(SECONDS) >= budget.SILENT_COLLECTOR_SECONDS for each in path)
    assert budget.STILL_JOURNAL_SECONDS <= budget.FORK_SECONDS <= SECONDS


def test_a_silent_collector_leaves_time_for_the_import_of_a_transport() -> None:
    """
    Both together may add 0.2 s to the exit of a task under a launcher.
    """
    assert budget.SILENT_COLLECTOR_SECONDS <= 0.2 - 0.05


def test_the_callbacks_of_a_process_end_before_the_engine_kills_it() -> None:
    """
    Airflow gives a DAG processor's file 50 s by default (`dag_processor.dag_file_processor_timeout`).
    """
    assert set(budget.CALLBACK_PROCESS) == {budget.BUS, budget.LOOK, budget.COLLECTOR}
    assert sum(budget.CALLBACK_PROCESS.values()) < 50
    assert budget.CALLBACK_PROCESS[budget.COLLECTOR] >= budget.RUN_COLLECTOR.for_bus(SECONDS)


def test_the_end_of_a_run_reads_the_bus_even_if_the_broker_takes_as_long_as_a_subscription_allows() -> None:
    """
    On a busy host a connection takes seconds. The first run of a process has the time for each of its waits.
    """
    assert _bus_reader._READING_SECONDS > CONNECT_SECONDS
    waits = _pending_reports._READING_SECONDS + _bus_reader._READING_SECONDS + _unreported._DELIVERY_SECONDS
    assert waits <= budget.CALLBACK_PROCESS[budget.LOOK]
