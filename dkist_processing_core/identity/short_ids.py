"""
Short ids of runs: the few characters by which people name a run, instead of its whole id.

A short id is the end of a run's id, as letters and digits only: a shell completes it, and it needs no quotes. Usually
it is what the engine drew at random: `8bf54b12` for `local__3__20261129T020544Z__8bf54b12`. Not here: reading the ids
of the runs on a bus (cli.run_ids).
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from dkist_processing_core.errors import IdentityError

if TYPE_CHECKING:
    from dkist_processing_core.identity import Run

LEAST_TYPED = 4
"""A text with fewer letters and digits is only the whole id of a run: `3` is more often meant as a recipe run."""
SHORT = 8
_LONGEST_PART = 16
_LISTED = 10
# The offset from UTC in an id of Airflow, `scheduled__2026-11-29T00:00:00+00:00`, is the same in all of them.
_OFFSET = re.compile(r"(?<=\d)[+-]\d\d:\d\d$")
# The end of an id that this library drew at random.
_DRAWN = re.compile(r"__\d{8}T\d{6}Z__([0-9a-f]{8})$")


class ShortIds:
    """The short ids of runs that are read one after the other; each is unambiguous among the runs read before it."""

    def __init__(self, run_ids: Iterable[str] = ()) -> None:
        """Start with runs of which no short id is longer than the others require."""
        self._given: dict[str, str] = {}
        self._known: dict[str, dict[str, str]] = {}
        for run_id in run_ids:
            self.add(run_id)

    def add(self, run_id: str) -> None:
        """Add a run from which later short ids must differ."""
        self._alike(run_id)

    def of(self, run_id: str) -> str:
        """Return the short id of a run; it stays the same, even if a later run makes it ambiguous."""
        alike = self._alike(run_id)
        if run_id not in self._given:
            others = [characters for other, characters in alike.items() if other != run_id]
            self._given[run_id] = _shortest(run_id, others)
        return self._given[run_id]

    def _alike(self, run_id: str) -> dict[str, str]:
        """Add a run, and return the characters of all runs whose short ids could end alike."""
        characters = characters_of(run_id)
        alike = self._known.setdefault(characters[-SHORT:], {})
        alike[run_id] = characters
        return alike


def names_run(text: str, run_id: str) -> bool:
    """
    Return True if a person's text may name a run: by its id or an end of it, or by a beginning of the usual short id.

    Punctuation and case are ignored.

    >>> [names_run(each, "local__3__20261129T020544Z__8bf54b12") for each in ("8bf54b12", "4B12", "8bf5", "8b")]
    [True, True, True, False]
    """
    return text == run_id or any(
        is_named(text, run_id) for is_named in (_is_end_in_any_case, _is_beginning_in_any_case)
    )


def too_short(text: str) -> str | None:
    """Return the rule as a text if a text has too few letters and digits to be a part of an id; None otherwise."""
    if len(characters_of(text)) >= LEAST_TYPED:
        return None
    return f"a part of an id has at least {LEAST_TYPED} letters and digits"


def named_run(text: str, run_ids: Iterable[str]) -> str | None:
    """
    Return the id of the one run that a person's text names; None if it names none.

    A whole id is preferred to an end of another one, an end to a beginning of a short id, and both in the case of the
    text to those in another case.

    Raises:
        IdentityError: The text names several runs; the message lists them.
    """
    distinct = list(dict.fromkeys(run_ids))
    if text in distinct:
        return text
    named: list[str] = []
    for is_named in (_is_end, _is_beginning, _is_end_in_any_case, _is_beginning_in_any_case):
        named = named or [run_id for run_id in distinct if is_named(text, run_id)]
    if len(named) > 1:
        short_ids = ShortIds(named)
        listed = ", ".join(f"{short_ids.of(run_id)} ({run_id})" for run_id in named[:_LISTED])
        more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
        msg = f"{text!r} names {len(named)} runs, expected one; give more of the id: {listed}{more}"
        raise IdentityError(msg)
    return named[0] if named else None


def one_named_run(text: str, runs: Iterable["Run"]) -> "Run | None":
    """
    Return the one run that a person's text names; see `named_run`. Workflows of Airflow may have runs of the same id.

    Raises:
        IdentityError: The text names several runs; the message lists them, or their workflows.
    """
    distinct = {(run.workflow_name, run.run_id): run for run in runs}
    run_id = named_run(text, (run.run_id for run in distinct.values()))
    named = [run for run in distinct.values() if run.run_id == run_id]
    if len(named) > 1:
        listed = ", ".join(sorted(run.workflow_name for run in named)[:_LISTED])
        more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
        msg = f"{text!r} names a run of each of {len(named)} workflows, expected one; add --workflow: {listed}{more}"
        raise IdentityError(msg)
    return named[0] if named else None


def is_unique(text: str, run_id: str) -> bool:
    """Return True if a text is the whole or short id of a run that no other run has, since it was drawn at random."""
    drawn = _DRAWN.search(run_id)
    return drawn is not None and text in (run_id, drawn[1])


def _is_end(text: str, run_id: str) -> bool:
    typed = characters_of(text)
    return len(typed) >= LEAST_TYPED and characters_of(run_id).endswith(typed)


def _is_beginning(text: str, run_id: str) -> bool:
    typed = characters_of(text)
    return len(typed) >= LEAST_TYPED and characters_of(run_id)[-_usual_length(run_id) :].startswith(typed)


def _is_end_in_any_case(text: str, run_id: str) -> bool:
    return _is_end(text.lower(), run_id.lower())


def _is_beginning_in_any_case(text: str, run_id: str) -> bool:
    return _is_beginning(text.lower(), run_id.lower())


@lru_cache(1024)
def characters_of(run_id: str) -> str:
    """Return the letters and digits of an id, without an offset from UTC at its end."""
    return "".join(filter(str.isalnum, _OFFSET.sub("", run_id)))


def _shortest(run_id: str, others: Iterable[str]) -> str:
    """Return the shortest end, of a usual length or longer, that the others do not have; else the whole id."""
    characters = characters_of(run_id)
    for length in range(_usual_length(run_id), len(characters) + 1):
        end = characters[-length:]
        if not any(other.endswith(end) for other in others):
            return end
    return run_id


@lru_cache(1024)
def _usual_length(run_id: str) -> int:
    """Return the length of a short id that no other run makes longer."""
    last_part = len(characters_of(run_id.rpartition("_")[2]))
    return last_part if SHORT <= last_part <= _LONGEST_PART else SHORT
