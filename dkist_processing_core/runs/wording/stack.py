"""
The stack of an exception for readers: the frames of the author, without those of this package.

Not here: the stack of an exception in its own process (text.shown_stack).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FRAME = re.compile(r'  File "(?P<path>[^"]*)"(?:, line (?P<line>\d+))?(?:, in (?P<function>.*))?')
_OF_THIS_PACKAGE = re.compile(r"(^|/)dkist_processing_core/")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a stack."""

    path: str
    line: str
    """The number of the line; "" if the stack does not have it."""
    function: str
    code: tuple[str, ...]
    is_of_this_package: bool


@dataclass(frozen=True, slots=True)
class Traced:
    """One exception of a stack: what it is, and its frames."""

    text: str
    """The lines that name the exception, after its frames."""
    frames: tuple[Frame, ...]
    """The deepest first."""


def traced(stack: str) -> list[Traced]:
    """
    Return the exceptions of a stack, the last one first, which the others led to.

    A part of a stack that is not in the form of Python is text without frames.
    """
    found: list[Traced] = []
    frames: list[Frame] = []
    text: list[str] = []
    for part in _parts(stack.splitlines()):
        frame = _FRAME.match(part[0])
        if frame is None:
            text += part
            continue
        if text:
            found.append(Traced(_text(text), tuple(reversed(frames))))
            frames, text = [], []
        path, line, function = (frame[name] or "" for name in ("path", "line", "function"))
        code = tuple(each.strip() for each in part[1:])
        frames.append(Frame(path, line, function, code, bool(_OF_THIS_PACKAGE.search(path))))
    if frames or text:
        found.append(Traced(_text(text), tuple(reversed(frames))))
    return [each for each in reversed(found) if each.frames or each.text]


def _text(lines: list[str]) -> str:
    """Return the lines about an exception; the line before the frames of the next one is a part of that one's form."""
    return "\n".join(line for line in lines if line != "Traceback (most recent call last):").strip()


def authors_lines(stack: str) -> list[str]:
    """
    Return the lines of a stack without the frames of this package; all lines if it has no other frames.

    >>> lines = ['  File "/lib/dkist_processing_core/task.py", line 1, in __call__', "    self.run()", '  File "a.py"']
    >>> authors_lines(chr(10).join(lines))
    ['  File "a.py"']
    """
    parts = list(_parts(stack.splitlines()))
    kept = [part for part in parts if not _OF_THIS_PACKAGE.search(_path_of(part))]
    has_frames = any(_path_of(part) for part in kept)
    return [line for part in (kept if has_frames else parts) for line in part]


def _parts(lines: list[str]) -> Iterator[list[str]]:
    """Yield each frame with its lines of code, and each other line alone."""
    part: list[str] = []
    for line in lines:
        if part and not (_path_of(part) and line.startswith("    ")):
            yield part
            part = []
        part.append(line)
    if part:
        yield part


def _path_of(part: list[str]) -> str:
    found = _FRAME.match(part[0])
    return "" if found is None else found["path"]
