"""
The division of tests among processes that run at the same time: each runs the next test that no other one has claimed.

Not here: the processes (on_each_python.sh, quick.sh), and the tests of each part (parts.py).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest


def claimed(items: Iterable[pytest.Item], folder: Path) -> Iterator[pytest.Item]:
    """
    Yield the tests that this process claims, each at the moment at which it is needed.

    First come the tests of modules that no other process has begun, so that mostly one process sets up the fixtures of
    a module. Then come the last tests of the modules that others have begun, so that all processes end together.

    Args:
        items: The tests that all processes select, in any order.
        folder: The empty folder of the claims, which all processes name.
    """
    modules: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        modules[item.nodeid.partition("::")[0]].append(item)
    of_others = []
    for module, tests in modules.items():
        if _claim(module, folder):
            yield from (test for test in tests if _claim(test.nodeid, folder))
        else:
            of_others.append(tests)
    for tests in of_others:
        yield from (test for test in reversed(tests) if _claim(test.nodeid, folder))


def _claim(name: str, folder: Path) -> bool:
    try:
        (folder / hashlib.sha256(name.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
