"""
How a task's process begins: one constant program that reads the environment.

It uses only the established constructor of a task, so that any release of this package may be the one installed where
it runs. Run-time values are never pasted into it. Not here: who starts it (local, launcher).
"""

import sys

from dkist_processing_core.identity import PREFIX
from dkist_processing_core.task import TaskBase

MODULE, FILE = f"{PREFIX}TASK_MODULE", f"{PREFIX}TASK_FILE"
SCRIPT_MODULE = "__dkist_script__"
"""The name under which a script that defines tasks is loaded, so that what it guards by `__main__` is left alone."""

PROGRAM = """\
import importlib, importlib.util, os, re, sys
module_name = os.environ.pop("DKIST_CORE_TASK_MODULE")
file = os.environ.pop("DKIST_CORE_TASK_FILE", "")
class_name = re.sub(r"\\[\\d+\\]$", "", os.environ["DKIST_CORE_TASK"])
if file:
    spec = importlib.util.spec_from_file_location(module_name, file)
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    module.__dkist_loading__ = True
    spec.loader.exec_module(module)
    del module.__dkist_loading__
else:
    module = importlib.import_module(module_name)
with getattr(module, class_name)(
    recipe_run_id=int(os.environ["DKIST_CORE_RECIPE_RUN_ID"]),
    workflow_name=os.environ["DKIST_CORE_WORKFLOW"],
    workflow_version=os.environ["DKIST_CORE_VERSION"],
) as task:
    task()
"""


def locate(task: type[TaskBase]) -> dict[str, str] | None:
    """Return the variables by which another process finds a task's class; None for one that only this process has."""
    module_name, file = task.__module__, ""
    module = sys.modules.get(module_name)
    if getattr(module, task.__qualname__, None) is not task:
        return None
    if module_name == "__main__":
        spec, path = getattr(module, "__spec__", None), getattr(module, "__file__", None)
        if spec is not None:
            # Started by `python -m`: the module has an importable name beside `__main__`.
            module_name = spec.name
        elif path and not path.startswith("<"):
            module_name, file = SCRIPT_MODULE, path
        else:
            return None
    return {MODULE: module_name} | ({FILE: file} if file else {})


def is_loading_script() -> bool:
    """Say whether this process is just loading a script for the tasks that it defines."""
    return getattr(sys.modules.get(SCRIPT_MODULE), "__dkist_loading__", False)
