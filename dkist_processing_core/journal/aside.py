"""
The names of files that were renamed because a new file replaces them, and the search for such files.

Not here: when a file is renamed (damage, locks, _rollback).
"""

import contextlib
import itertools
import os
import re
import time
from pathlib import Path


def name_aside(path: Path) -> Path:
    """Return an unused path in the same folder, to which a file is renamed before a new one replaces it."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    taken = (path.with_name(f"{name}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path.with_name(name)], taken) if not os.path.lexists(each))


def damaged_of(shared: Path) -> list[Path]:
    """Return the damaged files that were renamed from the name of a journal, or of one of its spare journals."""
    pattern = rf"{re.escape(shared.stem)}(\.[\w-]+)?\.db\.damaged-\d{{8}}T\d{{6}}Z(-\d+)?"
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(shared.parent) if ".damaged-" in name and re.fullmatch(pattern, name)]  # noqa: PTH208 - pathlib is slower
        return [shared.with_name(name) for name in sorted(names)]
    return []
