"""
`dkist-core outbox list`: the journals of telemetry, as text and as JSON.

Not here: the figures (outbox), and the journals of messages (cli.outbox.listing).
"""

from collections.abc import Callable, Iterator
from typing import Any

from rich.text import Text

from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.draw.words import age
from dkist_processing_core.cli.outbox.as_json import time_of
from dkist_processing_core.outbox import TelemetryState
from dkist_processing_core.text import size
from dkist_processing_core.text.console import ATTENTION, Terminal
from dkist_processing_core.text.terminal import visible_line

ITEMS = {"traces": "spans", "metrics": "metric points", "logs": "log records"}
"""The items of each signal, in the words of an operator."""
_HEADS = ("delivered", "pending", "refused", "dropped")
_STYLES = ("", ATTENTION, "red", "red")
_INDENT = "  "


def telemetry_lines(states: list[TelemetryState], console: Terminal, hide: Callable[[str], str]) -> Iterator[Text]:
    """Yield a block for each journal: its name, the counts of each signal, and remarks."""
    if not states:
        return
    table = {name: _counts(states, signal) for signal, name in ITEMS.items()}
    width = max(len(name) for name in ITEMS.values())
    widths = [
        max(len(head), *[len(row[at]) for each in table.values() for row in each]) for at, head in enumerate(_HEADS)
    ]
    yield Text(_INDENT + " " * width + "".join(f"  {head:>{widths[at]}}" for at, head in enumerate(_HEADS)), "dim")
    mark = ">" if console.options.ascii_only else "●"
    for number, state in enumerate(states):
        if number:
            yield Text()
        yield Text.assemble((f"{mark if state.is_current else ' '} ", "green"), (visible_line(state.path.stem), "bold"))
        for name, figures in table.items() if state.books is not None else ():
            line = Text(f"{_INDENT}{name:{width}}")
            for at, figure in enumerate(figures[number]):
                line.append(f"  {figure:>{widths[at]}}", "dim" if figure == "0" else _STYLES[at])
            yield line
        yield from rows(Text(_INDENT), [(hide(text), style) for text, style in _remarks(state)], console)


def _counts(states: list[TelemetryState], signal: str) -> list[tuple[str, ...]]:
    books = [None if state.books is None else state.books.get(signal) for state in states]
    return [
        ("-",) * len(_HEADS) if each is None else tuple(f"{getattr(each, head):,}" for head in _HEADS) for each in books
    ]


def _remarks(state: TelemetryState) -> Iterator[tuple[str, str]]:
    if state.problem is not None:
        yield state.problem, "red"
    by_collector: dict[str, list[str]] = {}
    for signal, (protocol, address) in state.collectors.items():
        by_collector.setdefault(f"{address} ({protocol})", []).append(ITEMS[signal])
    for collector, items in by_collector.items():
        yield f"for {collector}" if len(by_collector) == 1 else f"{', '.join(items)} for {collector}", ""
    if state.oldest is not None:
        yield f"oldest pending: {age(state.oldest)}; {size(state.size or 0)} on disk", ATTENTION
    for process in sorted(set(state.deliverers.values())):
        items = [ITEMS[signal] for signal, holder in state.deliverers.items() if holder == process]
        yield f"process {process} is delivering {', '.join(items)}", "green"


def telemetry_as_json(state: TelemetryState, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return the state of a journal of telemetry as JSON values, with secrets hidden; unknown values are null."""
    return {
        "file": hide(str(state.path)),
        "current": state.is_current,
        "signals": {signal: _signal(state, signal, hide) for signal in ITEMS},
        "oldestPending": time_of(state.oldest),
        "bytes": state.size,
        "problem": None if state.problem is None else hide(state.problem),
    }


def _signal(state: TelemetryState, signal: str, hide: Callable[[str], str]) -> dict[str, Any]:
    protocol, address = state.collectors.get(signal, (None, None))
    books = None if state.books is None else state.books.get(signal)
    return {
        "protocol": protocol,
        "endpoint": None if address is None else hide(address),
        **{name: None if books is None else getattr(books, name) for name in _HEADS},
        "deliveredBy": state.deliverers.get(signal),
    }
