"""
The start of a task's process: one constant program that reads the environment.

It uses only the standard library and the established constructor of a task, so that any release of this package may be
installed where it runs. Run-time values are never inserted into its source. On the descriptor `DKIST_CORE_REPORT_FD` it
reports its progress to the process that started it, one JSON object per line: `{"began": true}`, `{"loaded": true}`,
`{"returned": true}`, or `{"raised": {…}}`. A task's log is shown from INFO on by the logging module's handler of last
resort. No handler is added, so that only the handlers that the task's own modules set up, then or later, take effect.
Not here: starting the process (_process).
"""

import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING

from dkist_processing_core.identity import PREFIX
from dkist_processing_core.text import exception_text, redaction, shown_stack

if TYPE_CHECKING:
    from types import ModuleType

    from dkist_processing_core.task import TaskBase

MODULE, FILE, SEARCH_PATH = f"{PREFIX}TASK_MODULE", f"{PREFIX}TASK_FILE", f"{PREFIX}TASK_SEARCH_PATH"
LOADING = f"{PREFIX}LOADING"
"""Set in a task's process while its class is loaded: a workflow that is run then would start itself endlessly."""
FLAGS = f"{PREFIX}TASK_FLAGS"
"""A JSON list of the interpreter's options that a local run passes to its tasks."""
REDACTION = f"{PREFIX}REDACTION"
"""The source that redacts reports of exceptions; as part of the program it would fill each list of processes."""
SHOWN_STACK = f"{PREFIX}SHOWN_STACK"
"""The source that formats the traceback of a failure for the task's log."""
SCRIPT_MODULE = "__mp_main__"
"""The module name of a script that cannot be imported: multiprocessing uses it for the main module in a pool."""

_PROGRAM = """\
import importlib, importlib.machinery, importlib.util, json, logging, os, re, sys

process, report_fd = os.getpid(), os.environ.get("DKIST_CORE_REPORT_FD")
pipe = os.fstat(int(report_fd)) if report_fd else None
handed_over = os.environ.get("DKIST_CORE_ORIGIN")
redaction, shown_stack, recorder_fd = (
    os.environ.pop("DKIST_CORE_" + name, "") for name in ("REDACTION", "SHOWN_STACK", "RECORDER_FD")
)

def report(**facts):
    if report_fd and os.getpid() == process:
        try:
            if os.path.samestat(os.fstat(int(report_fd)), pipe):
                os.write(int(report_fd), json.dumps(facts).encode() + b"\\n")
        except OSError:
            pass

def redacted(text):
    # Here, since only this process knows the variables that the task has set; and before the text is cut.
    known = {}
    try:
        exec(redaction, known)
        # The settings of a file .env are not in this process's variables.
        of_file = json.loads(handed_over)[3] if handed_over else {}
        secrets = known["secrets_of"]({name.upper(): value or "" for name, value in of_file.items()})
        return known["redact"](text, also=secrets)
    except BaseException as error:
        return "(its text cannot be read: redaction raised " + class_name(type(error)) + ")"

def facts_of(error):
    return {
        "error_type": qualified_name(type(error)),
        "message": redacted(message_of(error)[:1000000])[:20000],
        "stack": redacted(stack_of(error)[-1000000:])[-40000:],
        "frames": frames_of(error, without=globals())[-1000:],
        "is_exit": issubclass(type(error), SystemExit),
        "is_memory": issubclass(type(error), MemoryError),
    }

def show_exception(kind, error, trace):
    try:
        known = {}
        exec(shown_stack, known)
        sys.stderr.write(known["shown_stack_of"](error))
    except BaseException:
        sys.__excepthook__(kind, error, trace)

# For the task's log: the event has the whole stack. A module of the author may set another hook.
sys.excepthook = show_exception
for descriptor in filter(None, (report_fd, os.environ.get("DKIST_CORE_STARTED_FD"))):
    os.set_inheritable(int(descriptor), False)
report(began=True)
try:
    sys.path[:] = json.loads(os.environ.pop("DKIST_CORE_TASK_SEARCH_PATH", "null")) or sys.path
    module_name = os.environ.pop("DKIST_CORE_TASK_MODULE")
    file = os.environ.pop("DKIST_CORE_TASK_FILE", "")
    # Before the author's code can change the sources of the settings; an older release reads them later.
    try:
        importlib.import_module("dkist_processing_core.settings.origin").take(os.environ)
    except Exception:
        os.environ.pop("DKIST_CORE_ORIGIN", None)
    wanted = re.sub(r"\\[\\d+\\]$", "", os.environ["DKIST_CORE_TASK"])
    given = {
        "recipe_run_id": int(os.environ["DKIST_CORE_RECIPE_RUN_ID"]),
        "workflow_name": os.environ["DKIST_CORE_WORKFLOW"],
        "workflow_version": os.environ["DKIST_CORE_VERSION"],
    }
    os.environ["DKIST_CORE_LOADING"] = "1"
    # Log records are also shown while it is loaded. If this unusual level is unchanged then, no module has set one.
    logging.root.setLevel(logging.INFO - 1)
    logging.lastResort = logging.StreamHandler()
    logging.lastResort.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    try:
        importlib.import_module("dkist_processing_core.logs.of_task").begin(logging.lastResort)
    except Exception:
        pass
    if recorder_fd:
        try:
            importlib.import_module("dkist_processing_core.recorder.writing").begin(int(recorder_fd))
        except Exception:
            # An older release has no recorder.
            try:
                os.close(int(recorder_fd))
            except OSError:
                pass
    if file:
        loader = importlib.machinery.SourceFileLoader(module_name, file)
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(module_name, loader))
        # As in `python script.py`: the processes of a pool load a main module that has no spec by its file.
        module.__spec__, program = None, sys.modules["__main__"]
        sys.modules[module_name] = sys.modules["__main__"] = module
        loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    task_class = getattr(module, wanted)
    os.environ.pop("DKIST_CORE_LOADING", None)
    if logging.root.level == logging.INFO - 1:
        logging.root.setLevel(logging.WARNING if logging.root.handlers else logging.INFO)
    report(loaded=True)
    with task_class(**given) as task:
        try:
            task()
        except SystemExit as error:
            if error.code is None or (type(error.code) in (int, bool) and not error.code):
                message = wanted + " left by sys.exit(0) before it was done, which is no success"
                raise SystemExit(message) from None
            raise
except BaseException as error:
    report(raised=facts_of(error))
    raise
report(returned=True)
"""


def program() -> str:
    """Return the source of the program, which includes the source for describing exceptions."""
    return f"{_source_of(exception_text)}\n{_PROGRAM}"


def variables() -> dict[str, str]:
    """Return the variables that the program needs in addition to the attempt's: the sources that a failure needs."""
    return {REDACTION: _source_of(redaction), SHOWN_STACK: _source_of(shown_stack)}


def _source_of(module: "ModuleType") -> str:
    # Read by the loader: this works in a zipped package, and costs less than `inspect`.
    source: bytes = module.__loader__.get_data(module.__file__)  # type: ignore[union-attr]
    return source.decode()


def locate(task: "type[TaskBase]") -> dict[str, str] | None:
    """Return the variables by which another process finds a task's class; None if only this process has the class."""
    module = sys.modules.get(task.__module__)
    if module is None or getattr(module, task.__qualname__, None) is not task:
        return None
    module_name, file = task.__module__, ""
    if module_name == "__main__":
        found = _locate_main(module)
        if found is None:
            return None
        module_name, file = found
    # The task's process searches the same folders in the same order.
    folders = [entry or _current_folder() for entry in sys.path if isinstance(entry, str)]
    search_path = json.dumps([folder for folder in folders if folder])
    return {MODULE: module_name, SEARCH_PATH: search_path} | ({FILE: file} if file else {})


def _current_folder() -> str:
    """Return the folder that "" in the search path means; "" if it was removed, and so has no module."""
    try:
        return os.getcwd()  # noqa: PTH109 - a launcher does not import pathlib
    except FileNotFoundError:
        return ""


def _locate_main(module: "ModuleType") -> tuple[str, str] | None:
    """Return the name and, where that is not enough, the file by which the running program can be loaded again."""
    from pathlib import Path  # noqa: PLC0415 - as above

    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        # Started by `python -m`: the module has an importable name in addition to `__main__`.
        return spec.name, ""
    path = Path(getattr(module, "__file__", None) or "")
    if not path.is_file():
        return None
    path = path.absolute()
    # Prefer the file's own module name: then other processes can import the classes that the task pickles.
    is_importable = path.stem.isidentifier() and path.stem not in sys.modules and path.stem != "__main__"
    importable = importlib.util.find_spec(path.stem) if is_importable else None
    if importable is not None and importable.origin and Path(importable.origin).absolute() == path:
        return path.stem, ""
    return SCRIPT_MODULE, str(path)


def is_loading() -> bool:
    """Return True in a task's process while it loads its class, and so imports again what defines the workflow."""
    return LOADING in os.environ


def refuse_while_loading(what: str) -> None:
    """
    End a task's process if it reaches, while it loads its class, a call that would start the workflow again.

    This raises `SystemExit`, so that the output is one sentence and no `except Exception` around the call catches it.
    """
    if is_loading():
        msg = (
            f"{what} was reached while its module was loaded for a task, which runs in a process of its own: "
            'put the call under `if __name__ == "__main__":`'
        )
        raise SystemExit(msg)
