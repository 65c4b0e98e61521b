"""
The answer about the bus, and the change of dead letters.

Not here: reading the bus (bus.status), and the dead letters (bus.letters).
"""

from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.dashboard.api.answers import MOST_LISTED
from dkist_processing_core.dashboard.api.endpoint import Request
from dkist_processing_core.dashboard.api.more_answers import Changed
from dkist_processing_core.dashboard.bus.facts import Inbox, Queue
from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.dead_letters import Action, Group
from dkist_processing_core.text.redaction import redact


def bus(request: Request) -> dict[str, Any]:
    """Return the bus as it was read last."""
    site = request.asked.site
    status = site.bus_status.latest()
    archive = None if status.bus is None else status.bus.archive
    return {
        "address": site.bus,
        "problem": status.problem or status.part_problem,
        "awaySince": status.away_since,
        "archive": None
        if archive is None
        else {
            "messages": archive.messages,
            "oldest": _moment(archive.oldest),
            "newest": _moment(archive.newest),
        },
        "queues": {} if status.bus is None else {name: _queue(each) for name, each in status.bus.queues.items()},
        "inboxes": {} if status.host is None else {name: _inbox(each) for name, each in status.host.inboxes.items()},
        "pending": status.pending,
        "setAside": status.set_aside,
        "deadLetters": [_group(group) for group in status.groups[:MOST_LISTED]],
    }


def changed(site: Site, action: Action, names: list[str]) -> Changed:
    """Retry or discard the dead letters and groups of these ids, and return what was done."""
    found = site.letters.change(action, names)
    site.bus_status.refresh()
    return Changed(count=found.count, obstacles=found.obstacles)


def _queue(queue: Queue) -> dict[str, Any]:
    return {"waiting": queue.waiting, "readers": queue.readers, "dead": queue.dead}


def _inbox(inbox: Inbox) -> dict[str, Any]:
    counts = inbox.counts
    return {
        "waiting": counts.waiting,
        "parked": counts.parked,
        "dead": counts.dead,
        "lagSeconds": inbox.lag_seconds,
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "consumer": group.consumer,
        "count": group.count,
        "firstFailedAt": _moment(group.first_failed_at),
        "lastFailedAt": _moment(group.last_failed_at),
        "reason": redact(group.newest.reason),
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
