"""
`dkist-core dead-letters list`: the groups of dead letters, or the letters of one group.

Not here: reading them (dead_letters).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import typer
from rich.text import Text

from dkist_processing_core.cli.dead_letters.as_json import group_as_json, letter_as_json
from dkist_processing_core.cli.dead_letters.texts import failure_of, hidden, message_of, moment, tries_of
from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.dead_letters import DeadLetter, Group, open_places
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal, print_remark
from dkist_processing_core.text.terminal import one_line, write_json

_VERBS = {"retry": "retries", "restore": "restores"}


def show_groups(consumers: Sequence[str], inbox: str | None, *, archived: bool, in_json: bool) -> None:
    """Print the groups of all places."""
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    with open_places(settings, consumers, inbox) as opened:
        found = [(place.where, place.groups(archived=archived)) for place in opened.places]
    if in_json:
        listed = [group_as_json(group, where, hide) for where, groups in found for group in groups]
        write_json({"archived": archived, "remarks": list(map(hide, opened.remarks)), "groups": listed})
        return
    console = Terminal(highlight=False)
    for remark in opened.remarks:
        print_remark(hide(remark))
    count = sum(group.count for _, groups in found for group in groups)
    if not count:
        console.print("no dead letter is archived" if archived else "no dead letters")
        return
    for line in _lines(found, console, hide):
        console.print(line, soft_wrap=True)
    command = "restore" if archived else "retry"
    usage = f"`dkist-core dead-letters {command} ID` {_VERBS[command]} a group or one of them"
    advice = f"{count:,} dead {'letter' if count == 1 else 'letters'} in all; {usage}"
    console.print_line(Text(advice))


def _lines(found: Sequence[tuple[str, list[Group]]], console: Terminal, hide: Callable[[str], str]) -> Iterator[Text]:
    """Yield the lines of the groups, by place and consumer."""
    width = max(len(f"{group.count:,}") for _, groups in found for group in groups)
    for where, groups in found:
        for consumer in dict.fromkeys(group.consumer for group in groups):
            head = Text.assemble((one_line(hide(consumer)), "bold"), "  ")
            yield from rows(head, [(hide(where), "dim")], console)
            for group in groups:
                if group.consumer == consumer:
                    head = Text.assemble("  ", (group.id, "bold"), f"  {group.count:>{width},}  ")
                    yield from rows(head, hidden(list(_texts_of(group)), hide), console)
            yield Text()


def _texts_of(group: Group) -> Iterator[tuple[str, str]]:
    newest = group.newest
    yield failure_of(newest), "red"
    first, last = moment(group.first_failed_at), moment(group.last_failed_at)
    times = [f"first {first}"] if first != last else []
    yield ", ".join([*times, f"last {last}"]), "dim"
    tries = tries_of(newest)
    known = [newest.id, message_of(newest), *([tries] if tries else [])]
    yield f"{'it is' if group.count == 1 else 'newest:'} {', '.join(known)}", ""


def show_letters(
    group: str, consumers: Sequence[str], inbox: str | None, *, archived: bool, limit: int, in_json: bool
) -> None:
    """
    Print the letters of a group.

    Raises:
        typer.BadParameter: There is no such group.
    """
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    with open_places(settings, consumers, inbox) as opened:
        found = [
            (place.where, letter)
            for place in opened.places
            for letter in place.letters(group, archived=archived, limit=limit)
        ]
    if in_json:
        write_json({"group": hide(group), "letters": [letter_as_json(letter, where, hide) for where, letter in found]})
        return
    if not found:
        kind = "archived dead letters" if archived else "dead letters"
        raise typer.BadParameter(
            hide(f"there is no group {group!r} of {kind}; `dkist-core dead-letters list` shows all")
        )
    console = Terminal(highlight=False)
    width = max(len(letter.id) for _, letter in found)
    for _, letter in found:
        head = Text.assemble("  ", (f"{letter.id:{width}}", "bold"), "  ")
        for line in rows(head, hidden(list(_texts_of_letter(letter)), hide), console):
            console.print(line, soft_wrap=True)
    if len(found) == limit:
        print_remark(f"these are the newest {limit}; --limit N lists more")


def _texts_of_letter(letter: DeadLetter) -> Iterator[tuple[str, str]]:
    yield message_of(letter), ""
    yield failure_of(letter), "red"
    yield ", ".join(part for part in (f"last {moment(letter.last_failed_at)}", tries_of(letter)) if part), "dim"
