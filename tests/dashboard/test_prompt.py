"""
The thread that derives rows soon after their reports have arrived.
"""

import threading

from dkist_processing_core.collect.prompt import PromptFolding
from dkist_processing_core.consumer.bell import Bell
from dkist_processing_core.errors import InboxUnavailableError
from tests.waiting import SECONDS, wait_until


def test_an_arrival_is_folded_soon_and_nothing_without_one() -> None:
    """No arrival, no fold; several at one moment share one."""
    arrived, folds = Bell(), threading.Semaphore(0)
    prompt = PromptFolding(arrived, folds.release)
    with prompt.running():
        is_idle = not folds.acquire(timeout=0.3)
        for _ in range(5):
            arrived.ring()
        is_folded = folds.acquire(timeout=SECONDS)
        wait_until(lambda: not prompt.is_pending)
        again = folds.acquire(timeout=0.3)

    assert (is_idle, is_folded, again) == (True, True, False)


def test_an_outage_leaves_the_work_to_the_timed_fold_and_the_thread_goes_on() -> None:
    """The next arrival is folded again."""
    arrived, calls = Bell(), threading.Semaphore(0)
    is_out = threading.Event()
    is_out.set()

    def fold() -> None:
        calls.release()
        if is_out.is_set():
            raise InboxUnavailableError("away")

    prompt = PromptFolding(arrived, fold)
    with prompt.running():
        arrived.ring()
        has_failed = calls.acquire(timeout=SECONDS)
        wait_until(lambda: not prompt.is_pending)
        is_out.clear()
        arrived.ring()
        has_succeeded = calls.acquire(timeout=SECONDS)

    assert (has_failed, has_succeeded) == (True, True)


def test_an_arrival_during_a_fold_is_folded_by_the_next_one() -> None:
    """None is missed between two looks."""
    arrived, is_folding, may_end = Bell(), threading.Semaphore(0), threading.Semaphore(0)

    def fold() -> None:
        is_folding.release()
        may_end.acquire(timeout=SECONDS)

    prompt = PromptFolding(arrived, fold)
    with prompt.running():
        arrived.ring()
        first = is_folding.acquire(timeout=SECONDS)
        arrived.ring()
        may_end.release()
        second = is_folding.acquire(timeout=SECONDS)
        may_end.release()

    assert (first, second) == (True, True)
