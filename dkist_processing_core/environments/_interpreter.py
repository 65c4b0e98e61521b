"""
Which Python an environment is for: what a compiled library or a link to the interpreter depends on.

Also a program, run by another interpreter to say of itself the same. Not here: how that is asked (_key).
"""

import _imp
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
    # As importlib.machinery has them, which takes a tenth of the time that an environment takes to be found.
    suffixes = _imp.extension_suffixes()
    return repr((sys.implementation.cache_tag, sys.version, suffixes, os.path.realpath(base)))


if __name__ == "__main__":
    print(label(), identity())  # noqa: T201 - its output is the answer
