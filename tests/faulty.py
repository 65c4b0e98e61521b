"""
A program that starts launchers with a fault of their own, each in a fork: one function of the library raises there.

Its standard input is a JSON array of objects: `fault` as "module:name", or empty, and `environ`, what the launcher is
given. It prints a JSON array of the statuses that they leave with. What it replaces is in the forks alone: the task's
process is a new one. Not here: which faults (test_own_errors.py).
"""

import importlib
import json
import os
import sys
import threading
from typing import Any, NoReturn

# Imported before the forks, so that each begins at once.
from dkist_processing_core.launcher import _launch, _reports, hold_back

_AT_ONCE = 2
STOLEN = "stolen"
"""The fault that is none of a function: another part of the program waits for all children."""


def fail(*_: Any, **__: Any) -> NoReturn:
    """
    Raise, as an error of the library would.
    """
    msg = "provoked"
    raise RuntimeError(msg)


def replace(fault: str, *, by: Any = fail) -> None:
    """
    Have a function, a method or a property of the library raise.
    """
    module_name, _, path = fault.partition(":")
    owner: Any = importlib.import_module(f"dkist_processing_core.{module_name}")
    *outer, name = path.split(".")
    for each in outer:
        owner = getattr(owner, each)
    replaced = vars(owner)[name]
    wrapped = property(by) if isinstance(replaced, property) else by
    setattr(owner, name, wrapped)


def steal() -> None:
    """
    Take the status of whatever child ends, from a thread of its own.
    """

    def take() -> None:
        turn = threading.Event()
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                turn.wait(0.001)

    threading.Thread(target=take, daemon=True).start()


def begin(fault: str, environ: dict[str, str]) -> int:
    """
    Start one launcher, and return its process id.
    """
    process = os.fork()
    if process == 0:
        os.environ.update(environ)
        hold_back()
        if fault == STOLEN:
            steal()
        elif fault:
            replace(fault)
        sys.exit(_launch.main())
    return process


def main() -> None:
    """
    Start all of them, two at a time.
    """
    assert _reports
    statuses: dict[int, int] = {}
    order: list[int] = []
    for number, each in enumerate(json.load(sys.stdin)):
        if number >= _AT_ONCE:
            process, status = os.wait()
            statuses[process] = os.waitstatus_to_exitcode(status)
        order.append(begin(each["fault"], each["environ"]))
    while len(statuses) < len(order):
        process, status = os.wait()
        statuses[process] = os.waitstatus_to_exitcode(status)
    print(json.dumps([statuses[process] for process in order]))  # noqa: T201 - its line is read


if __name__ == "__main__":
    main()
