"""
The stack of an exception for a terminal: the frames of the author, without those of this package.

Not here: the stack of an exception in its own process (text.shown_stack).
"""

import re
from collections.abc import Iterator

_FRAME = re.compile(r'  File "(?P<path>[^"]*)"')
_OF_THIS_PACKAGE = re.compile(r"(^|/)dkist_processing_core/")


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
