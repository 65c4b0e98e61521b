"""
Notices for tests, among them one whose names and messages are hostile.
"""

from typing import Any

from dkist_processing_core.events.notice import NoticeGroup, NoticeIssued
from tests.facts import NOON

HOSTILE = (
    "<!channel> <https://evil.example|click> @everyone & *bold*\r\nBcc: victim@example.com\n.\n\x1b[31m\u202e "
    "`x` [t](https://e)"
)


def group(**facts: Any) -> NoticeGroup:
    """
    Return a group of failures.
    """
    given: dict[str, Any] = {"event": "task.failed", "family": "0123456789abcdef", "summary": "KeyError: 'missing'"}
    given |= {"count": 3, "total": 5, "began_at": NOON, "first_at": NOON, "last_at": NOON, "first_seen_at": NOON}
    given |= {"workflows": {"l0_to_l1": ("2.1", "2.2")}, "tasks": ("ParseL0",), "run_count": 2, "run_ids": ("r1", "r2")}
    given |= {"first_bad_version": "2.1", "hosts": ("node-1",), "log_url": "https://airflow.example/log"}
    return NoticeGroup(**given | facts)


def notice(*groups: NoticeGroup, **facts: Any) -> NoticeIssued:
    """
    Return a notice about groups.
    """
    found = groups or (group(),)
    given: dict[str, Any] = {"time": NOON, "reported_by": "watcher", "workflow_name": "l0_to_l1"}
    given |= {
        "workflow_version": "2.2",
        "run_id": "r2",
        "route": "ops",
        "series": "s",
        "sequence": 7,
        "kind": "summary",
    }
    return NoticeIssued(**given | {"count": sum(each.count for each in found), "groups": found} | facts)


def hostile_notice() -> NoticeIssued:
    """
    Return a notice whose every text is hostile, and of any length.
    """
    names = tuple(f"{HOSTILE}{number}" for number in range(20))
    text = HOSTILE * 10
    hostile = group(
        summary=text, workflows=dict.fromkeys(names, names), tasks=names, hosts=names, run_ids=names[:3], log_url=text
    )
    return notice(*[hostile] * 20, workflow_name=HOSTILE, run_id=HOSTILE)
