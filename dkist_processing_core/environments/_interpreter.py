"""
Which Python an environment is for: what a compiled library or a link to the interpreter depends on.

Also a program, run by another interpreter to say of itself the same. Not here: how that is asked (_key).
"""

import importlib.machinery
import os
import sys


def label() -> str:
    """Return the interpreter's short name, as cp311."""
    tag = sys.implementation.cache_tag or sys.implementation.name
    return tag.replace("cpython-", "cp") + getattr(sys, "abiflags", "")


def identity() -> str:
    """Return, on one line, the full version, the ABI and where the interpreter is, behind all links."""
    # Of an environment's own interpreter this is the one that it was made from, as venv itself asks for it.
    base = getattr(sys, "_base_executable", None) or sys.executable
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    return repr((sys.implementation.cache_tag, sys.version, suffixes, os.path.realpath(base)))


if __name__ == "__main__":
    print(label(), identity())  # noqa: T201 - its output is the answer
