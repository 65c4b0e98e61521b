"""
A dead letter as texts of a row.

Not here: the rows (listing, details).
"""

from collections.abc import Callable
from datetime import UTC, datetime

from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.dead_letters import DeadLetter
from dkist_processing_core.events import TaskEvent
from dkist_processing_core.events.notice import NoticeIssued
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.text import counted, error_line

_LONGEST_REASON = 400
_MOMENT = "%Y-%m-%d %H:%M:%S"


def failure_of(letter: DeadLetter) -> str:
    """Return why a letter is dead, in one line: its exception, or its reason."""
    return error_line(letter.error_type, letter.error_message) if letter.error_type else brief(letter.reason)


def brief(reason: str) -> str:
    """Return the begin of a reason."""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 1]}…"


def message_of(letter: DeadLetter, *, with_whole_run: bool = False) -> str:
    """Return what the message of a letter is: an event with its subject, or its size."""
    event = letter.event
    if event is None:
        size = len(letter.body) if letter.full_size is None else letter.full_size
        return f"no event, {counted(size, 'byte')}"
    if isinstance(event, NoticeIssued):
        return f"{event.name} of the route {event.route}, {event.kind.replace('_', '-')}, sequence {event.sequence}"
    subject = event.workflow_name
    if isinstance(event, TaskEvent):
        attempt = "" if event.attempt is None else f" attempt {event.attempt}"
        subject = f"{subject}/{event.task_name}{attempt}"
    run = event.run_id if with_whole_run else ShortIds().of(event.run_id)
    return f"{event.name} {subject}, run {run}"


def moment(seconds: float | None) -> str:
    """Return a time as text, in the local time zone."""
    return "an unknown time" if seconds is None else local_time(datetime.fromtimestamp(seconds, UTC), _MOMENT, None)


def tries_of(letter: DeadLetter) -> str:
    """Return how often a letter has failed and was retried; "" if there is nothing to report."""
    tried = "" if not letter.tries else f"failed {'once' if letter.tries == 1 else f'{letter.tries} times'}"
    before = len(letter.history)
    retried = "" if not before else f"retried {'once' if before == 1 else f'{before} times'} before"
    return ", ".join(part for part in (tried, retried) if part)


def hidden(texts: list[tuple[str, str]], hide: Callable[[str], str]) -> list[tuple[str, str]]:
    """Return texts, each with its style, without secrets and without the empty ones."""
    return [(hide(text), style) for text, style in texts if text]
