"""
Draw each `.dot` file of this folder with Graphviz, as `docs/images/*.svg`.

    python docs/drawings/render.py

Parts of Graphviz's output that differ between versions, or that name another address, are left out.
"""

# ruff: noqa: INP001 - a separate program, not part of a package

import re
import subprocess
from collections import Counter
from pathlib import Path

FOLDER = Path(__file__).parent
IMAGES = FOLDER.parent / "images"
_HEAD = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_ELSEWHERE = re.compile(r' xmlns:xlink="[^"]*"')
_NODE = re.compile(r'<g id="\w+" class="node">.*?</g>', re.DOTALL)
_OUTLINE = re.compile(r'<path [^>]*?d="M(?P<path>[^"]*)"')
_TEXT = re.compile(
    r'<text text-anchor="start" x="(?P<x>[^"]*)" y="(?P<y>[^"]*)"(?P<rest>[^>]*>[^<]*[^<\s][^<]*</text>)'
)


def image_of(source: Path) -> Path:
    """
    Return the path of the drawing of a source.
    """
    return IMAGES / f"{source.stem}.svg"


def centred(node: str) -> str:
    """
    Return a node whose lines are centred in its outline, independent of the width of the reader's font.

    Graphviz places each line of a label with markup by its left end, with an estimated width. Lines that begin at the
    same place, and several texts of one line, are not moved.
    """
    outline = _OUTLINE.search(node)
    if outline is None:
        return node
    ends = [float(x) for x in re.findall(r"(-?[\d.]+),", outline["path"])]
    texts = list(_TEXT.finditer(node))
    begins, lines = Counter(text["x"] for text in texts), Counter(text["y"] for text in texts)
    middle = round((min(ends) + max(ends)) / 2, 2)

    def anchored(text: re.Match[str]) -> str:
        if begins[text["x"]] > 1 or lines[text["y"]] > 1:
            return text[0]
        return f'<text text-anchor="middle" x="{middle:g}" y="{text["y"]}"{text["rest"]}'

    return _TEXT.sub(anchored, node)


def render(source: Path) -> str:
    """
    Return the drawing of a source.
    """
    command = ["dot", "-Tsvg", str(source)]
    drawn = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout  # noqa: S603
    for pattern in (_HEAD, _COMMENT, _ELSEWHERE):
        drawn = pattern.sub("", drawn)
    return _NODE.sub(lambda node: centred(node[0]), drawn)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for each in sorted(FOLDER.glob("*.dot")):
        image_of(each).write_text(render(each), encoding="utf-8")
