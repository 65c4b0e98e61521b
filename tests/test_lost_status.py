"""
The exit status of a child is lost: the kernel discards it, or another part of the program takes it.

Not here: the lost status of a task in its launcher (test_own_errors.py).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dkist_processing_core import RunState, subscribe
from dkist_processing_core.runs import State
from tests.running import ROOT, command, run_python

IGNORED = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
INHERITED = "import os, sys\nif len(sys.argv) == 1:\n    {}    os.execv(sys.executable, [*sys.orig_argv, 'again'])\n"
REAPED = """\
import os, signal
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0): pass
    except ChildProcessError: pass
signal.signal(signal.SIGCHLD, reap)
"""
STOLEN = "from tests.faulty import steal\nsteal()\n"
RUN = "from tests.launched import dependent\nprint(*(outcome.state.value for outcome in dependent.run(1).values()))\n"


@pytest.mark.parametrize(
    "host",
    [IGNORED, INHERITED.format(IGNORED.replace("\n", ";", 1)), REAPED, STOLEN],
    ids=["ignored", "inherited", "reaped by a handler", "reaped by a thread"],
)
def test_a_task_that_raises_fails_its_run_where_statuses_are_lost(host: str) -> None:
    """
    Tasks downstream of the failure are not run. Finished tasks are successes, since their launchers have reported that.
    """
    done = run_python(host + RUN, {})

    (run,) = RunState(subscribe(replay=True, every_report=True, timeout=0.05)).runs
    tasks = {task.name: task for task in run.tasks}
    assert done.stdout.splitlines()[-1] == "success failed upstream_failed", done.stderr
    assert run.state is State.FAILED
    assert tasks["Raises"].attempts[0].cause == "exception"
    assert [attempt.contradictions for task in run.tasks for attempt in task.attempts] == [(), ()]


WAITS = """\
import os, subprocess
from dkist_processing_core.process.exit_status import output_of, has_ended, wait_for
for way in ("exit 0", "exit 3", "kill -9 $$"):
    with subprocess.Popen(["/bin/sh", "-c", way]) as process:
        {steal}
        print(wait_for(process), has_ended(process.pid))
print(output_of(["/bin/echo", "whole"]))
"""


@pytest.mark.parametrize(
    ("before", "steal", "expected"),
    [
        ("", "", ["0 True", "3 True", "-9 True", "(0, 'whole\\n')"]),
        (IGNORED, "", ["None True", "None True", "None True", "(None, 'whole\\n')"]),
        ("", "os.waitpid(-1, 0)", ["None True", "None True", "None True", "(0, 'whole\\n')"]),
    ],
    ids=["had", "ignored", "taken"],
)
def test_a_status_is_known_or_known_to_be_lost(before: str, steal: str, expected: list[str]) -> None:
    """
    A lost status is None, which is not the status of any process.
    """
    done = run_python(before + WAITS.format(steal=steal or "pass"), {})

    assert done.stdout.splitlines() == expected, done.stderr


INSTALLER = """\
#!/bin/sh
[ "$1" = --version ] && echo uv 0.0.0
exit 1
"""
PREPARES = """\
import sys
from dkist_processing_core.environments import Environments, Requirement
try:
    cache = Environments(sys.argv[1] + "/cache", interpreter=sys.argv[1] + "/python")
    cache.prepare(Requirement.of("a", "1", []))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_an_environment_whose_installer_s_status_is_lost_is_not_used(tmp_path: Path) -> None:
    """
    The error states why it is not known whether the installer has succeeded.
    """
    (tmp_path / "python").symlink_to(sys.executable)
    installer = tmp_path / "uv"
    installer.write_text(INSTALLER)
    installer.chmod(0o755)

    done = subprocess.run(
        [sys.executable, "-c", IGNORED + PREPARES, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout.startswith(
        "EnvironmentBuildError no environment of a==1 could be built: uv 0.0.0 has ended; its exit status"
    )
    assert not list((tmp_path / "cache").glob("*.1"))


def test_the_command_line_has_the_statuses_of_its_children_whatever_it_has_inherited(tmp_path: Path) -> None:
    """
    The process of a command is the library's, so SIGCHLD gets its default action there.
    """
    done = subprocess.run(
        ["/bin/bash", "-c", 'trap "" CHLD; exec "$@"', "bash", *command("environments", "build", "no-such-thing==1")],
        cwd=ROOT,
        env={**os.environ, "PIP_NO_INDEX": "1", "DKIST_CORE_ENVIRONMENTS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 1
    assert "ended with exit status" in done.stderr
