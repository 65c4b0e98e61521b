"""
`dkist-core dead-letters show`: one dead letter with its stack, its earlier failures and its message.

Not here: reading it (dead_letters).
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import partial

import typer
from rich.text import Text

from dkist_processing_core.cli.dead_letters.as_json import whole_letter_as_json
from dkist_processing_core.cli.dead_letters.texts import brief, failure_of, hidden, message_of, moment, tries_of
from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.dead_letters import DeadLetter, FormerFailure, open_places
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json

_MOST_CHARACTERS = 4000
_LABEL = 10


def show(name: str, consumers: Sequence[str], inbox: str | None, *, in_json: bool) -> None:
    """
    Print one dead letter.

    Raises:
        typer.BadParameter: There is no such letter.
    """
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    with open_places(settings, consumers, inbox) as opened:
        found = next(
            ((place.where, letter) for place in opened.places if (letter := place.letter(name)) is not None), None
        )
    if found is None:
        remarks = "".join(f"; {remark}" for remark in opened.remarks)
        msg = f"there is no dead letter {name!r}; `dkist-core dead-letters list GROUP` shows those of a group{remarks}"
        raise typer.BadParameter(hide(msg))
    where, letter = found
    if in_json:
        write_json(whole_letter_as_json(letter, where, hide))
        return
    console = Terminal(highlight=False)
    for label, texts in _facts(letter, where):
        head = Text(f"{label:{_LABEL}}", "dim")
        for line in rows(head, hidden(texts, hide), console):
            console.print(line, soft_wrap=True)
    for title, text in _blocks(letter):
        console.print(Text(f"\n{title}", "dim"))
        console.print(Text(hide(text)), soft_wrap=True)


def _facts(letter: DeadLetter, where: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    yield "id", [(f"{letter.id}, of the group {letter.group}{', archived' if letter.is_archived else ''}", "bold")]
    yield "consumer", [(letter.consumer, "bold"), (where, "dim")]
    yield "message", [(message_of(letter, with_whole_run=True), "")]
    yield "failure", [(failure_of(letter), "red"), (tries_of(letter), "dim")]
    yield "first", [(moment(letter.first_failed_at), "")]
    yield "last", [(moment(letter.last_failed_at), "")]
    if letter.obstacle is not None:
        yield "retry", [(f"it cannot be retried: {letter.obstacle}", "")]
    for former in letter.history:
        yield "before", [(brief(former.reason), "red"), (_when(former), "dim")]


def _when(former: FormerFailure) -> str:
    return f"failed {moment(former.failed_at)}, retried {moment(former.retried_at)}"


def _blocks(letter: DeadLetter) -> Iterator[tuple[str, str]]:
    if letter.stack:
        stack = letter.stack.rstrip()
        rest = len(stack) - _MOST_CHARACTERS
        shown = stack if rest <= 0 else f"{rest:,} earlier characters: --json has all\n...{stack[-_MOST_CHARACTERS:]}"
        yield "stack", shown
    try:
        text = letter.body.decode()
    except UnicodeDecodeError:
        text = repr(letter.body)[2:-1]
    with contextlib.suppress(ValueError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    rest = len(text) - _MOST_CHARACTERS
    title = "body" if letter.content_type is None else f"body, {letter.content_type}"
    yield title, text if rest <= 0 else f"{text[:_MOST_CHARACTERS]}\n... and {rest:,} more characters: --json has all"
