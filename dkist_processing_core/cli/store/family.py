"""
`dkist-core failures FAMILY`: one family of failures with its occurrences, its stack and the next steps.

Not here: its drawing (draw.family_sheet), and the table of all families (store.failures).
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dkist_processing_core.cli.draw.family_sheet import draw_family
from dkist_processing_core.cli.store.next_steps import next_steps
from dkist_processing_core.cli.store.reading import store_to_read
from dkist_processing_core.collect.questions.answers import Choice, WholeFamily
from dkist_processing_core.collect.questions.as_json import attempt_json, family_json
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json

if TYPE_CHECKING:
    from dkist_processing_core.collect.questions.questions import Questions

_LEAST_TYPED = 4
_LISTED = 5


def show_family(named: str, choice: Choice, *, limit: int | None, as_json: bool) -> None:
    """
    Print the family that a text names, with at most `limit` of its chosen failures.

    Raises:
        DKISTProcessingCoreError: There is no such family, or there are several.
    """
    with store_to_read() as questions:
        chosen = replace(choice, family=family_named(questions, named))
        found = questions.family(chosen, limit)
        if as_json:
            write_json({"failures": [] if found is None else [_whole_json(found)]})
        elif found is None:
            Terminal(highlight=False).print(Text(f"no failure of the family {chosen.family} in this choice", "dim"))
        else:
            runs = {each.run.run_id for each in (found.family.last, *found.failures)}
            _print(found, questions.short_ids(runs))


def _print(found: WholeFamily, short_ids: ShortIds) -> None:
    console = Terminal(highlight=False)
    for line in draw_family(
        found,
        steps=next_steps(found.family, short_ids.of(found.family.last.run.run_id)),
        short_id=short_ids.of,
        width=console.columns,
        ascii_only=console.options.ascii_only,
    ):
        console.print(line, soft_wrap=True)


def _whole_json(found: WholeFamily) -> dict[str, Any]:
    return {
        **family_json(found.family),
        "finishedSince": found.finished_since,
        "stack": found.stack,
        "occurrences": [attempt_json(each, with_run=True) | {"final": each.is_final} for each in found.failures],
    }


def family_named(questions: "Questions", named: str) -> str:
    """
    Return the id of the family that a text begins.

    Raises:
        DKISTProcessingCoreError: There is no such family, or there are several.
    """
    families = questions.families_named(named) if len(named) >= _LEAST_TYPED else []
    if len(families) == 1:
        return families[0]
    if families:
        msg = f"{named!r} is the beginning of several families of failures; name one of: {', '.join(families)}"
        raise DKISTProcessingCoreError(msg)
    latest = [family.family for family in questions.families(Choice(), _LISTED)]
    reason = "" if len(named) >= _LEAST_TYPED else f", and a family is named by {_LEAST_TYPED} characters or more"
    known = ", ".join(latest) or "none"
    msg = f"there is no family {named!r} of failures in the store{reason}; the latest there: {known}"
    raise DKISTProcessingCoreError(msg)
