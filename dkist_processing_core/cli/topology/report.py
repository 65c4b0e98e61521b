"""
The findings about a topology as text for a terminal, and as JSON.

Not here: the search for the findings (topology.findings).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.bus.topology import Binding, Exchange, Queue, Topology
from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.draw.words import fitted
from dkist_processing_core.cli.topology.findings import GOOD, RIGHT_NEEDED, Finding, Item, State
from dkist_processing_core.text.console import ATTENTION, Terminal
from dkist_processing_core.text.terminal import one_line

# The worst state first.
_STYLES = {
    State.DIFFERENT: "red",
    State.UNKNOWN: "red",
    State.MISSING: ATTENTION,
    State.MADE: "green",
    State.THERE: "green",
    State.ENSURED: "green",
    State.UNASKED: "dim",
}
_DONE = (State.THERE, State.MADE, State.ENSURED)
_MARKS = dict.fromkeys(_DONE, "✓") | {State.MISSING: "○", State.UNASKED: "–"}  # noqa: RUF001 - an en dash is meant
_ASCII_MARKS = dict.fromkeys(_DONE, "+") | {State.MISSING: "o", State.UNASKED: "-"}
_KIND_CELLS = len("exchange")
_NAME_SHARE = 0.35


def _name_of(item: Item) -> str:
    return item.queue if isinstance(item, Binding) else item.name


def _text_of(finding: Finding) -> str:
    """Return the state of an item and its reason; for a missing item, with its declaration."""
    item, reason = finding.item, finding.reason
    if isinstance(item, Binding):
        reason = f"from {item.exchange} with {item.routing_key!r}; {reason}"
    elif finding.state in (State.MISSING, State.MADE):
        reason = f"{_declaration_of(item)}; {reason}"
    reason = reason.removesuffix("; ")
    return f"{finding.state.value}: {reason}" if reason else finding.state.value


def _declaration_of(item: Exchange | Queue) -> str:
    if isinstance(item, Exchange):
        return item.type
    return ", ".join(f"{name}={value}" for name, value in item.arguments.items())


def show_findings(found: Iterable[Finding], topology: Topology, bus: str, hide: Callable[[str], str]) -> list[Finding]:
    """Print each finding as soon as it is found, with secrets hidden, and return all findings."""
    console = Terminal(highlight=False)
    console.print_line(Text.assemble(("bus  ", "dim"), bus), 5)
    console.print()
    items: tuple[Item, ...] = (*topology.exchanges, *topology.queues)
    names = [cell_len(one_line(hide(_name_of(item)))) for item in items]
    columns = console.columns
    width = max(names) if columns is None else min(max(names), int(columns * _NAME_SHARE))
    shown = []
    for each in found:
        ascii_only = console.options.ascii_only
        mark = (_ASCII_MARKS if ascii_only else _MARKS).get(each.state, "x" if ascii_only else "✗")
        style = _STYLES[each.state]
        name = fitted(one_line(hide(_name_of(each.item))), width, "...")
        kind = f"{type(each.item).__name__.lower():{_KIND_CELLS}}  "
        head = Text.assemble((f"{mark} ", style), kind, (name, "bold"), "  ")
        # Advice that is the same for many rows is printed once below them.
        advice = "" if each.advice in (None, RIGHT_NEEDED) else hide(each.advice)
        texts = ((hide(_text_of(each)), "" if each.state in GOOD else style), (advice, ""))
        for line in rows(head, texts, console):
            console.print(line, soft_wrap=True)
        shown.append(each)
    console.print()
    if any(each.advice == RIGHT_NEEDED for each in shown):
        console.print_line(Text(RIGHT_NEEDED))
        console.print()
    console.print(_verdict(shown))
    return shown


def _verdict(shown: list[Finding]) -> Text:
    counts = Counter(each.state for each in shown)
    text = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    worst = next((style for state, style in _STYLES.items() if counts[state]), "")
    return Text(text, f"bold {worst}")


def as_json(finding: Finding, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return a finding as JSON values, with secrets hidden."""
    item = {key: hide(value) if isinstance(value, str) else value for key, value in asdict(finding.item).items()}
    item.pop("exclusive", None)
    if isinstance(finding.item, Binding):
        item["routingKey"] = item.pop("routing_key")
    return {
        "kind": type(finding.item).__name__.lower(),
        **item,
        "state": finding.state.value,
        "reason": hide(finding.reason),
        "advice": None if finding.advice is None else hide(finding.advice),
        "differences": [
            asdict(each) | {"found": None if each.found is None else hide(each.found)} for each in finding.differences
        ],
    }
