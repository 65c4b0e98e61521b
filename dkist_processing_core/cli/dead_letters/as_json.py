"""
Dead letters and their groups as JSON.

Not here: reading them (dead_letters).
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.dead_letters import DeadLetter, Group
from dkist_processing_core.events import TaskEvent, format_time


def group_as_json(group: Group, where: str, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return a group as JSON values."""
    return {
        "id": group.id,
        "consumer": hide(group.consumer),
        "place": hide(where),
        "count": group.count,
        "firstFailedAt": _time(group.first_failed_at),
        "lastFailedAt": _time(group.last_failed_at),
        "newest": letter_as_json(group.newest, where, hide),
    }


def letter_as_json(letter: DeadLetter, where: str, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return a dead letter as JSON values, without its message and its stack."""
    event = letter.event
    return {
        "id": letter.id,
        "group": letter.group,
        "consumer": hide(letter.consumer),
        "place": hide(where),
        "archived": letter.is_archived,
        "reason": hide(letter.reason),
        "errorType": None if letter.error_type is None else hide(letter.error_type),
        "errorMessage": None if letter.error_message is None else hide(letter.error_message),
        "tries": letter.tries,
        "firstFailedAt": _time(letter.first_failed_at),
        "lastFailedAt": _time(letter.last_failed_at),
        "retryable": letter.obstacle is None,
        "event": None
        if event is None
        else {
            "type": event.type,
            "id": event.id,
            "workflowName": hide(event.workflow_name),
            "workflowVersion": hide(event.workflow_version),
            "dagRunId": hide(event.run_id),
            "taskName": hide(event.task_name) if isinstance(event, TaskEvent) else None,
            "attempt": event.attempt if isinstance(event, TaskEvent) else None,
        },
    }


def whole_letter_as_json(letter: DeadLetter, where: str, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return a dead letter as JSON values, with its message, its stack and its earlier failures."""
    try:
        text = hide(letter.body.decode())
    except UnicodeDecodeError:
        text = None
    return letter_as_json(letter, where, hide) | {
        "stack": None if letter.stack is None else hide(letter.stack),
        "history": [
            {
                "reason": hide(each.reason),
                "failedAt": _time(each.failed_at),
                "retriedAt": _time(each.retried_at),
                "stack": None if each.stack is None else hide(each.stack),
            }
            for each in letter.history
        ],
        "contentType": letter.content_type,
        "headers": {hide(name): hide(str(value)) for name, value in letter.headers.items()},
        "body": text,
        # Only of a body that is no text: a text in base64 would keep its secrets.
        "bodyBase64": base64.b64encode(letter.body).decode() if text is None else None,
        "fullSize": letter.full_size,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(datetime.fromtimestamp(seconds, UTC))
