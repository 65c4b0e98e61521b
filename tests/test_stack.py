"""
`dkist-core stack RUN TASK`: where a running attempt of this host is now.

Not here: the recorder (test_recorder), and what a task records (test_task_recorder).
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dkist_processing_core.cli import app
from dkist_processing_core.cli.draw.stack_sheet import draw_recording
from dkist_processing_core.recorder import layout, region
from dkist_processing_core.recorder.reading import read
from dkist_processing_core.recorder.region import Region
from tests.running import ROOT, command
from tests.waiting import wait_until

# The suite may run in several environments at a time, and all attempts of a host are found.
SHORT_ID = uuid.uuid4().hex[:8]
RUN = f"local__42__20261122T115000Z__{SHORT_ID}"
STACK = 'Thread "MainThread":\n  fit.py:40 in fit\n  fit.py:12 in run\n\nThread "reader":\n  read.py:7 in read\n'


@pytest.fixture
def recorder() -> Iterator[Region]:
    """
    The recorder of a running attempt, which this process holds as a launcher does.
    """
    made = region.create(None)
    assert made is not None
    identity = {"run_id": RUN, "task": "Fit", "attempt": 2, "pid": os.getpid()}
    made.write(layout.IDENTITY, json.dumps(identity).encode())
    yield made
    made.close()


def record(recorder: Region, **state: Any) -> None:
    """
    Record the stacks and the state of a task.
    """
    recorder.write(layout.STACKS, STACK.encode())
    recorder.write(layout.STATE, json.dumps(state).encode())


def program(folder: Path, text: str) -> str:
    """
    Return a path of programs on which there is only a py-spy with this text.
    """
    (folder / "py-spy").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "py-spy").chmod(0o755)
    return str(folder)


def stack(*words: str) -> Result:
    """
    Return the result of the command.
    """
    return CliRunner().invoke(app, ["stack", *words], catch_exceptions=False)


def test_the_stacks_of_a_running_attempt_are_shown_with_their_age(
    recorder: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its phase and its progress are there, and a line on how to see the frames of native code."""
    record(recorder, phase="run", phase_time=0.0, progress="3/12 frame", progress_time=0.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    shown = stack(SHORT_ID, "Fit")

    assert (
        re.sub(r", [^,\n]+$", ", AGE", shown.stdout, flags=re.MULTILINE)
        == f"""\
● Fit · attempt 2 · run {SHORT_ID} · pid {os.getpid()}
  phase           run, AGE
  progress        3/12 frame, AGE
  stack, AGE
    Thread "MainThread":
      fit.py:40 in fit
      fit.py:12 in run

    Thread "reader":
      read.py:7 in read
  for native frames: pip install py-spy
"""
    )


@pytest.mark.usefixtures("recorder")
def test_a_task_without_a_recording_is_one_sentence() -> None:
    """Its environment may have an older release."""
    shown = stack(SHORT_ID, "Fit").stdout

    assert "  no stack: the task has not begun, or its environment has an older release\n" in shown


@pytest.mark.usefixtures("recorder")
def test_the_frames_of_native_code_are_those_of_py_spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its command line, which may have secrets; if it fails, its reason is one line."""
    monkeypatch.setenv("PATH", program(tmp_path, "echo 'Process 1: run\nToken\nPython v3.11.2\n'; echo \"Thread $@\""))
    native = stack(SHORT_ID, "Fit")
    monkeypatch.setenv("PATH", program(tmp_path, "echo 'Error: Permission Denied' >&2; exit 1"))
    refused = stack(SHORT_ID, "Fit")

    title = "  with native frames, by py-spy\n"
    assert native.stdout.endswith(f"{title}    Thread dump --native --pid {os.getpid()}\n")
    assert "Token" not in native.stdout
    assert refused.stdout.endswith(f"{title}    Error: Permission Denied\n")
    assert (native.exit_code, refused.exit_code) == (0, 0)


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("words", [(SHORT_ID, "Fot"), ("00000000", "Fit")])
def test_an_attempt_that_does_not_run_here_is_one_sentence(words: tuple[str, str]) -> None:
    """It names the attempts that run."""
    missing = stack(*words)

    run_id, task = words
    beginning = f"error: no attempt of task {task!r} in run {run_id!r} runs on this host; here run: "
    assert (missing.exit_code, missing.stderr[: len(beginning)]) == (1, beginning)
    assert f"Fit in run {SHORT_ID}" in missing.stderr
    assert f"has ended: dkist-core runs show {run_id} {task}" in missing.stderr


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"run_id": 3, "pid": "x"}', "{", "[" * 3000])
def test_a_recorder_that_states_no_attempt_is_passed_over(recorder: Region, content: str) -> None:
    """Any process of a task may write into its recorder; its state may be no better."""
    recorder.write(layout.IDENTITY, content.encode())
    recorder.write(layout.STATE, b'{"phase": 3, "progress": "1", "progress_time": "x"}')
    found = read(recorder)
    missing = stack(SHORT_ID, "Fit")

    assert (found.pid, found.phase, found.progress) == (None, None, None)
    assert (missing.exit_code, missing.stderr[:6]) == (1, "error:")


def test_the_attempt_of_a_real_run_is_shown_where_it_is() -> None:
    """The launcher has made its recorder, and the task's process records into it."""
    words = command("run", "tests.pipelines:endless", "--recipe-run-id", "1")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert any("waiting" in line for line in process.stdout)
        run_id = json.loads(CliRunner().invoke(app, ["timeline", "--json"]).stdout)["dagRunId"]
        wait_until(lambda: "pipelines.py:" in stack(run_id, "Endless").stdout)
        shown = stack(run_id, "Endless").stdout
        process.terminate()

    assert shown.startswith(f"● Endless · attempt 1 · run {run_id[-8:]} · pid ")
    assert "  phase           run, since " in shown
    assert re.search(r'Thread "MainThread":\n      tests/pipelines.py:\d+ in run\n', shown)


# For /proc, a process that may not be traced belongs to root, also if another user runs it.
LAUNCHER = """
import ctypes, json, sys
from dkist_processing_core.recorder import layout, region
recorder = region.create(None)
recorder.write(layout.IDENTITY, json.dumps({"run_id": sys.argv[1], "task": "Fit", "attempt": 1, "pid": 1}).encode())
assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0  # PR_SET_DUMPABLE
print("ready", flush=True)
sys.stdin.read()
"""
OTHER_USER = """
import os, sys
from dkist_processing_core.cli.runs.stack import show_stack
from dkist_processing_core.errors import DKISTProcessingCoreError
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(1000770000)
    os.setuid(1000770000)
try:
    show_stack(sys.argv[1], "Fit")
except DKISTProcessingCoreError as error:
    print(error)
"""


def test_an_attempt_of_another_user_is_one_sentence() -> None:
    """It names the user, who can read it."""
    run_id = "local__7__20261122T115000Z__0dd0dd0d"
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, run_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        other = [sys.executable, "-c", OTHER_USER, run_id]
        shown = subprocess.run(other, capture_output=True, text=True, check=False, cwd=ROOT)
        launcher.communicate()

    assert shown.stderr == ""
    assert shown.stdout.startswith(f"no attempt of task 'Fit' in run {run_id!r} runs on this host")
    assert re.search(r"; attempts of .*user root.* cannot be read: run the command as that user$", shown.stdout)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_of_stacks_is_wider_than_the_terminal(recorder: Region, width: int) -> None:
    """A narrow terminal folds the lines."""
    record(recorder, phase="run", phase_time=0.0, progress="w " * 60, progress_time=0.0)
    lines = list(draw_recording(read(recorder), short_id=SHORT_ID, width=width, ascii_only=True))

    assert max(line.cell_len for line in lines) <= width
    assert all(line.plain.isascii() for line in lines)
