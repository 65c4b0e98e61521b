"""
Draw `docs/images/timeline.svg`: the output of `dkist-core timeline` for the events of one run of `make demo`.

    python docs/drawings/timeline.py

The events are in `solar_calibration.jsonl`, as `dkist-core events list --json` wrote them, with `worker1` as the name
of the host. Not here: the drawing of a timeline as text (cli.draw).
"""

# ruff: noqa: INP001 - a separate program, not part of a package

import io
import re
from datetime import UTC
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.terminal_theme import MONOKAI

from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.events.codec import decode
from dkist_processing_core.runs import RunState
from dkist_processing_core.text.console import Terminal

EVENTS = Path(__file__).parent / "solar_calibration.jsonl"
IMAGE = Path(__file__).parents[1] / "images" / "timeline.svg"
_WIDTH = 96
# The fonts of rich's own format are at an address of the internet.
_FONT_FACES = re.compile(r"@font-face \{\{.*?\}\}\n", re.DOTALL)


def render() -> str:
    """
    Return the drawing.
    """
    events = [decode(line.encode(), "application/cloudevents+json", {}) for line in EVENTS.read_text().splitlines()]
    state = RunState()
    for event in events:
        state.fold(event)
    (view,) = state.runs
    console = Terminal(
        record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print("[bold]$[/] dkist-core timeline")
    for line in draw_timeline(view, width=_WIDTH, now=events[-1].time, zone=UTC):
        console.print(line)
    form = _FONT_FACES.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code", "Menlo, Consolas")
    drawn = console.export_svg(title="make demo", theme=MONOKAI, code_format=form, unique_id="timeline")
    return re.sub(r" *<!--.*?-->\n", "", drawn)


if __name__ == "__main__":
    IMAGE.write_text(render(), encoding="utf-8")
