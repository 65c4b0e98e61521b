"""
The Python of an environment: the properties on which a compiled library or a link to the interpreter depends.

Another interpreter also runs this file as a program, to report its own properties. Not here: running it (_key).
"""

import _imp
import os
import sys


def label() -> str:
    """Return the interpreter's short name, as cp311."""
    tag = sys.implementation.cache_tag or sys.implementation.name
    return tag.replace("cpython-", "cp") + getattr(sys, "abiflags", "")


def identity() -> str:
    """Return, on one line, the full version, the ABI and the path of the interpreter with all links resolved."""
    # For an environment's own interpreter this is the one that created it; venv itself reads it in the same way.
    base = getattr(sys, "_base_executable", None) or sys.executable
    # The same as in importlib.machinery, whose import takes a tenth of the time for finding an environment.
    suffixes = _imp.extension_suffixes()
    return repr((sys.implementation.cache_tag, sys.version, suffixes, os.path.realpath(base)))


if __name__ == "__main__":
    print(label(), identity())  # noqa: T201 - its output is the answer
