"""
The time that the callbacks of one process of the engine may wait in total without success.
"""

import os
import time

import pytest

from dkist_processing_core.airflow import _waiting_time
from dkist_processing_core.airflow._waiting_time import at_most
from dkist_processing_core.budget import BUS, LOOK
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Set the state of a process that has not waited yet.
    """
    monkeypatch.setattr(_waiting_time, "_left", {})
    monkeypatch.setattr(_waiting_time, "SECONDS", {BUS: 0.2, LOOK: 0.2})


def wait(seconds: float) -> None:
    """
    Wait for this time.
    """
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, every=0.001)


def test_what_is_waited_is_not_there_later() -> None:
    """
    The last of many callbacks has no time left to wait.
    """
    given = []
    for _ in range(4):
        with at_most(0.1, BUS) as seconds:
            given.append(seconds)
            wait(seconds)

    assert given[0] == 0.1
    assert 0 < given[1] <= 0.1
    assert given[-1] == 0.0


def test_one_that_does_not_answer_costs_the_others_nothing() -> None:
    """
    A silent collector does not use the time of the bus, and the bus always has a minimum.
    """
    with at_most(0.2, LOOK) as seconds:
        wait(seconds)
    with at_most(0.1, BUS) as first:
        wait(0.2)
    with at_most(0.1, BUS, at_least=0.05) as last:
        pass

    assert (first, last) == (0.1, 0.05)


def test_a_fork_begins_anew() -> None:
    """
    The engine forks a process for each file that it parses.
    """
    with at_most(0.2, BUS) as seconds:
        wait(seconds)
    child = os.fork()
    if not child:
        with at_most(0.1, BUS) as seconds:
            os._exit(0 if seconds == 0.1 else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
