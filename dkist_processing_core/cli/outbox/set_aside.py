"""
`dkist-core outbox list --set-aside`: the messages that the broker refused, and the reasons.

Not here: the commands that change them (outbox.change).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.text import Text

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.draw.words import local_time, pasted
from dkist_processing_core.cli.outbox.as_json import as_json, set_aside_as_json
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import SetAside
from dkist_processing_core.outbox import OutboxState, outboxes, set_aside
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import one_line, visible_line, write_json

_MOMENT = "%Y-%m-%d %H:%M:%S"
_PREFIX = "edu.nso.dkist."
_LONGEST_ROUTE = 160


def show_set_aside(*, in_json: bool) -> None:
    """Print every message that is set aside, by outbox, and the outboxes that could not be read."""
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    read = [_read(state) for state in outboxes(settings) if not state.is_embedded]
    found = [(state, entries) for state, entries in read if entries or state.problem is not None]
    if in_json:
        report = {
            "folder": hide(str(open_bus(settings).journal_path.parent)),
            "journals": [as_json(state, hide) | {"messages": _messages(entries, hide)} for state, entries in found],
        }
        write_json(report)
        return
    console = Terminal(highlight=False)
    if not found:
        console.print("nothing is set aside")
    for state, entries in found:
        for line in _lines(state, entries, console, hide):
            console.print(line, soft_wrap=True)


def _read(state: OutboxState) -> tuple[OutboxState, list[SetAside] | None]:
    """Return the messages that are set aside in a journal; None and the problem if it cannot be read."""
    if state.problem is not None:
        return state, None
    try:
        return state, set_aside(state.path)
    except JournalError as error:
        return replace(state, problem=str(error)), None


def _messages(entries: list[SetAside] | None, hide: Callable[[str], str]) -> list[dict[str, Any]] | None:
    return None if entries is None else [set_aside_as_json(entry, hide) for entry in entries]


def _lines(
    state: OutboxState, entries: list[SetAside] | None, console: Terminal, hide: Callable[[str], str]
) -> Iterator[Text]:
    mark = ">" if console.options.ascii_only else "●"
    head = Text.assemble(
        (f"{mark} " if state.is_current else "  ", "green"), (visible_line(state.path.stem), "bold"), "  "
    )
    if not entries:
        yield from rows(head, [(hide(state.problem or ""), "red")], console)
        yield Text()
        return
    yield from rows(head, [(hide(f"for {state.destination or 'an unknown broker'}"), "")], console)
    yield Text()
    width = len(str(entries[-1].seq))
    for entry in entries:
        yield from rows(Text.assemble("  ", (f"{entry.seq:{width}}", "bold"), "  "), _texts(entry, hide), console)
        yield Text()
    name = pasted(state.path.stem.removeprefix("outbox-"))
    option = "" if state.is_current else f" --outbox {name}"
    retry = f"dkist-core outbox retry{option} --all"
    if name is None and not state.is_current:
        retry = "rename the file: its name cannot be shown"
    yield Text.assemble(f"  set aside: {len(entries):,}; to make them pending again: ", (retry, "bold"))
    yield Text()


def _texts(entry: SetAside, hide: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    message = entry.message
    kind, route = message.properties.type, hide(f"to {message.exchange} with {message.routing_key}")
    # The JSON output has the whole text of an unusually long key.
    route = route if len(route) <= _LONGEST_ROUTE else f"{route[:_LONGEST_ROUTE]}..."
    published, refused = _moment(entry.appended), _moment(entry.refused)
    if kind:
        yield hide(kind.removeprefix(_PREFIX)), "bold"
    yield route, "" if kind else "bold"
    yield hide(f"id {message.properties.message_id or 'unknown'}"), "dim"
    tries = "once" if entry.tries == 1 else f"{entry.tries} times"
    yield f"published {published}, refused {tries}, last {refused}", "dim"
    yield one_line(hide(entry.reason)), "red"


def _moment(seconds: float | None) -> str:
    return "at an unknown time" if seconds is None else local_time(datetime.fromtimestamp(seconds, UTC), _MOMENT, None)
