"""
Pruning: keys are kept as long as a repetition can come.
"""

from collections.abc import Callable

from dkist_processing_core.inbox import Inbox
from tests.inbox.parts import Clock, failures

Open = Callable[..., Inbox]


def test_handled_rows_are_deleted_in_small_steps_when_they_are_old(inboxes: Open, clock: Clock) -> None:
    """
    Their keys are known until then; rows that are not handled stay however old they are.
    """
    inbox = inboxes(kept_seconds=100.0, max_tries=1)
    inbox.store(failures(6))
    (dead, *rows) = inbox.claim(5)
    inbox.fail(dead, OSError("gone"))
    inbox.mark_done(rows)
    clock.now += 100
    early = [inbox.prune(3), inbox.store(failures(6)).new]
    clock.now += 1

    pruned = [inbox.prune(3), inbox.prune(3), inbox.prune(3)]

    assert early == [0, 0]
    assert pruned == [3, 1, 0]
    assert (inbox.counts().dead, inbox.counts().waiting) == (1, 1)
    assert inbox.store(failures(6)).new == 4


def test_the_rows_of_another_consumer_are_not_deleted(inboxes: Open, clock: Clock) -> None:
    """
    Each consumer has its own time.
    """
    for name in ("one", "other"):
        inbox = inboxes(name)
        inbox.store(failures(1))
        inbox.mark_done(inbox.claim(1))
        inbox.close()
    clock.now += 10**7

    assert inboxes("one").prune() == 1
    assert inboxes("other").store(failures(1)).new == 0


def test_until_when_keys_were_deleted_is_known(inboxes: Open, clock: Clock) -> None:
    """
    A reader of past events passes over what may have been handled before; nothing is, while no key was deleted.
    """
    inbox = inboxes(kept_seconds=100.0)
    inbox.store(failures(3))
    inbox.mark_done(inbox.claim(2))
    inbox.prune()
    before = inbox.position().pruned_until
    clock.now += 101

    inbox.prune()
    first = inbox.position().pruned_until
    clock.now -= 50
    inbox.prune()

    assert (before, first) == (None, clock.now - 50)
    assert inboxes().position().pruned_until == first
