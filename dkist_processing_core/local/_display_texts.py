"""
The texts that every display of a run shows in the same way: its result, and the lines of a task.

Not here: the end of an attempt as text (_attempt_end).
"""

from collections.abc import Sequence

from dkist_processing_core.logs.lines import is_json
from dkist_processing_core.text.terminal import write_line


def write_lines(name: str, lines: Sequence[str]) -> None:
    """Write a task's lines to the standard output stream, each with its name, unless the lines are JSON with it."""
    before = "" if is_json() else f"{name} | "
    write_line("\n".join(f"{before}{line}" for line in lines))


def result_text(reason: str | None, *, succeeded: bool) -> str:
    """Return the result of a run as text, with the reason for its failure if one is known."""
    return "run finished" if succeeded else f"run failed: {reason}" if reason else "run failed"
