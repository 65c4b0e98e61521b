"""
`dkist-core outbox list`: the journals of this host and their books, those of telemetry after the others.

Not here: the figures (outbox), and the messages set aside (outbox.set_aside).
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.draw.words import age, local_time
from dkist_processing_core.cli.outbox.as_json import as_json
from dkist_processing_core.cli.outbox.telemetry import telemetry_as_json, telemetry_lines
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.outbox import OutboxState, SpareState, outboxes, telemetry_journals
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import ATTENTION, Terminal
from dkist_processing_core.text.terminal import visible_line, write_json

_HEADS = ("published", "confirmed", "pending", "set aside", "oldest pending")
_STYLES = ("", "", ATTENTION, "red", ATTENTION)
_NOTHING = ("", "0", "-")
_INDENT = "  "


def show(*, in_json: bool) -> None:
    """Print the state of every journal."""
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    bus = open_bus(settings)
    states, telemetry = outboxes(settings), telemetry_journals(settings)
    folder = hide(str(bus.journal_path.parent))
    shown = visible_line(folder)
    if in_json:
        report = {
            "folder": folder,
            "journals": [as_json(state, hide) for state in states],
            "telemetry": [telemetry_as_json(state, hide) for state in telemetry],
        }
        write_json(report)
        return
    console = Terminal(highlight=False)
    if states:
        console.print_line(Text.assemble(("journals in ", "dim"), shown))
        console.print()
        for line in _lines(states, console, hide):
            console.print_line(line, len(_INDENT))
    else:
        console.print_line(Text(f"no journals in {shown}"))
    for number, line in enumerate(telemetry_lines(telemetry, console, hide)):
        if not number:
            console.print()
            console.print_line(Text.assemble(("journals of telemetry in ", "dim"), shown))
            console.print()
        console.print_line(line, len(_INDENT))
    if not any(state.is_current for state in states):
        console.print()
        console.print_line(Text(hide(f"no event was published yet for the bus of the settings, {bus.where}")))


def _lines(states: list[OutboxState], console: Terminal, hide: Callable[[str], str]) -> Iterator[Text]:
    """Yield a row of figures per journal, and below it the journal's destination and further remarks."""
    table = [_figures(state) for state in states]
    width = max(cell_len(visible_line(state.path.stem)) for state in states)
    widths = [max(len(row[at]) for row in (_HEADS, *table)) for at in range(len(_HEADS))]
    yield Text(_INDENT + " " * width + "".join(f"  {head:>{widths[at]}}" for at, head in enumerate(_HEADS)), "dim")
    mark = ">" if console.options.ascii_only else "●"
    for state, figures in zip(states, table, strict=True):
        if state is not states[0]:
            yield Text()
        line = Text.assemble(
            (f"{mark if state.is_current else ' '} ", "green"), (f"{visible_line(state.path.stem):{width}}", "bold")
        )
        for at, figure in enumerate(figures):
            line.append(f"  {figure:>{widths[at]}}", "dim" if figure in _NOTHING else _STYLES[at])
        line.rstrip()
        yield line
        yield from rows(Text(_INDENT), [(hide(text), style) for text, style in _remarks(state)], console)


def _figures(state: OutboxState) -> tuple[str, ...]:
    books = state.books
    if books is None:
        return ("-",) * len(_HEADS)
    if state.is_embedded:
        return (f"{books.published:,}", "", "", "", "")
    counts = (books.published, books.confirmed, books.pending, books.set_aside)
    return (*[f"{count:,}" for count in counts], "-" if state.oldest is None else age(state.oldest))


def _remarks(state: OutboxState) -> Iterator[tuple[str, str]]:
    """Yield the remarks about a journal, each with its style."""
    if state.problem is not None:
        yield state.problem, "red"
    elif state.is_embedded:
        kept = state.books.pending if state.books else 0
        yield f"the embedded journal, which subscribers read directly; events kept: {kept:,}", ""
    else:
        yield f"for {state.destination or 'an unknown broker'}", ""
    if state.lock_problem is not None:
        yield f"this user cannot deliver it: {state.lock_problem}", "red"
    if state.deliverer is not None:
        yield f"process {state.deliverer} is delivering it", "green"
    if state.unreachable_until is not None:
        until = local_time(datetime.fromtimestamp(state.unreachable_until, UTC), "%H:%M:%S", None)
        yield f"the broker could not be reached; tasks do not connect to it until {until}", ATTENTION
    for spare in state.spares:
        yield _spare_text(spare), ATTENTION
    for each in state.damaged:
        rest = "" if each.is_done else ", the next publisher takes over more"
        yield (
            f"damaged, set aside as {visible_line(each.path.name)}; messages taken over: {each.taken_over:,}{rest}",
            "red",
        )


def _spare_text(spare: SpareState) -> str:
    name = f"spare journal {visible_line(spare.path.stem).partition('.')[2]}"
    if spare.books is None:
        return f"{name}: {spare.problem}"
    owner = "its process has ended" if spare.owner is None else f"used by process {spare.owner}"
    return f"{name}: {spare.books.pending:,} pending, {owner}"
