"""
A program that runs tasks, each in a fork in which one function of the library raises an error.

Its standard input is a JSON array of objects: the `door` by which the `task` is run, the `fault` as "module:name", and
the variables of the fork. It prints a JSON array of the exit statuses of the forks. Functions are replaced in the forks
only: the process of a launched task is a new one. Not here: which faults (test_own_errors.py).
"""

import contextlib
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

# Imported before the forks, so that each starts quickly.
from dkist_processing_core import Workflow
from dkist_processing_core.launcher import _reports  # noqa: F401
from dkist_processing_core.launcher._process import TaskProcess
from dkist_processing_core.launcher.launch import main as launcher_main
from dkist_processing_core.launcher.termination_requests import block_signals
from dkist_processing_core.local import child
from tests import launched

if TYPE_CHECKING:
    import subprocess

_AT_ONCE = 2
STOLEN = "stolen"
"""The fault that is not in a function: another part of the program waits for all children."""
STATUS = "status "
"""The fault that a launcher ends with another exit status; the status follows, in JSON."""


def fail(*_: Any, **__: Any) -> NoReturn:
    """
    Raise an exception, as an error of the library would.
    """
    msg = "provoked"
    raise RuntimeError(msg)


def replace(fault: str, *, by: Any = fail) -> None:
    """
    Replace a function, a method or a property of the library by one that raises.
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
    Reap each child that ends, each time before the launcher checks whether its task has ended.
    """
    look = TaskProcess.has_ended

    def has_ended(process: TaskProcess, timeout: float) -> bool:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0] != process.pid:
                pass
        return look(process, timeout)

    TaskProcess.has_ended = has_ended  # type: ignore[method-assign, assignment]


def leave_with(status: int | None) -> None:
    """
    Replace the exit status of each launcher of a local run by `status`.
    """
    wait = child.wait

    def waited(process: "subprocess.Popen[bytes]") -> int | None:
        wait(process)
        return status

    child.wait = waited


def launch(task: str) -> int:
    """
    Run the launcher of a task, and return its exit status.
    """
    del task
    block_signals()
    return launcher_main()


def run(task: str) -> int:
    """
    Run a workflow of one task on this host, and return the exit status.
    """
    workflow = Workflow(process_category="all", process_name="faulty", workflow_package="tests")
    workflow.add_node(getattr(launched, task))
    return int(not workflow.run(recipe_run_id=1).succeeded)


def call(task: str) -> int:
    """
    Call a task in this process, and return the exit status.
    """
    with getattr(launched, task)(1, "all_faulty", "dev") as instance:
        try:
            instance()
        except ArithmeticError:
            return 1
    return 0


DOORS = {"launch": launch, "run": run, "call": call}


def begin(door: str, task: str, fault: str, environ: dict[str, str]) -> int:
    """
    Run a task with a fault in a fork, and return the fork's process id.
    """
    process = os.fork()
    if process == 0:
        os.environ.update(environ)
        if fault == STOLEN:
            steal()
        elif fault.startswith(STATUS):
            leave_with(json.loads(fault.removeprefix(STATUS)))
        elif fault:
            replace(fault)
        sys.exit(DOORS[door](task))
    return process


def main() -> None:
    """
    Run all tasks, two at a time, and print their exit statuses.
    """
    statuses: dict[int, int] = {}
    order: list[int] = []
    for number, case in enumerate(json.load(sys.stdin)):
        if number >= _AT_ONCE:
            process, status = os.wait()
            statuses[process] = os.waitstatus_to_exitcode(status)
        order.append(begin(**case))
    while len(statuses) < len(order):
        process, status = os.wait()
        statuses[process] = os.waitstatus_to_exitcode(status)
    print(json.dumps([statuses[process] for process in order]))  # noqa: T201 - read by a test


if __name__ == "__main__":
    main()
