"""
Tests of naming a run on the command line: by its short id, completed by the shell, or by an ambiguous one.
"""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from dkist_processing_core.cli import app
from dkist_processing_core.cli.draw.lines import EventLines
from dkist_processing_core.cli.events.runs import events_of_run, have_several_runs
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import IdentityError
from dkist_processing_core.events import Event, WorkflowFinished
from tests.facts import finished, make, progressed, started
from tests.running import run_command

FIRST, SECOND = "local__1__20261129T020544Z__8bf54b12", "local__1__20261129T020540Z__c3714b12"
AIRFLOW = "scheduled__2026-11-29T00:00:00+00:00"


def invoke(*arguments: str) -> Result:
    """
    Return the result of a command.
    """
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def runs() -> None:
    """
    Publish the events of three runs.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        now = {"time": datetime.now(UTC)}
        publisher.publish(
            started("A", run_id=FIRST, **now),
            started("A", run_id=SECOND, **now),
            finished("A", run_id=FIRST, **now),
            started("B", run_id=AIRFLOW, workflow_name="l0_to_l1$(reboot)'x\"`y`", **now),
        )


def completed(shell: str, words: str, incomplete: str = "") -> str:
    """
    Return what the program answers to a shell that completes the word after `words`.
    """
    line = f"dkist-core {words} {incomplete}"
    variables = {
        "_DKIST_CORE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words.split()) + 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    result = CliRunner().invoke(app, [], prog_name="dkist-core", env=variables)
    assert result.stderr == ""
    return result.stdout


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("command", ["timeline", "events list --run", "events tail --run"])
def test_a_shell_completes_the_short_id_of_a_run(command: str) -> None:
    """
    Each shell offers the runs on the bus where a run is named; those with descriptions get words without quotes.
    """
    assert sorted(completed("bash", command).split()) == ["20261129T000000", "8bf54b12", "c3714b12"]
    assert completed("bash", command, "8b").split() == ["8bf54b12"]
    assert completed("bash", command, "local__1__20261129T020540").split() == [SECOND]
    assert '"c3714b12":"W 1, recipe run 1"' in completed("zsh", command, "c3")
    assert completed("fish", command, "2026") == "20261129T000000\tl0_to_l1 reboot x y  1, recipe run 1\n"


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("command", ["events list --task", "events tail --task"])
def test_a_shell_completes_the_name_of_a_task(command: str) -> None:
    """
    The tasks of the runs on the bus are offered, and no files.
    """
    assert completed("bash", command).split() == ["A", "B"]
    assert completed("bash", command, "B").split() == ["B"]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("command", ["timeline --workflow", "events list --workflow", "events tail --workflow"])
def test_a_shell_completes_the_name_of_a_workflow(command: str) -> None:
    """
    No files are offered, and no name that a shell would interpret.
    """
    assert completed("bash", command).split() == ["W"]


@pytest.mark.usefixtures("runs")
def test_an_id_that_several_workflows_have_is_offered_once_with_their_number() -> None:
    """
    A shell shows one description for a word; it names the option that tells the workflows apart.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("C", run_id=AIRFLOW, workflow_name="hourly", time=datetime.now(UTC)))

    expected = "20261129T000000\thourly 1, recipe run 1, and 1 other workflow to choose by --workflow\n"
    assert completed("fish", "timeline", "2026") == expected


@pytest.mark.parametrize("mesh_config", ['{"interservice-bus": {"mesh_address": "192.0.2.1", "mesh_port": 5672}}', "{"])
def test_a_shell_that_completes_waits_for_no_bus(mesh_config: str) -> None:
    """
    With a broker that does not answer, or unusable settings, nothing is offered, after a moment and silently.
    """
    began = time.monotonic()

    answer = run_command(
        MESH_CONFIG=mesh_config,
        _DKIST_CORE_COMPLETE="complete_bash",
        COMP_WORDS="dkist-core timeline ",
        COMP_CWORD="2",
    )

    assert (answer.returncode, answer.stdout.strip(), answer.stderr) == (0, "", "")
    # Much less than any time limit for a connection; a busy machine takes seconds for the start alone.
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("runs")
def test_each_line_names_its_run_if_there_are_several() -> None:
    """
    The events of one run do not repeat its id; JSON always has the whole id.
    """
    several, one = invoke("events", "list").stdout, invoke("events", "list", "--run", "8bf54b12").stdout
    as_json = invoke("events", "list", "--run", "8bf5 4b12", "--json").stdout

    assert [line.split()[2] for line in several.splitlines()] == ["8bf54b12", "c3714b12", "8bf54b12", "20261129T000000"]
    assert [line.split()[2] for line in one.splitlines()] == ["task.started", "task.finished"]
    assert [json.loads(line)["data"]["dagRunId"] for line in as_json.splitlines()] == [FIRST, FIRST]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("named", [FIRST, "8bf54b12", "8bf5", "f54b12", "544Z__8bf54b12"])
def test_a_timeline_shows_the_run_that_a_part_of_its_id_names(named: str) -> None:
    """
    The heading has the short id, and the whole one for other programs.
    """
    shown = invoke("timeline", named).stdout

    assert "run 8bf54b12" in shown
    assert f"id {FIRST}" in shown


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("command", ["timeline 4b12", "events list --run 4b12"])
def test_an_ambiguous_id_is_answered_with_the_runs_that_it_names(command: str) -> None:
    """
    The error is one line, and lists the candidates with their short and whole ids.
    """
    result = invoke(*command.split())

    assert result.exit_code == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: '4b12' names 2 runs, expected one; give more of the id: ")
    assert f"8bf54b12 ({FIRST})" in error
    assert f"c3714b12 ({SECOND})" in error
    assert result.stdout == ""


@pytest.mark.usefixtures("runs")
def test_an_unknown_run_is_answered_with_the_short_ids_that_there_are() -> None:
    """
    They can be typed as shown.
    """
    assert invoke("timeline", "nope").stderr.rstrip().endswith("latest runs there: 20261129T000000, 8bf54b12, c3714b12")


def of_runs(*run_ids: str) -> list[Event]:
    """
    Return an event of each of the runs, all different.
    """
    return [progressed("A", number, run_id=run_id) for number, run_id in enumerate(run_ids)]


@given(st.lists(st.sampled_from([FIRST, AIRFLOW, "4b12"])), st.sampled_from(["8bf54b12", FIRST, "4b12"]))
def test_the_events_of_one_run_are_found_in_any_order(run_ids: list[str], named: str) -> None:
    """
    A whole id is preferred to the end of another one, wherever it comes first.
    """
    told = of_runs(*run_ids)
    meant = "4b12" if named == "4b12" in run_ids else FIRST

    assert list(events_of_run(told, named)) == [each for each in told if each.run_id == meant]


def test_followed_events_are_shown_at_once_and_remain_those_of_the_first_run() -> None:
    """
    The events of a run that is followed do not wait for its end; one remark names a later run of the same name.
    """
    remarks: list[str] = []
    told = of_runs(FIRST, FIRST, SECOND, FIRST, SECOND)
    shown = events_of_run(iter(told), "4b12", remark=remarks.append, most_held=0)

    assert [next(shown), next(shown), remarks] == [told[0], told[1], []]
    assert list(shown) == [told[3]]
    (remark,) = remarks
    assert remark.startswith(f"'4b12' names several runs: {FIRST} of W is shown, {SECOND} of W is not")


def test_a_run_whose_whole_id_is_given_is_followed_instead_of_one_that_ends_alike() -> None:
    """
    It may begin later than the other one.
    """
    told, remarks = of_runs("tonight1", "night1", "tonight1", "night1"), list[str]()

    shown = list(events_of_run(told, "night1", remark=remarks.append, most_held=0))

    assert shown == [told[0], told[1], told[3]]
    assert len(remarks) == 1


def test_an_id_that_several_workflows_share_is_ambiguous() -> None:
    """
    Airflow gives the runs of all workflows of a schedule the same id; the error lists the workflows to choose from.
    """
    told = [progressed("A", 1, run_id=AIRFLOW, workflow_name=name) for name in ("l0", "l1")]

    with pytest.raises(IdentityError, match="2 workflows, expected one; add --workflow: l0, l1"):
        list(events_of_run(told, AIRFLOW))


def test_a_workflow_chooses_among_runs_of_the_same_id() -> None:
    """
    Each line of a list names the workflow, and the run, since there are two.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        for name in ("l0", "l1"):
            publisher.publish(started("A", run_id=AIRFLOW, workflow_name=name, time=datetime.now(UTC)))

    ambiguous, chosen = invoke("timeline", AIRFLOW), invoke("timeline", "--workflow", "l0", "20261129T000000")
    listed, unknown = invoke("events", "list").stdout, invoke("timeline", "--workflow", "l2")

    assert ambiguous.exit_code == 1
    assert "2 workflows, expected one; add --workflow: l0, l1" in ambiguous.stderr
    assert (chosen.exit_code, chosen.stdout.split()[1]) == (0, "l0")
    assert [line.split()[2:5:2] for line in listed.splitlines()] == [["20261129T000000", name] for name in ("l0", "l1")]
    assert "there is no run of workflow 'l2' yet on" in unknown.stderr


@pytest.mark.parametrize(("run_ids", "expected"), [([], False), ([FIRST] * 3, False), ([FIRST, FIRST, SECOND], True)])
def test_whether_there_are_several_runs_is_known_before_the_first_line(*, run_ids: list[str], expected: bool) -> None:
    """
    No event is lost by looking ahead.
    """
    told = of_runs(*run_ids)

    several, events = have_several_runs(told)

    assert (several, list(events)) == (expected, told)


def test_the_ends_of_a_run_name_it_where_the_lines_do_not() -> None:
    """
    Otherwise a list of one run would not show which run it is.
    """
    end = make(WorkflowFinished, duration_seconds=4, run_id=FIRST)

    assert next(EventLines().lines(end)).plain.endswith(" 4.0 s, run 8bf54b12")
    assert next(EventLines(with_runs=True).lines(end)).plain.endswith(" 4.0 s")
