"""
Notices: drafts with their numbers, and with what the store knows about their groups.

Not here: when a draft is made (grouping), and its text (wording).
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from dkist_processing_core.collect.questions.families import first_failure
from dkist_processing_core.events import MAX_ENCODED_BYTES, Reporter, encode
from dkist_processing_core.events.notice import NoticeGroup, NoticeIssued
from dkist_processing_core.notify.grouping import Counted, Draft
from dkist_processing_core.notify.groups import RouteState
from dkist_processing_core.notify.store_facts import hosts

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header with the id of a notice, by which a receiver recognises a repetition."""
# The most groups, and names in each list of a group: the first that fit the size of an event are used.
_LIMITS = ((20, 20), (20, 5), (20, 2), (5, 2), (1, 1))
_LONGEST_NAME = 200


def notice_of(connection: Connection, route: str, state: RouteState, draft: Draft, now: datetime) -> NoticeIssued:
    """Return the notice of a draft, with the number that the state has reached."""
    groups = [_group(connection, each) for each in draft.groups[: _LIMITS[0][0]]]
    latest = draft.groups[0].group.latest
    whole = NoticeIssued(
        time=now,
        reported_by=Reporter.WATCHER,
        workflow_name=latest.workflow,
        workflow_version=latest.version,
        run_id=latest.run_id,
        recipe_run_id=latest.recipe_run_id,
        route=route,
        series=state.series,
        sequence=state.notices,
        kind=draft.kind,
        count=sum(each.tally.count for each in draft.groups),
        groups=tuple(groups),
        more_groups=len(draft.groups) - len(groups),
        after_quiet_hours=draft.after_quiet_hours,
    )
    notices = (_cut(whole, *limits) for limits in _LIMITS)
    return next(each for each in notices if len(encode(each)) <= MAX_ENCODED_BYTES)


def _cut(notice: NoticeIssued, most_groups: int, most_names: int) -> NoticeIssued:
    """Return a notice with fewer groups, and fewer names in each."""
    groups = tuple(
        msgspec.structs.replace(
            group,
            workflows={name: group.workflows[name][:most_names] for name in list(group.workflows)[:most_names]},
            tasks=group.tasks[:most_names],
            hosts=group.hosts[:most_names],
        )
        for group in notice.groups[:most_groups]
    )
    more = notice.more_groups + len(notice.groups) - len(groups)
    return msgspec.structs.replace(notice, groups=groups, more_groups=more)


def _group(connection: Connection, counted: Counted) -> NoticeGroup:
    group, tally, latest = counted.group, counted.tally, counted.group.latest
    first: dict[str, Any] = {}
    if latest.family is not None:
        found = first_failure(connection, latest.family)
        if found is None or found.at > group.first_at:
            # The store does not have it yet.
            first = {"first_seen_at": _moment(group.first_at), "first_bad_version": _short(group.first_version)}
        else:
            first = {"first_seen_at": _moment(found.at), "first_bad_version": _short(found.version)}
            if found.last_good_version is not None:
                first["last_good_version"] = _short(found.last_good_version)
        if tally.first_at is not None:
            first["hosts"] = tuple(map(_short, hosts(connection, latest.family, tally.first_at)))
    workflows = tally.workflows or {latest.workflow: [latest.version]}
    tasks = tally.tasks or ([] if latest.task is None else [latest.task])
    return NoticeGroup(
        event=latest.event,
        family=latest.family,
        summary=latest.summary,
        count=tally.count,
        muted=tally.muted,
        total=group.total,
        is_over=counted.is_over,
        began_at=_moment(group.began_at),
        first_at=None if tally.first_at is None else _moment(tally.first_at),
        last_at=None if tally.last_at is None else _moment(tally.last_at),
        workflows={_short(name): tuple(map(_short, versions)) for name, versions in workflows.items()},
        tasks=tuple(map(_short, tasks)),
        run_count=len(tally.runs),
        run_ids=tuple(map(_short, tally.run_ids)),
        log_url=latest.log_url,
        **first,
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
