"""
`dkist-core dead-letters retry`, `discard`, `archive` and `restore`: an operator's decisions about dead letters.

Not here: the changes themselves (dead_letters).
"""

from collections.abc import Sequence
from functools import partial

import typer

from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.dead_letters import Action, open_places
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import print_remark, print_text
from dkist_processing_core.text.terminal import write_json, write_line

_DONE = {
    Action.RETRY: "to be handled once more",
    Action.DISCARD: "discarded",
    Action.ARCHIVE: "archived",
    Action.RESTORE: "restored",
}


def change(
    name: str, names: Sequence[str], consumers: Sequence[str], inbox: str | None, *, in_json: bool, is_agreed: bool
) -> int:
    """
    Do something with dead letters and groups, or without names with all; return the exit code.

    Raises:
        typer.BadParameter: An id is unknown; nothing was changed.
    """
    action = Action(name)
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    with open_places(settings, consumers, inbox) as opened:
        concerned = {place.where: place.known(names) for place in opened.places} if names else {}
        unknown = sorted(set(names) - {each for found in concerned.values() for each in found})
        if unknown:
            remarks = "".join(f"; {remark}" for remark in opened.remarks)
            shown, listed = ", ".join(unknown), "`dkist-core dead-letters list` shows them"
            raise typer.BadParameter(hide(f"no dead letter and no group has the id {shown}; {listed}{remarks}"))
        if not is_agreed and not _are_letters(names):
            what = "all dead letters" if not names else f"the dead letters of {', '.join(names)}"
            typer.confirm(f"discard {what} for good?", abort=True, err=in_json)
        results = [
            place.change(action, sorted(concerned[place.where]) if names else [])
            for place in opened.places
            if not names or concerned[place.where]
        ]
    count = sum(result.count for result in results)
    obstacles = {each: why for result in results for each, why in result.obstacles.items()}
    if in_json:
        write_json({"action": action.value, "count": count, "obstacles": {k: hide(v) for k, v in obstacles.items()}})
    else:
        for remark in opened.remarks if not names else ():
            print_remark(hide(remark))
        write_line(f"{_DONE[action]}: {count:,}")
        for each, why in obstacles.items():
            print_text(hide(f"{each} was left: {why}"), err=True)
    return 1 if obstacles else 0


def _are_letters(names: Sequence[str]) -> bool:
    """Return True if only single letters are named; the ids of groups begin with g."""
    return bool(names) and not any(name.startswith("g") for name in names)
