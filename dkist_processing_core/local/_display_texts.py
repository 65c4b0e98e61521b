"""
The texts that every display of a run shows in the same way: its result, and the lines of a task.

Not here: the end of an attempt as text (_attempt_end).
"""

from collections.abc import Sequence

from dkist_processing_core.text.terminal import write_line


def write_lines(name: str, lines: Sequence[str]) -> None:
    """Write a task's lines to the standard output stream."""
    write_line("\n".join(f"{name} | {line}" for line in lines))


def result_text(reason: str | None, *, succeeded: bool) -> str:
    """Return the result of a run as text, with the reason for its failure if one is known."""
    return "run finished" if succeeded else f"run failed: {reason}" if reason else "run failed"
