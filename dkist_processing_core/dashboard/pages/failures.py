"""
The page with the families of failures, and that of one family with its occurrences and its stack.

Not here: the grouping (collect.folding.rows), and one failed attempt (pages.attempt).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dkist_processing_core.collect.questions.answers import Choice, Family
from dkist_processing_core.dashboard.addresses.links import address
from dkist_processing_core.dashboard.addresses.times import moment_in
from dkist_processing_core.dashboard.asked import Asked, Page, PageError
from dkist_processing_core.dashboard.drawing.columns import Columns, columns
from dkist_processing_core.events import Cause
from dkist_processing_core.text import counted

_MOST_FAMILIES, _MOST_OCCURRENCES, _MOST_NAMES = 100, 100, 3
_PARTS = 28
_USUAL, _EVER = "7d", "ever"
_TIMES = ("24h", _USUAL, "30d", _EVER)
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """A family in the table."""

    family: Family
    trend: Columns
    workflows: str
    tasks: str
    first_bad: str | None
    """The version in which it occurred first; None if no earlier version is known to be good."""


def page(asked: Asked) -> Page:
    """Return the page of all families, or with `family` that of one."""
    return _families(asked) if asked.text("family") is None else _family(asked)


def _families(asked: Asked) -> Page:
    since = _since(asked)
    choice = Choice(
        since=since, workflow=asked.text("workflow"), version=asked.text("version"), cause=asked.text("cause")
    )
    looked_at = asked.questions.latest_failures(choice)
    found = asked.questions.families(looked_at, _MOST_FAMILIES)
    given = {name: asked.text(name) for name in ("since", "workflow", "version", "cause")}
    values = {
        "now": asked.now,
        "rows": _rows(asked, looked_at, found),
        "cut_at": None if looked_at == choice else looked_at.since,
        "given": given,
        "times": _TIMES,
        "time": given["since"] or _USUAL,
        "causes": list(Cause),
        "is_cut": len(found) == _MOST_FAMILIES,
        "is_filtered": choice.is_of_some,
        "short_id": asked.questions.short_ids(each.last.run.run_id for each in found).of,
        "with_": lambda **parameters: address(asked.path, **{**given, **parameters}),
    }
    return Page("Failures", "failures.html", values)


def _family(asked: Asked) -> Page:
    named = asked.text("family") or ""
    known = asked.questions.families_named(named)
    if len(known) != 1 and named not in known:
        found = f"several families, {', '.join(known[:10])}" if known else "no family of failures"
        msg = f"found {found} by the name {named[:80]!r}, expected the id of one"
        raise PageError(msg, _NOT_FOUND)
    choice = Choice(family=named if named in known else known[0])
    looked_at = asked.questions.latest_failures(choice)
    whole = asked.questions.family(looked_at, _MOST_OCCURRENCES)
    if whole is None:
        msg = f"the family {named[:80]!r} has no failure any more"
        raise PageError(msg, _NOT_FOUND)
    family = whole.family
    values = {
        "now": asked.now,
        "whole": whole,
        "row": _rows(asked, Choice(), [family])[0],
        "cut_at": None if looked_at == choice else looked_at.since,
        "affected": _affected(family),
        "short_id": asked.questions.short_ids(each.run.run_id for each in whole.failures).of,
    }
    return Page("Failures of one family", "family.html", values)


def _since(asked: Asked) -> datetime | None:
    text = asked.text("since") or _USUAL
    return None if text == _EVER else moment_in("since", text, asked.now)


def _rows(asked: Asked, choice: Choice, found: Sequence[Family]) -> list[FamilyRow]:
    """Return families with their trends; without a beginning, the trend of each begins with its first failure."""
    rows = []
    of_beginning: dict[datetime, list[str]] = defaultdict(list)
    begins = {each.family: choice.since or min(each.first_at, asked.now - timedelta(hours=1)) for each in found}
    for name, begin in begins.items():
        of_beginning[begin].append(name)
    trends: dict[str, tuple[int, ...]] = {}
    for begin, names in of_beginning.items():
        # A failure at the end of the last part belongs to it.
        trends |= asked.questions.family_trends(choice, names, begin, asked.now, _PARTS)
    for family in found:
        begin, counts = begins[family.family], trends[family.family]
        step = (asked.now - begin) / _PARTS
        titles = [f"{begin + number * step:%Y-%m-%d %H:%M} UTC: {count}" for number, count in enumerate(counts)]
        trend = columns([{"failed": count} for count in counts], titles=titles)
        workflows = _few(f"{name} {_few(versions)}" for name, versions in family.workflows.items())
        rows.append(FamilyRow(family, trend, workflows, _few(family.tasks), _first_bad(family)))
    return rows


def _few(names: Iterable[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    each = list(names)
    more = len(each) - _MOST_NAMES
    return ", ".join(each[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _affected(family: Family) -> str:
    of_recipe_runs = f" of {counted(family.recipe_runs, 'recipe run')}" if family.recipe_runs else ""
    return f"{counted(family.runs, 'run')}{of_recipe_runs}"


def _first_bad(family: Family) -> str | None:
    first = family.first
    if first is None or first.last_good_version is None:
        return None
    return f"first in version {first.version} of {first.workflow_name}, not in {first.last_good_version}"
