"""
Draw `docs/images/trace.svg`: the spans of one run as an OTLP receiver got them, from the run to the author's own.

    python docs/drawings/trace.py

The spans are in `trace.json`, as `python -m tests.traced docs/drawings/trace.json` wrote them. A publication
is a mark on the row of its parent.
"""

# ruff: noqa: INP001 - a separate program, not part of a package

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

SPANS = Path(__file__).parent / "trace.json"
IMAGE = Path(__file__).parents[1] / "images" / "trace.svg"
PHASES = ("Pre Run", "Run", "Post Run")
_WIDTH, _LEFT, _RIGHT, _ROW, _TOP, _BOTTOM = 900, 196, 92, 19, 64, 46
_BAR, _LEAST = 11, 2.5
_FONT = "Helvetica,Arial,sans-serif"
_INK, _FAINT, _RED = "#2b2f36", "#7b838d", "#c2413b"
_COLOURS = {"run": "#4c566a", "attempt": "#3f7cac", "phase": "#7fb3d5", "own": "#74a892"}
_MARK = "#d99a2b"
_KINDS = {"run": "run", "attempt": "attempt", "phase": "phase", "own": "span of the author"}
_STEPS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
_MOST_TICKS = 9
_SHORT_SECONDS = 0.1
_Span = dict[str, Any]


def rows(spans: list[_Span], parent: str = "", depth: int = 0) -> Iterator[tuple[_Span, int]]:
    """
    Yield the spans below one, each before its children, with its depth; publications are left out.
    """
    for span in spans:
        if span["parent_id"] == parent and span["kind"] != "PRODUCER":
            yield span, depth
            yield from rows(spans, span["span_id"], depth + 1)


def kind_of(span: _Span, depth: int) -> str:
    """
    Return the kind of a span, by which it is coloured.
    """
    if depth <= 1:
        return ("run", "attempt")[depth]
    return "phase" if span["name"] in PHASES else "own"


def render() -> str:
    """
    Return the drawing.
    """
    spans: list[_Span] = json.loads(SPANS.read_text(encoding="utf-8"))
    shown = list(rows(spans))
    began = min(span["start"] for span in spans)
    seconds = (max(span["end"] for span in spans) - began) / 1e9
    height = _TOP + _ROW * len(shown) + _BOTTOM

    def at(nanoseconds: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (nanoseconds - began) / 1e9 / seconds

    lines = [
        f'<svg width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">',
        "<title>trace</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#fbfbf9" stroke="#dcdcd6"/>',
        *_legend(),
        *_axis(seconds, height),
    ]
    for number, (span, depth) in enumerate(shown):
        middle = _TOP + _ROW * number + _ROW / 2
        if depth == 1:
            lines.append(
                f'<line x1="12" y1="{middle - _ROW / 2:g}" x2="{_WIDTH - 12}" y2="{middle - _ROW / 2:g}" '
                'stroke="#e7e7e1"/>'
            )
        lines += _row(span, depth, middle, at(span["start"]), at(span["end"]))
        for each in spans:
            if each["parent_id"] == span["span_id"] and each["kind"] == "PRODUCER":
                lines.append(_mark(at(each["start"]), middle + _BAR / 2))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(span: _Span, depth: int, middle: float, start: float, end: float) -> Iterator[str]:
    is_failed = span["status_code"] == "ERROR"
    weight = ' font-weight="bold"' if depth <= 1 else ""
    yield _text(14 + 13 * depth, middle + 4, span["name"], fill=_RED if is_failed else _INK, extra=weight)
    width = max(_LEAST, end - start)
    colour = _COLOURS[kind_of(span, depth)]
    yield (
        f'<rect x="{start:.1f}" y="{middle - _BAR / 2:g}" width="{width:.1f}" height="{_BAR}" rx="2" '
        f'fill="{_RED if is_failed else colour}"{_striped(depth) if is_failed else ""}/>'
    )
    duration = (span["end"] - span["start"]) / 1e9
    told = f"{duration:.1f} s" if duration >= _SHORT_SECONDS else f"< {_SHORT_SECONDS:g} s"
    if is_failed:
        told += f", {span['error_type']}"
    yield _text(start + width + 5, middle + 4, told, fill=_RED if is_failed else _FAINT)


def _striped(depth: int) -> str:
    """
    Return the shade of a failure: that of the attempt is full.
    """
    return "" if depth == 1 else ' fill-opacity="0.62"'


def _mark(x: float, y: float) -> str:
    return f'<path d="M{x:.1f},{y - 6:g} l3.8,7 h-7.6 z" fill="{_MARK}" stroke="#fbfbf9" stroke-width="0.6"/>'


def _axis(seconds: float, height: float) -> Iterator[str]:
    step = next((step for step in _STEPS if seconds / step <= _MOST_TICKS), _STEPS[-1])
    for number in range(int(seconds / step) + 1):
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * number * step / seconds
        yield f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{height - _BOTTOM + 6}" stroke="#e3e3dc"/>'
        yield _text(x, _TOP - 12, f"{number * step:g} s", fill=_FAINT, extra=' text-anchor="middle"')
    yield _text(
        _WIDTH / 2,
        height - 16,
        "The spans of one run: CorrectFrames fails and is repeated, FitLimb is killed and is repeated.",
        fill=_FAINT,
        extra=' text-anchor="middle"',
    )


def _legend() -> Iterator[str]:
    x = 14.0
    for kind, name in _KINDS.items():
        yield f'<rect x="{x:g}" y="15" width="12" height="{_BAR}" rx="2" fill="{_COLOURS[kind]}"/>'
        yield _text(x + 17, 24.5, name)
        x += 34 + 6.3 * len(name)
    yield f'<rect x="{x:g}" y="15" width="12" height="{_BAR}" rx="2" fill="{_RED}"/>'
    yield _text(x + 17, 24.5, "status error")
    x += 108
    yield _mark(x + 6, 25)
    yield _text(x + 17, 24.5, "event published")


def _text(x: float, y: float, text: str, *, fill: str = _INK, extra: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:g}" font-family="{_FONT}" font-size="11.5" fill="{fill}"{extra}>{escape(text)}</text>'
    )


if __name__ == "__main__":
    IMAGE.write_text(render(), encoding="utf-8")
