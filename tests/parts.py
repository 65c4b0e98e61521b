"""
The parts into which a run of the suite is divided. An expression of marks, such as `quiet and not once`, names a part.

    python -m tests.parts EXPRESSION… -- ARGUMENT…

prints the expressions of the parts that have a test among those that the arguments of pytest select. Not here: the
expressions, and the processes that run the parts (on_each_python.sh).
"""

import io
import sys
from contextlib import redirect_stdout
from functools import cache
from types import CodeType

import pytest


def is_in_part(item: pytest.Item, part: str) -> bool:
    """
    Return True if the expression of a part is true for the marks of a test.
    """
    marks = {mark.name for mark in item.iter_markers()}
    return bool(eval(_compiled(part), {"__builtins__": {}}, {mark: mark in marks for mark in _declared(item.config)}))


@cache
def _compiled(part: str) -> CodeType:
    return compile(part, "part", "eval")


@cache
def _declared(config: pytest.Config) -> list[str]:
    return [line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")]


class _Selected:
    """
    A plugin that keeps the tests that pytest has selected.
    """

    items: list[pytest.Item]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """
        Keep the tests that remain after `-k`, `-m` and the other arguments.
        """
        self.items = session.items


def main(parts: list[str], arguments: list[str]) -> int:
    """
    Print each part that has a selected test. Return 0, or print the report of a collection that failed.
    """
    selected = _Selected()
    report = io.StringIO()
    with redirect_stdout(report):
        # The default of `-m` leaves out the tests of `make soak`, which has parts too.
        everything = ["-m", "", *arguments, "--collect-only", "--quiet", "--no-header"]
        status = pytest.main(everything, plugins=[selected])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        sys.stderr.write(report.getvalue())
        return int(status)
    for part in parts:
        if any(is_in_part(item, part) for item in selected.items):
            sys.stdout.write(f"{part}\n")
    return 0


if __name__ == "__main__":
    divide = sys.argv.index("--")
    sys.exit(main(sys.argv[1:divide], sys.argv[divide + 1 :]))
