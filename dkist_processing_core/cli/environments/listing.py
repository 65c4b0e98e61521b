"""
`dkist-core environments list`: the environments of this host, their sizes and their users.

Not here: the data (environments), and the commands that change environments (environments.change).
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.environments import Environments, folder_of
from dkist_processing_core.environments.entries import Entry, State
from dkist_processing_core.events import format_time
from dkist_processing_core.text import duration, size
from dkist_processing_core.text.console import ATTENTION, Terminal
from dkist_processing_core.text.terminal import write_json

_HEADS = ("state", "size", "last used")
_STYLES = {State.READY: "", State.IN_USE: "green", State.BUILDING: ATTENTION}
_INDENT = "  "


def show(*, in_json: bool) -> None:
    """Print every environment."""
    hide = partial(without_secrets, settings=None)
    environments = Environments(folder_of())
    found = environments.entries()
    folder = hide(environments.folder)
    if in_json:
        report = {"folder": folder, "environments": [_as_json(entry, hide) for entry in found]}
        write_json(report)
        return
    console = Terminal(highlight=False)
    if not found:
        console.print_line(Text(f"no environments in {folder}"))
        return
    console.print_line(Text.assemble(("environments in ", "dim"), folder))
    console.print()
    for line in _lines(found, console, hide):
        console.print(line, soft_wrap=True)
    console.print()
    total = sum(entry.bytes or 0 for entry in found)
    console.print(Text(f"{_INDENT}environments: {len(found):,}, in total {size(total)}"), soft_wrap=True)


def _lines(found: list[Entry], console: Terminal, hide: Callable[[str], str]) -> Iterator[Text]:
    names = [hide(entry.requirement or entry.key) for entry in found]
    table = [_figures(entry) for entry in found]
    width = max(map(cell_len, names))
    widths = [max(len(row[at]) for row in (_HEADS, *table)) for at in range(len(_HEADS))]
    yield Text(_INDENT + " " * width + "".join(f"  {head:>{widths[at]}}" for at, head in enumerate(_HEADS)), "dim")
    for entry, name, figures in zip(found, names, table, strict=True):
        line = Text.assemble(_INDENT, (name + " " * (width - cell_len(name)), "bold"))
        for at, figure in enumerate(figures):
            line.append(f"  {figure:>{widths[at]}}", _STYLES.get(entry.state, "dim") if at == 0 else "")
        yield line
        yield from rows(Text(_INDENT), [(hide(text), "dim") for text in _remarks(entry)], console)


def _figures(entry: Entry) -> tuple[str, str, str]:
    if entry.bytes is None or entry.last_used is None:
        return (entry.state, "-", "-")
    return (entry.state, size(entry.bytes), local_time(_moment(entry.last_used), "%Y-%m-%d %H:%M", None))


def _remarks(entry: Entry) -> Iterator[str]:
    """Yield the lines about an environment below its figures."""
    yield entry.path
    if entry.record is None:
        return
    seconds = entry.record.get("seconds")
    took = f" in {duration(seconds)}" if isinstance(seconds, int | float) else ""
    yield f"built by {entry.record.get('installer', 'an unknown installer')}{took}"
    if lacking := entry.record.get("lacking"):
        yield f"the release has no extra {', '.join(map(str, lacking))}"


def _as_json(entry: Entry, hide: Callable[[str], str]) -> dict[str, Any]:
    record = entry.record or {}
    return {
        "path": hide(entry.path),
        "requirement": entry.requirement and hide(entry.requirement),
        "state": entry.state,
        "bytes": entry.bytes,
        "lastUsed": None if entry.last_used is None else format_time(_moment(entry.last_used)),
        "madeAt": record.get("made_at"),
        "seconds": record.get("seconds"),
        "installer": record.get("installer"),
        "lacking": record.get("lacking"),
        "distributions": record.get("distributions"),
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
