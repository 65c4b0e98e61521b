"""
The text of a notice: a title of one line, and lines for each group.

Not here: the characters that have a meaning for a receiver (webhook, mail).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from dkist_processing_core.events import TaskFailed, WorkflowFailed
from dkist_processing_core.events.notice import NoticeGroup, NoticeIssued
from dkist_processing_core.notify.groups import MOST_RUNS
from dkist_processing_core.text import clean_line, counted

_LONGEST_TITLE = 150
_SHOWN_NAMES = 5
_FORM = "%Y-%m-%d %H:%M:%S UTC"


def title_of(notice: NoticeIssued) -> str:
    """Return a notice in one line of at most 150 characters."""
    group = notice.groups[0]
    number = len(notice.groups) + notice.more_groups
    groups = f"{_what(group)}: {group.summary}" if number == 1 else f"{number} groups, the largest: {_what(group)}"
    text = {
        "first": f"new: {groups}",
        "summary": f"{counted(notice.count, 'occurrence')} of {groups}",
        "all_clear": f"all clear: {groups}",
        "sample": f"sample: {groups}",
    }[notice.kind]
    if notice.after_quiet_hours:
        text = f"in the quiet hours: {text}"
    text = clean_line(" ".join(text.split()))
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 1]}…"


def lines_of(notice: NoticeIssued) -> Iterator[str]:
    """Yield the lines below the title; there is an empty one between two groups."""
    for number, group in enumerate(notice.groups):
        if number:
            yield ""
        yield from map(clean_line, _lines(group))
    if notice.more_groups:
        yield ""
        yield f"and {counted(notice.more_groups, 'more group')}, counted above"


def _lines(group: NoticeGroup) -> Iterator[str]:
    yield f"{_what(group)}: {group.summary}"
    yield _counts(group)
    yield f"workflows: {_list([_versions(*each) for each in group.workflows.items()])}"
    if group.tasks:
        yield f"tasks: {_list(group.tasks)}"
    if group.run_count:
        runs = counted(group.run_count, "run") if group.run_count < MOST_RUNS else f"{MOST_RUNS:,} runs or more"
        yield f"{runs}, such as {', '.join(group.run_ids[:1])}"
    if group.hosts:
        yield f"hosts: {_list(group.hosts)}"
    if group.first_seen_at is not None:
        version = f", in version {group.first_bad_version}" if group.first_bad_version else ""
        good = f", not in {group.last_good_version}" if group.last_good_version else ""
        yield f"first seen {_moment(group.first_seen_at)}{version}{good}"
    if group.log_url is not None:
        yield f"log: {group.log_url}"
    if group.family is not None:
        yield f"details: dkist-core failures {group.family[:8]}"


def _counts(group: NoticeGroup) -> str:
    parts = []
    if group.count:
        muted = f" ({group.muted} of them while muted)" if group.muted else ""
        parts.append(f"{counted(group.count, 'time')}{muted} until {_moment(group.last_at)}")
    if group.total > group.count:
        parts.append(f"{counted(group.total, 'time')} since {_moment(group.began_at)}")
    if group.is_over:
        parts.append("over")
    return ", ".join(parts) or "not counted"


def _what(group: NoticeGroup) -> str:
    where = next(iter(group.workflows), "")
    if group.event == TaskFailed.name:
        return f"{_list(group.tasks, 1)} failed"
    if group.event == WorkflowFailed.name:
        return f"{where} failed"
    return f"{_list(group.tasks, 1)} is overdue" if group.tasks else f"{where} is overdue"


def _versions(workflow: str, versions: Sequence[str]) -> str:
    names = [version for version in versions if version]
    return f"{workflow} {', '.join(names[:_SHOWN_NAMES])}" if names else workflow


def _list(names: Sequence[str], most: int = _SHOWN_NAMES) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime(_FORM)
