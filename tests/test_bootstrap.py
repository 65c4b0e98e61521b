"""
The program that starts a task's process: its report of an exception, for a task of any release.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dkist_processing_core.launcher.bootstrap import FILE, MODULE, program, variables
from dkist_processing_core.settings.origin import Origin
from tests.running import ROOT

SECRET = "hunter22/and=more"
OF_FILE = "hunter33"
# As of a release that reports nothing itself: only the bootstrap program reports.
TASK = f"""
import os

class A:
    def __init__(self, recipe_run_id, workflow_name, workflow_version):
        os.environ["SITE_TOKEN"] = {SECRET!r}
        raise ValueError("x" * int(os.environ["BEFORE"]) + {SECRET!r} + " https://u:p/w@host {OF_FILE}")
"""


def reported(tmp_path: Path, before: int) -> dict[str, Any]:
    """
    Return the program's report of an exception with that many characters before the secret in its message.
    """
    path = tmp_path / "made.py"
    path.write_text(TASK)
    reading, writing = os.pipe()
    identity = {"TASK": "A", "RECIPE_RUN_ID": "1", "WORKFLOW": "W", "VERSION": "1", "REPORT_FD": str(writing)}
    origin = Origin({}, folder="/", home=None, uid=os.getuid(), dotenv={"ISB_PASSWORD": OF_FILE})
    environ = {f"DKIST_CORE_{name}": value for name, value in identity.items()}
    with os.fdopen(reading, "rb") as pipe:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", program()],
            env={
                **environ,
                **variables(),
                **origin.to_environ(),
                MODULE: "made",
                FILE: str(path),
                "BEFORE": str(before),
            },
            pass_fds=(writing,),
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        facts = [json.loads(line) for line in pipe]
        assert process.wait() == 1
    raised: dict[str, Any] = facts[-1]["raised"]
    return raised


def test_the_log_of_a_task_shows_the_frames_of_its_author_alone(tmp_path: Path) -> None:
    """
    In the whole chain of exceptions; the report to the launcher keeps all frames. An import error ends at its line.
    """
    (tmp_path / "own.py").write_text(
        "from dkist_processing_core import TaskBase\n"
        "class A(TaskBase):\n"
        "    def run(self):\n"
        "        try:\n"
        "            import no_such_module\n"
        "        except ImportError as error:\n"
        "            raise RuntimeError('no limb') from error\n"
    )
    identity = {"TASK": "A", "RECIPE_RUN_ID": "1", "WORKFLOW": "W", "VERSION": "1"}
    environ = {f"DKIST_CORE_{name}": value for name, value in identity.items()} | variables()
    places = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    shown = [
        subprocess.run(
            [sys.executable, "-c", program()],
            env={**os.environ, **environ, **places, MODULE: module},
            capture_output=True,
            text=True,
            check=False,
        )
        for module in ("own", "no_such_module")
    ]

    file = tmp_path / "own.py"
    (chained, missing) = (each.stderr for each in shown)
    assert [each.returncode for each in shown] == [1, 1]
    lines = [line for line in chained.splitlines() if line.startswith("  File ")]
    assert lines == [f'  File "{file}", line {number}, in run' for number in (5, 7)]
    assert chained.endswith("RuntimeError: no limb\n")
    assert missing == "ModuleNotFoundError: No module named 'no_such_module'\n"


def test_a_secret_that_a_task_sets_itself_is_not_reported(tmp_path: Path) -> None:
    """
    It is redacted in the process that knows it, because its launcher does not. This includes a secret of the file
    `.env`.
    """
    raised = reported(tmp_path, 3)

    assert raised["message"] == "xxx[redacted] https://[redacted]@host [redacted]"
    assert SECRET not in raised["stack"]
    assert raised["stack"].endswith("ValueError: xxx[redacted] https://[redacted]@host [redacted]\n")


def test_a_secret_across_the_cut_is_not_reported_in_part(tmp_path: Path) -> None:
    """
    A report contains 20,000 characters of a message.
    """
    raised = reported(tmp_path, 19_995)

    assert raised["message"] == "x" * 19_995 + "[reda"


def test_the_program_is_short() -> None:
    """
    Each task's interpreter compiles it, and each list of processes shows it.
    """
    assert len(program()) < 8_400


def test_a_launcher_starts_its_task_before_it_loads_what_takes_long() -> None:
    """
    The modules that it loads before are few, and none of them is for its reports.
    """
    dear = {"asyncio", "logging", "opentelemetry", "pathlib", "pydantic", "sqlite3", "subprocess"}
    probe = f"import sys; import dkist_processing_core.launcher.launch; print({dear} & set(sys.modules))"

    shown = subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, text=True, check=True)

    assert shown.stdout == "set()\n"
