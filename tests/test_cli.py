"""
Tests of the command line: the output of its commands, and how they end.

Most of them start it as a user does, in a separate process. Not here: pictures (test_timeline), the doctor.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dkist_processing_core import RunState, subscribe
from dkist_processing_core.cli import app
from dkist_processing_core.cli.reference import reference
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import EVENT_CLASSES, Event, decode, encode
from tests import pipelines
from tests.facts import failed, finished, progressed, started
from tests.generated import generated_by
from tests.running import ROOT, command
from tests.running import run_command as run
from tests.services.broker import Broker

LONG_AGO = timedelta(days=3)


@contextmanager
def following(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """
    Follow events, from the start of the subscription; at the end of the block the process has ended.
    """
    with subprocess.Popen(
        command("events", "tail", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stderr is not None
            assert "following " in process.stderr.readline()
            yield process
        finally:
            process.kill()


def interrupt(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """
    Press Ctrl-C, and return the exit code and the output since then.
    """
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def next_line(process: "subprocess.Popen[str]") -> str:
    """
    Wait for the next printed line.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the output has ended"
    return line.rstrip("\n")


def publish(*events: Event) -> None:
    """
    Publish events on the bus that the environment names, and wait until it has them.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(*events)
        assert publisher.flush(30)


def name_broker(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    Make RabbitMQ this test's bus.
    """
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)


# The command itself


def test_the_version_is_told_without_loading_the_library() -> None:
    """
    Neither settings, nor the bus or a terminal library are loaded to show a version.
    """
    probe = "import sys; import dkist_processing_core.cli; print(*sys.modules)"

    # If coverage is measured, it would measure this process and load its own modules.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    loaded = subprocess.run(
        [sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    told = run("--version")

    heavy = {"pydantic", "pydantic_settings", "pika", "opentelemetry", "rich.console", "sqlite3"}
    assert heavy.isdisjoint(loaded)
    assert (told.returncode, told.stdout) == (0, "dkist-core 8.0.0\n")


@pytest.mark.once
def test_without_a_command_the_commands_are_listed() -> None:
    """
    A new user who types only the name gets the list.
    """
    told = run()

    shown = told.stdout + told.stderr
    assert all(name in shown for name in ("run", "events", "timeline", "doctor"))


def groups_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """
    Yield the words that call each group of commands, and the names of its commands.
    """
    commands = getattr(command, "commands", {})
    if commands:
        yield path, list(commands)
    for name, each in commands.items():
        yield from groups_of(each, (*path, name))


@pytest.mark.once
def test_every_summary_fits_a_narrow_terminal() -> None:
    """
    In 80 columns no command's line in a list of commands is cut.
    """
    groups = dict(groups_of(get_command(app)))

    shown = {path: run(*path, "--help", COLUMNS="80").stdout.partition("\nCommands:\n")[2] for path in groups}

    assert {path: re.findall(r"(?m)^  ([\w-]+)  ", text) for path, text in shown.items()} == groups
    assert [line for text in shown.values() for line in text.splitlines() if line.endswith("...")] == []


@generated_by(".venv/bin/python -m dkist_processing_core.cli.reference > docs/reference/cli.md")
@pytest.mark.once
def test_the_reference_in_the_documentation_is_what_help_says() -> None:
    """
    `docs/reference/cli.md` is generated, never written by hand.
    """
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")

    assert page == reference(app)


@pytest.mark.once
def test_an_unusable_setting_is_one_line_and_no_traceback() -> None:
    """
    An error of the library names the variable, and ends the command with 1.
    """
    told = run("events", "list", MESH_CONFIG="[]")

    assert told.returncode == 1
    assert told.stderr.startswith("error: MESH_CONFIG: found '[]', expected a JSON object")
    assert told.stderr.count("\n") == 1


@pytest.mark.once
def test_debug_shows_the_traceback() -> None:
    """
    The full traceback is for a search for a mistake in the code.
    """
    told = run("--debug", "events", "list", MESH_CONFIG="[]")

    assert told.returncode == 1
    assert "Traceback" in told.stderr
    assert "ConfigurationError: MESH_CONFIG" in told.stderr


@pytest.mark.once
def test_verbose_logs_more_than_warnings(tmp_path: Path) -> None:
    """
    The log goes to the standard error stream; the library's information is shown on request.
    """
    (tmp_path / "noting.py").write_text(
        "import logging\nlogging.getLogger('dkist_processing_core.x').info('noted')\nlogging.warning('warned')\n"
    )

    quiet = run("run", "noting", "--recipe-run-id", "1", cwd=tmp_path)
    logged = run("--verbose", "run", "noting", "--recipe-run-id", "1", cwd=tmp_path)

    seen = [("noted" in told.stderr, "warned" in told.stderr, told.stdout) for told in (quiet, logged)]
    assert seen == [(False, True, ""), (True, True, "")]


# Running


def test_a_workflow_is_run_by_its_name() -> None:
    """
    The exit code is 0 if every task finished.
    """
    told = run("run", "tests.pipelines:diamond", "--recipe-run-id", "7", "--max-parallel", "2")

    assert told.returncode == 0
    assert re.search(r"run [0-9a-f]{8}$", told.stderr, re.MULTILINE)
    assert "First | first of 7 in " in told.stdout


@pytest.mark.once
def test_a_failed_run_ends_with_one() -> None:
    """
    A script can distinguish a failed run from a mistyped command.
    """
    told = run("run", "tests.pipelines:diamond", "--recipe-run-id", "7", PIPELINES_FAIL="always")

    assert told.returncode == 1
    assert told.stderr.endswith("run failed\n")


def test_the_only_workflow_of_a_script_needs_no_name(tmp_path: Path) -> None:
    """
    The processes of a script's tasks find the tasks, and do not run its guarded code.
    """
    script = tmp_path / "calibrate.py"
    script.write_text(
        "from dkist_processing_core import TaskBase, Workflow\n"
        "class Only(TaskBase):\n"
        "    def run(self):\n"
        "        print('it ran in', __name__)\n"
        "workflow = Workflow(process_category='a', process_name='script')\n"
        "workflow.add_node(Only)\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit('guarded')\n"
    )

    told = run("run", str(script), "--recipe-run-id", "1", cwd=ROOT)

    assert told.returncode == 0
    assert "Only | it ran in calibrate\n" in told.stdout


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nowhere.at_all:flow", "there is no module 'nowhere': neither in the current folder ("),
        ("tests.nowhere:flow", "there is no module 'tests.nowhere'"),
        ("tests.pipelines:dimond", "has no 'dimond'; the workflows in tests.pipelines are: diamond, endless, killed"),
        ("tests.pipelines:First", "tests.pipelines:First is a class, expected a Workflow; the workflows in"),
        (
            "tests.pipelines",
            "the workflows in tests.pipelines are: diamond, endless, killed, loaded, kept; name one, for example",
        ),
        ("tests.facts", "tests.facts defines no workflow; expected one"),
        ("not a module", "found 'not a module', expected MODULE:WORKFLOW"),
        (":flow", "found '', expected MODULE:WORKFLOW"),
        ("nowhere.py:flow", "there is no file 'nowhere.py' in "),
    ],
)
@pytest.mark.once
def test_what_cannot_be_run_is_told_with_what_can(target: str, expected: str) -> None:
    """
    A mistyped name can be corrected from the message alone; the exit code is that of a usage error.
    """
    told = run("run", target, "--recipe-run-id", "1")

    assert told.returncode == 2
    assert expected in told.stderr
    assert "Traceback" not in told.stderr


def test_a_module_that_cannot_be_imported_is_told_with_its_place(tmp_path: Path) -> None:
    """
    The author's mistake is named with its file and line; the traceback is shown on request.
    """
    (tmp_path / "broken_flow.py").write_text("import json\nvalue = 1 / 0\n")
    (tmp_path / "lacking_flow.py").write_text("import a_library_that_is_missing\n")

    told = run("run", "broken_flow:flow", "--recipe-run-id", "1", cwd=tmp_path)
    lacking = run("run", "lacking_flow:flow", "--recipe-run-id", "1", cwd=tmp_path)
    debugged = run("--debug", "run", "broken_flow:flow", "--recipe-run-id", "1", cwd=tmp_path)

    assert (told.returncode, lacking.returncode, debugged.returncode) == (2, 2, 1)
    assert "lacking_flow cannot be imported: ModuleNotFoundError: No module named 'a_library" in lacking.stderr
    assert "broken_flow cannot be imported: ZeroDivisionError: division by zero (" in told.stderr
    assert "broken_flow.py, line 2)" in told.stderr
    assert "Traceback" not in told.stderr
    assert debugged.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_script_whose_name_is_taken_is_refused(tmp_path: Path) -> None:
    """
    Its tasks could not be imported by that name.
    """
    (tmp_path / "json.py").write_text("")
    (tmp_path / "my-flow.py").write_text("")

    taken = run("run", str(tmp_path / "json.py"), "--recipe-run-id", "1")
    unusable = run("run", str(tmp_path / "my-flow.py"), "--recipe-run-id", "1")

    assert "another module has the name 'json'; rename the file" in taken.stderr
    assert "'my-flow' is not a valid name of a module; rename the file" in unusable.stderr
    assert (taken.returncode, unusable.returncode) == (2, 2)


@pytest.mark.parametrize("number", ["x", "-1", "1.5", str(2**63)])
@pytest.mark.once
def test_a_recipe_run_is_a_number(number: str) -> None:
    """
    Any other value is a usage error that states the value.
    """
    told = run("run", "tests.pipelines:diamond", "--recipe-run-id", number)

    assert told.returncode == 2
    assert f"found '{number}', expected an integer" in told.stderr


def test_ctrl_c_ends_a_run_and_its_tasks() -> None:
    """
    The exit code is 130, without a traceback, and the run's end is on the bus.
    """
    with subprocess.Popen(
        command("run", "tests.pipelines:endless", "--recipe-run-id", "1"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert next_line(process) == "Endless | waiting"
        code, _, err = interrupt(process)

    listed = run("events", "list", "--type", "workflow.failed")
    assert code == 130
    assert "Traceback" not in err
    assert "2 tasks: 1 failed, 1 not run, failed: Endless" in listed.stdout


# Following events


def test_events_are_shown_as_they_happen() -> None:
    """
    A run is followed line by line, and Ctrl-C ends the command normally.
    """
    with following() as tail:
        ran = run("run", "tests.pipelines:diamond", "--recipe-run-id", "7", PIPELINES_FAIL="always")
        lines = [next_line(tail)]
        while "workflow.failed" not in lines[-1]:
            lines.append(next_line(tail))
        code, _, err = interrupt(tail)

    assert ran.returncode == 1
    assert re.match(r"\d\d:\d\d:\d\d [0-9a-f]{8} workflow\.started  test_diamond +4 tasks, recipe run 7$", lines[0])
    failures = [line for line in lines if "task.failed" in line]
    assert "exception in run: ArithmeticError: wanted, another attempt follows" in failures[0]
    assert re.search(r"Right +2/2 ", failures[1])
    assert any(re.search(r"task\.progressed   test_diamond First +1/1 1/2 step, half way", line) for line in lines)
    assert "4 tasks: 2 finished, 1 failed, 1 not run, failed: Right" in lines[-1]
    assert (code, err) == (0, "")


@pytest.mark.once
def test_events_are_followed_on_rabbitmq_too(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    Same command, same lines; only the transport differs.
    """
    name_broker(monkeypatch, broker)
    told = [started("A"), failed("A", message="no limb")]

    with following("--type", "task.failed", "--workflow", "W", "--task", "A", "--json") as tail:
        publish(*told)
        line = next_line(tail)
        code, _, err = interrupt(tail)

    assert line.encode() == encode(told[1])
    assert (code, err) == (0, "")


@pytest.mark.once
def test_a_line_of_json_is_the_event_as_it_is_on_the_bus() -> None:
    """
    It is so for any characters, and for any encoding of the terminal.
    """
    told = [started("A"), failed("A", message="10 µm\n縁がない 🔭")]

    with following("--json") as tail:
        publish(*told)
        lines = [next_line(tail) for _ in told]
        interrupt(tail)

    assert lines == [encode(event).decode() for event in told]
    assert [decode(line.encode()) for line in lines] == told


@pytest.mark.once
def test_a_named_subscription_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    Events published while no command follows are shown the next time; at most the line before Ctrl-C comes again.
    """
    name_broker(monkeypatch, broker)
    with following("--name", "operators") as tail:
        publish(started("A"), progressed("A", 1))
        before = [next_line(tail), next_line(tail)]
        interrupt(tail)

    publish(finished("A"))
    with following("--name", "operators") as tail:
        after = [next_line(tail)]
        while "task.finished" not in after[-1]:
            after.append(next_line(tail))
        interrupt(tail)

    assert [line.split()[3] for line in before] == ["task.started", "task.progressed"]
    assert [line.split()[3] for line in after] in (["task.finished"], ["task.progressed", "task.finished"])


@pytest.mark.once
def test_a_fact_is_shown_once_or_by_every_reporter() -> None:
    """
    Two reports of one failure are one line, unless all reports are requested.
    """
    publish(failed("A"), failed("A", reported_by="engine", provisional=True, cause="timeout"))

    once = run("events", "list")
    all_of_them = run("events", "list", "--all-reports")

    assert once.stdout.count("task.failed") == 1
    assert all_of_them.stdout.count("task.failed") == 2


@pytest.mark.once
def test_a_misspelt_event_is_refused_with_those_that_there_are() -> None:
    """
    A subscription to it would wait without end.
    """
    told = run("events", "tail", "--type", "task.faild")

    assert told.returncode == 2
    assert "there is no event 'task.faild'; expected one of workflow.started, " in told.stderr


@pytest.mark.once
def test_a_choice_that_no_event_can_match_is_refused() -> None:
    """
    An empty list would look like an answer.
    """
    told = run("events", "list", "--type", "workflow.started", "--task", "A")

    assert told.returncode == 2
    assert "workflow.started has no task; expected events of tasks" in " ".join(told.stderr.split())


@pytest.mark.once
def test_a_name_and_a_replay_exclude_each_other() -> None:
    """
    This holds for both buses, so that a command works with each of them.
    """
    told = run("events", "tail", "--name", "operators", "--replay")

    assert told.returncode == 2
    assert "use only one of them" in told.stderr


@pytest.mark.once
def test_a_replay_begins_at_the_beginning_and_goes_on() -> None:
    """
    Past and new events are one stream.
    """
    publish(started("A"))

    with following("--replay") as tail:
        before = next_line(tail)
        publish(finished("A"))
        after = next_line(tail)
        interrupt(tail)

    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d r +task\.started", before)
    assert "task.finished" in after


@pytest.mark.once
def test_no_colours_are_written_to_a_file() -> None:
    """
    A pipe gets plain text; a terminal gets colours, and so does a pipe on request.
    """
    publish(failed("A"))

    plain = run("events", "list")
    coloured = run("events", "list", FORCE_COLOR="1", TERM="xterm-256color")

    assert "\x1b" not in plain.stdout
    assert "\x1b[31mtask.failed" in coloured.stdout


@pytest.mark.once
def test_text_of_events_is_never_read_as_markup() -> None:
    """
    The text of an error cannot colour or break the operator's terminal.
    """
    publish(failed("[bold]A[/bold]", message="[/nope] \x1b[2J [link=http://x]click[/link]"))

    told = run("events", "list", FORCE_COLOR="1", TERM="xterm-256color")

    assert "[bold]A[/bold]" in told.stdout
    assert "[/nope] \ufffd[2J [link=http://x]click[/link]" in told.stdout


# Listing events


@pytest.mark.once
def test_a_clock_that_is_set_back_in_a_run_hides_nothing_of_it() -> None:
    """
    An event that comes behind a recent event of the same run is recent, whatever its time.
    """
    now = datetime.now(UTC)
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("old", run_id="another", time=now - timedelta(hours=3)))
        publisher.publish(started("A", time=now - timedelta(minutes=5)))
        publisher.publish(finished("A", time=now - timedelta(minutes=64)))

    listed = CliRunner().invoke(app, ["events", "list", "--since", "30m", "--json"]).stdout.splitlines()

    assert [json.loads(line)["type"].rpartition("dkist.")[2] for line in listed] == ["task.started", "task.finished"]


@pytest.mark.once
def test_a_list_ends_and_can_be_narrowed() -> None:
    """
    The list can be narrowed by age and by run, on the embedded journal.
    """
    now = datetime.now(UTC)
    publish(
        started("Old", time=now - LONG_AGO),
        started("Young", time=now),
        started("Other", time=now, run_id="r2"),
    )

    everything = run("events", "list")
    young = run("events", "list", "--since", "2d")
    other = run("events", "list", "--run", "r2")
    nothing = run("events", "list", "--workflow", "X")
    ever = run("events", "list", "--since", "999999999d")

    names = ("Old", "Young", "Other")
    shown = [[name for name in names if name in told.stdout] for told in (everything, young, other, nothing, ever)]
    assert shown == [["Old", "Young", "Other"], ["Young", "Other"], ["Other"], [], ["Old", "Young", "Other"]]
    assert "no such event on the embedded journal" in nothing.stderr


@pytest.mark.parametrize("text", ["", "1", "h", "1.5h", "-1h", "1w", "9999999999d"])
@pytest.mark.once
def test_an_age_is_a_number_and_a_unit(text: str) -> None:
    """
    Any other text is a usage error that shows an example.
    """
    told = CliRunner().invoke(app, ["events", "list", f"--since={text}"])

    assert told.exit_code == 2
    assert f"found {text!r}" in told.output


@pytest.mark.once
def test_a_list_ends_on_a_bus_that_is_never_quiet(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    Events published after the command began do not keep it from ending.
    """
    name_broker(monkeypatch, broker)
    publish(failed("A", time=datetime.now(UTC)))
    is_over = threading.Event()

    def chatter() -> None:
        number = 0
        with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
            while not is_over.is_set():
                number += 1
                publisher.publish(progressed("B", number, time=datetime.now(UTC)))
                publisher.flush(5)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        told = run("events", "list")
    finally:
        is_over.set()
        thread.join()

    assert told.returncode == 0
    assert told.stdout.count("task.failed") == 1
    assert "task.progressed" in told.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    """
    An example is `dkist-core events list --json | head -1`. The exit status is that of a program that SIGPIPE ends.
    """
    publish(*(progressed("A", number) for number in range(3000)))
    pipeline = " ".join(f"'{word}'" for word in command("events", "list", "--json")) + " | head -1; exit $PIPESTATUS"

    told = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True, check=False, timeout=300)

    assert json.loads(told.stdout)["data"]["sequence"] == 0
    assert (told.returncode, told.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("words", ["--help", "outbox list", "doctor"])
def test_a_short_output_without_a_reader_ends_with_the_same_status(words: str) -> None:
    """
    It depends neither on the length of the output nor on what the command found.
    """
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nowhere:
        told = subprocess.run(
            command(*words.split()), stdout=nowhere, stderr=subprocess.PIPE, text=True, check=False, timeout=300
        )

    assert (told.returncode, told.stderr) == (128 + signal.SIGPIPE, "")


# The timeline


@pytest.mark.once
def test_the_timeline_of_the_run_before_shows_why_it_failed() -> None:
    """
    Without a name, the last run is drawn.
    """
    run("run", "tests.pipelines:diamond", "--recipe-run-id", "7", PIPELINES_FAIL="always")

    told = run("timeline", COLUMNS="90")

    assert told.returncode == 0
    assert "✗ test_diamond 1 · failed after " in told.stdout
    assert "4 tasks: 2 finished, 1 failed, 1 not run" in told.stdout
    assert "    exception in run: ArithmeticError: wanted\n" in told.stdout
    assert "✗   attempt 2" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 90


@pytest.mark.once
def test_the_timeline_of_a_killed_task_has_its_cause() -> None:
    """
    The JSON of a run contains the cause that only the parent process could see.
    """
    run("run", "tests.pipelines:killed", "--recipe-run-id", "7")

    told = json.loads(run("timeline", "--json").stdout)

    assert told["workflowName"] == "test_killed"
    assert told["tasks"][0]["attempts"][0]["cause"] == "signal"
    assert told["tasks"][1]["state"] == "not run"


@pytest.mark.once
def test_the_timeline_is_drawn_from_rabbitmq_too(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    The archive of the broker gives the same picture to later readers.
    """
    name_broker(monkeypatch, broker)
    result = pipelines.diamond.run(7)

    told = run("timeline", result.run_id)

    assert told.returncode == 0
    assert "✓ test_diamond 1 · finished in " in told.stdout
    assert "4 tasks" in told.stdout


@pytest.mark.once
def test_a_timeline_of_no_run_says_which_there_are() -> None:
    """
    The message distinguishes an empty bus from a mistyped id.
    """
    empty = run("timeline")
    publish(started("A"))
    mistyped = run("timeline", "nope")
    short = run("timeline", "31")

    assert (empty.returncode, mistyped.returncode) == (1, 1)
    assert empty.stderr.startswith("error: there is no run yet on the embedded journal ")
    assert mistyped.stderr.endswith("the latest runs there: r\n")
    assert "'31'" in short.stderr
    assert ", and a part of an id has at least 4 letters and digits; the latest runs there: r" in short.stderr


@pytest.mark.once
def test_a_terminal_without_unicode_gets_ascii_and_question_marks() -> None:
    """
    A foreign character in an error's text must not end the command.
    """
    publish(started("A"), failed("A", message="縁がない"))
    plain: dict[str, Any] = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}

    timeline = run("timeline", **plain)
    listed = run("events", "list", **plain)
    as_json = run("events", "list", "--json", **plain)

    assert (timeline.returncode, listed.returncode, as_json.returncode) == (0, 0, 0)
    assert "x A  " in timeline.stdout
    assert "exception: ????\n" in timeline.stdout
    assert "exception: ????\n" in listed.stdout
    assert "縁がない" in as_json.stdout


@pytest.mark.once
def test_names_of_events_are_completed() -> None:
    """
    The shell offers the values that `--type` accepts.
    """
    words: dict[str, Any] = {"COMP_WORDS": "dkist-core events tail --type task.f", "COMP_CWORD": "4"}

    offered = run(**words, _DKIST_CORE_COMPLETE="complete_bash")

    assert set(offered.stdout.split()) == {name for name in names_of_events() if name.startswith("task.f")}


def names_of_events() -> list[str]:
    """
    Return the names of all events.
    """
    return [event_class.name for event_class in EVENT_CLASSES]


@pytest.mark.once
def test_a_run_in_releases_needs_them(tmp_path: Path) -> None:
    """
    With `--environments` each task runs in the release of its workflow's version, and not in the local environment.
    """
    done = run(
        *("run", "tests.pipelines:killed", "--recipe-run-id", "1", "--environments"),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(tmp_path),
        PIP_CONFIG_FILE=os.devnull,
        DKIST_CORE_ENVIRONMENTS_DIR=str(tmp_path / "environments"),
    )

    assert done.returncode == 1
    assert "tests[frozen]==1" in done.stdout
    assert "Killed: failed after " in done.stderr


# Output and folders that cannot be used


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "the standard output stream is closed"), (">/dev/full", "No space left on device")],
)
def test_output_that_cannot_be_written_is_one_sentence(tmp_path: Path, redirection: str, reason: str) -> None:
    """
    It is the same for help, for JSON and for tables, and the exit status is 1.
    """
    calls = [["--version"], ["events", "list", "--json"], ["outbox", "list"]]
    calls += [["topology", "definitions", "--consumer", "--debug"]]  # here, `--debug` is a name
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("A"))
    lines = [f"{shlex.join(command(*each))} {redirection} 2>>errors; echo $? >>statuses" for each in calls]

    subprocess.run(["/bin/bash", "-c", "\n".join(lines)], cwd=tmp_path, check=True, timeout=300)

    errors = (tmp_path / "errors").read_text().splitlines()
    assert errors == [f"error: the output cannot be written: {reason}"] * len(calls)
    assert (tmp_path / "statuses").read_text().split() == ["1"] * len(calls)


def test_a_run_starts_its_tasks_in_a_removed_folder_and_without_room_for_output(tmp_path: Path) -> None:
    """
    An installed workflow needs no current folder, and no output.
    """
    folder = tmp_path / "removed"
    folder.mkdir()
    program = shlex.join(command("run", "tests.launched:liars", "--recipe-run-id", "1"))

    done = subprocess.run(
        ["/bin/bash", "-c", f"rmdir {shlex.quote(str(folder))}; {program} >/dev/full 2>/dev/full"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FAULT_MARKS": str(tmp_path)},
        check=False,
        timeout=300,
    )

    (view,) = RunState(subscribe(replay=True, every_report=True, timeout=0.05)).runs
    assert (done.returncode, view.tasks[0].attempts[0].cause) == (1, "exit_code")


def test_a_run_from_code_without_a_file_starts_its_tasks_in_a_removed_folder(tmp_path: Path) -> None:
    """
    Python searches the current folder for the modules of such code, and there is none.
    """
    folder = tmp_path / "removed"
    folder.mkdir()
    # Python 3.13.0 cannot import `socket` there.
    program = (
        "import os, socket, sys; from tests.pipelines import diamond; os.rmdir(os.getcwd());"
        "sys.exit(not diamond.run(recipe_run_id=1))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "run finished")


def test_a_folder_of_journals_whose_name_is_no_utf_8_is_usable(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    """
    Its events are listed, the outbox and the doctor show its name with an escape, and JSON can be read back.
    """
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", os.fsdecode(bytes(state_dir) + b"/st\xffte"))
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("A"))

    lists = CliRunner().invoke(app, ["events", "list"], catch_exceptions=False)
    outbox = CliRunner().invoke(app, ["outbox", "list", "--json"], catch_exceptions=False)
    doctor = CliRunner().invoke(app, ["doctor"], catch_exceptions=False)

    assert "task.started" in lists.stdout
    assert json.loads(outbox.stdout)["folder"] == os.environ["DKIST_CORE_STATE_DIR"]
    assert (doctor.exit_code, f"{state_dir}/st\\udcffte/embedded.db can be read" in doctor.stdout) == (0, True)
