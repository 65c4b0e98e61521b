"""Identities: recipe runs, run ids, attempts, and how an identity reaches a process."""

import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.errors import IdentityError
from dkist_processing_core.identity import (
    Attempt,
    Run,
    RunsByHand,
    new_run_id,
    parse_recipe_run_id,
    parse_run_data,
    to_run_data,
)

# Any text that an environment can hold: all characters except NUL. A run always has an id.
VALUES = st.text(st.characters(exclude_characters="\x00", exclude_categories=()))
ATTEMPTS = st.builds(
    Attempt,
    run=st.builds(
        Run,
        workflow_name=VALUES,
        workflow_version=VALUES,
        run_id=VALUES.filter(bool),
        recipe_run_id=st.integers(0, 2**63 - 1),
    ),
    task_name=st.from_regex(r"[A-Za-z_]\w{0,20}", fullmatch=True),
    attempt=st.integers(1, 1000),
    max_attempts=st.integers(1000, 2000),
    log_url=st.none() | VALUES,
    report_fd=st.none() | st.integers(1, 1000),
)
ENVIRON = {
    "DKIST_CORE_RUN_ID": "r",
    "DKIST_CORE_ATTEMPT": "2",
    "DKIST_CORE_MAX_ATTEMPTS": "3",
    "DKIST_CORE_WORKFLOW": "W",
    "DKIST_CORE_VERSION": "1",
    "DKIST_CORE_TASK": "A",
    "DKIST_CORE_RECIPE_RUN_ID": "7",
}


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (7, 7), ("7", 7), ("007", 7), (2**63 - 1, 2**63 - 1), (str(2**63 - 1), 2**63 - 1)]
)
def test_a_recipe_run_id_is_an_integer_or_decimal_digits(value: object, expected: int) -> None:
    """Both spellings that a run's configuration may have give the same number."""
    assert expected == parse_recipe_run_id(value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(True, id="bool"),
        pytest.param(None, id="None"),
        pytest.param(1.0, id="float"),
        pytest.param(-1, id="negative"),
        pytest.param(2**63, id="too large"),
        pytest.param(10**5000, id="without a decimal form"),
        pytest.param("", id="empty"),
        pytest.param(" 1", id="space"),
        pytest.param("1\n", id="newline"),
        pytest.param("+1", id="sign"),
        pytest.param("-0", id="minus"),
        pytest.param("1_0", id="underscore"),
        pytest.param("0x1", id="hexadecimal"),
        pytest.param("1e3", id="exponent"),
        pytest.param("\N{ARABIC-INDIC DIGIT THREE}", id="digit of another script"),
        pytest.param("\N{SUPERSCRIPT TWO}", id="superscript"),
        pytest.param("1$(touch x)", id="command"),
        pytest.param("9" * 20, id="20 digits"),
        pytest.param("1" * 1_000_000, id="a megabyte"),
        pytest.param(b"1", id="bytes"),
        pytest.param([1], id="list"),
    ],
)
def test_anything_else_is_no_recipe_run_id(value: object) -> None:
    """Other types and other spellings are not taken for a number, and the message shows a short part of them."""
    with pytest.raises(IdentityError, match=r"^recipe_run_id: found .{1,40}, expected an integer or decimal digits"):
        parse_recipe_run_id(value)


def test_a_run_id_says_kind_recipe_run_and_time() -> None:
    """The time is in UTC, whatever zone the given time has."""
    moment = datetime(2026, 11, 22, 9, 30, tzinfo=timezone(timedelta(hours=-10)))

    run_id = new_run_id("local", 12, moment)

    assert re.fullmatch(r"local__12__20261122T193000Z__[0-9a-f]{8}", run_id)


def test_run_ids_of_one_moment_differ() -> None:
    """Two runs by hand never share a run id."""
    moment = datetime(2026, 11, 22, 9, tzinfo=UTC)

    assert len({new_run_id("hand", 1, moment) for _ in range(100)}) == 100


@given(ATTEMPTS)
def test_an_identity_survives_the_way_through_an_environment(attempt: Attempt) -> None:
    """The task reads the variables that a launcher has written, and removes them."""
    environ = attempt.to_environ() | {"PATH": "/bin"}

    taken = Attempt.take_from(environ, task_name=attempt.task_name, workflow_name=attempt.run.workflow_name)

    assert attempt == taken
    assert environ == {"PATH": "/bin"}


def test_an_identity_can_be_put_into_the_environment_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own environment is cleared, so that its child processes do not inherit the identity."""
    before = dict(os.environ)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DKIST_CORE_LOG_URL", "https://logs/1")
    monkeypatch.setenv("DKIST_CORE_REPORT_FD", "5")

    taken = Attempt.take_from(os.environ, task_name="A", workflow_name="W")

    assert Attempt(Run("W", "1", "r", 7), "A", 2, 3, "https://logs/1", 5) == taken
    assert before == dict(os.environ)


@pytest.mark.parametrize(("task_name", "workflow_name"), [("B", "W"), ("A", "V"), ("A[3]", "W"), ("", "W")])
def test_an_identity_is_left_to_the_task_that_it_names(task_name: str, workflow_name: str) -> None:
    """A task that constructs another task neither passes its identity to it nor loses it."""
    environ = dict(ENVIRON)

    taken = Attempt.take_from(environ, task_name=task_name, workflow_name=workflow_name)

    assert taken is None
    assert environ == ENVIRON


def test_an_environment_without_identity_gives_none() -> None:
    """A task that is called directly finds no identity."""
    assert Attempt.take_from({}, task_name="A", workflow_name="W") is None


def test_an_instance_of_a_mapped_task_keeps_its_number() -> None:
    """Airflow's `Name[3]` is the identity of the class `Name`."""
    environ = ENVIRON | {"DKIST_CORE_TASK": "A[3]"}

    taken = Attempt.take_from(environ, task_name="A", workflow_name="W")

    assert taken is not None
    assert taken.task_name == "A[3]"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("RUN_ID", None, "DKIST_CORE_RUN_ID: found nothing, expected the run's id"),
        ("RUN_ID", "", "DKIST_CORE_RUN_ID: found nothing, expected the run's id"),
        ("RECIPE_RUN_ID", None, "recipe_run_id: found '', expected"),
        ("RECIPE_RUN_ID", "1$(touch x)", r"recipe_run_id: found '1\$\(touch x\)', expected"),
        ("ATTEMPT", "0", "DKIST_CORE_ATTEMPT: found '0', expected a whole number from 1"),
        ("ATTEMPT", "two", "DKIST_CORE_ATTEMPT: found 'two', expected a whole number from 1"),
        ("MAX_ATTEMPTS", "-1", "DKIST_CORE_MAX_ATTEMPTS: found '-1', expected a whole number from 1"),
        ("REPORT_FD", "9" * 1000, "DKIST_CORE_REPORT_FD: found '9{17}[.]{3}9{18}', expected a whole number from 1"),
    ],
)
def test_variables_that_make_no_identity_are_refused_by_name(name: str, value: str | None, complaint: str) -> None:
    """The message names the variable, and the variables are still removed."""
    environ = {key: found for key, found in ENVIRON.items() if key != f"DKIST_CORE_{name}"}
    environ |= {} if value is None else {f"DKIST_CORE_{name}": value}

    with pytest.raises(IdentityError, match=complaint):
        Attempt.take_from(environ, task_name="A", workflow_name="W")

    assert not environ


def test_an_attempt_beyond_the_last_is_the_last() -> None:
    """If Airflow's retries were lowered since, the attempt is still possible."""
    environ = ENVIRON | {"DKIST_CORE_ATTEMPT": "5", "DKIST_CORE_MAX_ATTEMPTS": "3"}

    taken = Attempt.take_from(environ, task_name="A", workflow_name="W")

    assert taken is not None
    assert (taken.attempt, taken.max_attempts, taken.is_final) == (5, 5, True)


def by_hand(runs: RunsByHand, task_name: str = "A", recipe_run_id: int = 1) -> Attempt:
    """Return the next attempt of a task of workflow W that is called directly."""
    return runs.next_attempt(workflow_name="W", workflow_version="1", recipe_run_id=recipe_run_id, task_name=task_name)


def test_tasks_called_by_hand_share_the_run_of_their_recipe_run() -> None:
    """One run per workflow, version and recipe run, with an id that marks it as run by hand."""
    runs = RunsByHand()

    first, second, other = by_hand(runs, "A"), by_hand(runs, "B"), by_hand(runs, "A", recipe_run_id=2)

    assert first.run == second.run
    assert first.run.run_id != other.run.run_id
    assert first.run.is_by_hand


def test_a_further_call_by_hand_is_the_next_attempt() -> None:
    """Calls are counted per task, and each is the last known attempt: calls by hand are not retried automatically."""
    runs = RunsByHand()

    numbers = [(by.attempt, by.max_attempts) for by in (by_hand(runs, "A") for _ in range(3))]

    assert numbers == [(1, 1), (2, 2), (3, 3)]
    assert by_hand(runs, "B").attempt == 1


def test_tasks_called_in_many_threads_share_the_run_and_not_the_number() -> None:
    """A race for the first call creates neither two runs nor two attempts with one number."""
    runs = RunsByHand()
    attempts: list[Attempt] = []
    barrier = threading.Barrier(8)

    def call() -> None:
        barrier.wait()
        attempts.extend(by_hand(runs) for _ in range(200))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(each.attempt for each in attempts) == list(range(1, 1601))
    assert len({each.run for each in attempts}) == 1


def test_a_fork_has_runs_of_its_own() -> None:
    """A call in a forked process neither belongs to its parent's run nor continues its count."""
    program = """if True:
        import os
        from dkist_processing_core.identity import RunsByHand
        runs = RunsByHand()
        def by_hand():
            attempt = runs.next_attempt(
                workflow_name="W", workflow_version="1", recipe_run_id=1, task_name="A"
            )
            os.write(1, f"{attempt.run.run_id} {attempt.attempt}\\n".encode())
        by_hand()
        child = os.fork()
        by_hand()
        if child:
            os.waitpid(child, 0)
    """

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    lines = [line.split() for line in answer.splitlines()]
    assert sorted(number for _, number in lines) == ["1", "1", "2"]
    assert len({run_id for run_id, _ in lines}) == 2


@given(st.integers(0, 2**63 - 1))
def test_run_data_is_read_as_it_was_passed_on(number: int) -> None:
    """As a number and as a string of digits."""
    assert parse_run_data(to_run_data(number)) == parse_run_data(to_run_data(str(number))) == number


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(max_value=-1),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ).filter(lambda value: not (isinstance(value, str) and value.isascii() and value.isdigit()))
)
def test_run_data_of_any_other_kind_is_refused(value: object) -> None:
    """Any other value fits a variable, and is shown in few characters."""
    passed_on = to_run_data(value)

    assert len(passed_on) <= 200
    with pytest.raises(IdentityError, match=r"recipe_run_id: found .{1,60}, expected an integer or decimal digits"):
        parse_run_data(passed_on)


def test_run_data_that_no_parser_takes_is_refused() -> None:
    """Data of any depth or length is refused without an unexpected error."""
    for text in ("[" * 100_000, "9" * 100_000, "", "1\x00"):
        with pytest.raises(IdentityError):
            parse_run_data(text)
