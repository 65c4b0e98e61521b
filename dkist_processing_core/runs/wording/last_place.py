"""
Where a task was shortly before its end, by the last stacks of its threads, which are a sample and have an age.

Not here: the whole stacks (cli.draw.task_sheet).
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from dkist_processing_core.events import TaskFailed
from dkist_processing_core.text import duration

# Below it are the frames of the author's code, and above it those of this package.
_CALL_OF_TASK = re.compile(r"task\.py:\d+ in __call__")
_NAME = re.compile(r'Thread "(.*)":')
# The deepest frame of a thread that waits for other threads or processes, in the standard library.
_WAITS = re.compile(
    r"(threading|synchronize|connection|selectors|_base|popen_\w+)\.py:\d+ in .*"
    r"|thread\.py:\d+ in _worker|pool\.py:\d+ in _handle_\w+"
)


class LastPlace(NamedTuple):
    """Where the thread was that worked; the main thread if all waited for each other."""

    thread: str | None
    """Its name; None for the first one, the main thread."""
    frames: Sequence[str]
    """Those of the author if there are any, the deepest first."""
    age: float | None
    """How long before the end it was there, in seconds."""

    @property
    def text(self) -> str:
        """The deepest frame, with the age: `0.4 s before the end at fit.py:18 in fit`."""
        when = "last seen" if self.age is None else f"{duration(self.age)} before the end"
        return f"{when} at {self.frames[0]}{'' if self.thread is None else f' (thread {self.thread})'}"


def last_place(end: TaskFailed) -> LastPlace | None:
    """Return where a task was that could not report its failure itself; None if it is not known."""
    threads = [part.splitlines() for part in (end.last_stack or "").split("\n\n")]
    # The first line names the thread.
    stacks = [(lines[0], [line.strip() for line in lines[1:] if line.strip()]) for lines in threads if lines]
    stacks = [(title, frames) for title, frames in stacks if frames]
    if not stacks:
        return None
    title, frames = next((each for each in stacks if not _WAITS.fullmatch(each[1][0])), stacks[0])
    found = _NAME.fullmatch(title.strip())
    of_author = list(itertools.takewhile(lambda frame: not _CALL_OF_TASK.fullmatch(frame), frames)) or frames
    is_first = title == stacks[0][0]
    name = found[1] if found else title
    return LastPlace(None if is_first else name, of_author, end.last_stack_age_seconds)
