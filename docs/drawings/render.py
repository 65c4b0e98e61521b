"""
Draw every `.dot` of this folder, by Graphviz, as `docs/images/*.svg`.

    python docs/drawings/render.py

Of what Graphviz writes, that which differs from version to version is left out, and all that names another place.
"""

# ruff: noqa: INP001 - a program of its own, and no part of a package

import hashlib
import re
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
IMAGES = FOLDER.parent / "images"
_HEAD = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_ELSEWHERE = re.compile(r' xmlns:xlink="[^"]*"')


def image_of(source: Path) -> Path:
    """
    Return where the drawing of a source lies.
    """
    return IMAGES / f"{source.stem}.svg"


def stamp_of(source: Path) -> str:
    """
    Return the comment by which a drawing tells what it was drawn from.
    """
    return f"<!-- drawn from docs/drawings/{source.name}, sha256 {hashlib.sha256(source.read_bytes()).hexdigest()} -->"


def render(source: Path) -> str:
    """
    Return the drawing of a source.
    """
    command = ["dot", "-Tsvg", str(source)]
    drawn = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout  # noqa: S603
    for pattern in (_HEAD, _COMMENT, _ELSEWHERE):
        drawn = pattern.sub("", drawn)
    return f"{stamp_of(source)}\n{drawn}"


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for each in sorted(FOLDER.glob("*.dot")):
        image_of(each).write_text(render(each), encoding="utf-8")
