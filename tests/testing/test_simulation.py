"""
The simulation: it finds each planted mistake, shows a short history, repeats it, and lets correct programs pass.
"""

import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from dkist_processing_core import subscribe
from dkist_processing_core.events import Event, TaskFailed
from dkist_processing_core.testing import (
    RefusedError,
    SimulationFailedError,
    World,
    run_that_fails,
    run_with_wrong_report,
    simulate,
)
from dkist_processing_core.testing.simulation.program import FAULTS
from tests.testing import announcing
from tests.testing.consumers import CORRECT_CONSUMERS, MISTAKEN_CONSUMERS, announces_after_a_minute
from tests.testing.loops import CORRECT, MISTAKEN, Case, acknowledges_first, announced, announcer, final_failures

SECONDS = 10.0
"""A mistake is found within this time."""
SEED = 1
SECONDS_VARIABLE = "SIMULATION_SECONDS"
SOAK_SECONDS = float(os.environ.get(SECONDS_VARIABLE) or 60)


def failure_of(case: Case, seed: int | None = SEED, **options: Any) -> str:
    """Return the message of the simulation of a program that has a mistake."""
    with pytest.raises(SimulationFailedError) as failed:
        simulate(case.start, expected=case.expected, observed=case.observed, seed=seed, **options)
    return str(failed.value)


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_program_passes(name: str) -> None:
    """Whatever happens between bus and program, it does what it should."""
    case = CORRECT[name]

    simulate(case.start, expected=case.expected, observed=case.observed, histories=90, seed=SEED)


@pytest.mark.parametrize("name", CORRECT_CONSUMERS)
def test_a_correct_consumer_passes(name: str) -> None:
    """Its inbox is what the loops above have to do themselves."""
    case = CORRECT_CONSUMERS[name]

    simulate(case.start, expected=case.expected, observed=case.observed, histories=18, seed=SEED)


def test_a_consumer_takes_in_what_its_queue_has_dropped() -> None:
    """At its next start it compares its inbox with the archive."""
    case = CORRECT_CONSUMERS["counts"]
    faults = ["drop", "kill", "reorder"]

    simulate(case.start, expected=case.expected, observed=case.observed, faults=faults, histories=18, seed=SEED)


def test_a_new_consumer_takes_in_what_its_queue_has_dropped_before_the_first_comparison() -> None:
    """It has stored where it begins in the archive before it has a queue."""
    case = CORRECT_CONSUMERS["counts"]

    simulate(case.start, expected=case.expected, observed=case.observed, faults=["drop"], histories=30, seed=0)


def test_a_consumer_takes_in_what_its_queue_has_dropped_before_it_believes_a_provisional_report() -> None:
    """A comparison with the archive is sooner than the time for which a provisional report waits."""
    case, faults = CORRECT_CONSUMERS["counts"], ["drop", "repeat"]

    simulate(case.start, expected=case.expected, observed=case.observed, faults=faults, histories=30, seed=19)


def test_a_consumer_that_was_stopped_takes_in_what_has_arrived_before_it_believes_a_provisional_report() -> None:
    """
    A report is no more credible because the process was stopped for longer than it waits.
    """
    simulate(announces_after_a_minute, observed=announced, faults=["stop"], histories=60, seed=SEED)


@pytest.mark.parametrize("name", ["counts", "records_in_order"])
def test_a_consumer_survives_refusals_of_its_database_and_the_end_of_one_of_two_processes(name: str) -> None:
    """
    What a refused statement would have done is done again, and the process that goes on takes over.
    """
    case, faults = CORRECT_CONSUMERS[name], ["outage", "second", "kill", "drop"]

    simulate(case.start, expected=case.expected, observed=case.observed, faults=faults, histories=12, seed=0)


def test_a_loop_loses_what_its_queue_has_dropped() -> None:
    """Only the archive has it then."""
    failure_of(CORRECT["counter"], faults=["drop"])


@pytest.mark.parametrize("name", [*MISTAKEN, *MISTAKEN_CONSUMERS])
@pytest.mark.once
def test_each_mistake_is_found(name: str) -> None:
    """The message has the history, the difference, and the seed that repeats it."""
    began = time.process_time()

    message = failure_of((MISTAKEN | MISTAKEN_CONSUMERS)[name])

    assert time.process_time() - began < SECONDS
    assert message.startswith("after this history the program has not done what it should:\nthe process starts\n")
    assert re.search(rf"\nexpected: .*\nfound:    .*\nsimulate\(…, seed={SEED}\) repeats this$", message)


@pytest.mark.soak
@pytest.mark.parametrize("name", [*MISTAKEN, *MISTAKEN_CONSUMERS])
def test_each_mistake_is_found_with_any_seed(name: str) -> None:
    """No mistake depends on a lucky draw."""
    for _ in range(20):
        failure_of((MISTAKEN | MISTAKEN_CONSUMERS)[name], seed=None)


@pytest.mark.soak
@pytest.mark.timeout(SOAK_SECONDS + 600)
@pytest.mark.parametrize("name", [*CORRECT, *CORRECT_CONSUMERS])
def test_a_correct_program_passes_with_any_seed(name: str, print_line: Callable[[str], None]) -> None:
    """Each has new histories for a minute, or for the seconds of the environment, and prints the seed of each round."""
    case, faults = (CORRECT | CORRECT_CONSUMERS)[name], [*FAULTS, *(["drop"] if name in CORRECT_CONSUMERS else [])]
    print_line(f"{name}, for {SOAK_SECONDS:g} s ({SECONDS_VARIABLE}):")
    deadline = time.monotonic() + SOAK_SECONDS
    while time.monotonic() < deadline:
        seed = secrets.randbelow(2**32)
        print_line(f"simulate({name}, seed={seed}, faults={faults})")
        simulate(case.start, expected=case.expected, observed=case.observed, faults=faults, histories=60, seed=seed)


@pytest.mark.parametrize("name", ["acknowledges_first", "marks_after_effect", "believes_the_engine"])
@pytest.mark.once
def test_the_printed_seed_repeats_the_history(name: str) -> None:
    """A new simulation with the seed of an earlier one gives the same message."""
    message = failure_of((MISTAKEN | MISTAKEN_CONSUMERS)[name], seed=None)

    (seed,) = re.findall(r"seed=(\d+)", message)

    assert failure_of((MISTAKEN | MISTAKEN_CONSUMERS)[name], seed=int(seed)) == message


def test_the_shortest_history_shows_one_mistake() -> None:
    """For an event that is acknowledged too early, one failed task and one kill are enough."""
    case = Case(acknowledges_first, final_failures, announced)

    message = failure_of(case, events=run_that_fails().events, faults=["kill", "repeat", "reorder"])

    assert message.count("the process is to be killed") == 1
    assert "once more" not in message
    assert "before older ones" not in message
    assert "  it is killed after: acknowledge" in message
    assert message.endswith(
        "expected: [('l0_to_l1_visp', 'Calibrate')]\nfound:    []\nsimulate(…, seed=1) repeats this"
    )


def test_without_an_expectation_a_program_is_compared_with_itself() -> None:
    """What it does if nothing goes wrong is what it should do."""
    simulate(announcer, observed=announced, histories=60, seed=SEED)

    with pytest.raises(SimulationFailedError, match="the process is to be killed"):
        simulate(acknowledges_first, observed=announced, seed=SEED, faults=["kill"])


def test_a_program_gets_the_given_events_only() -> None:
    """A test that states what happens can state what it expects."""
    run = run_with_wrong_report()
    received: set[str] = set()

    def record(world: World) -> None:
        for event in subscribe(name="all", every_report=True):
            received.add(event.id)
            world.effect(event.id)

    simulate(
        record,
        events=run.events,
        expected=lambda facts: sorted({event.id for event in facts}),
        observed=lambda world: sorted(set(world.effects)),
        histories=20,
        seed=SEED,
    )

    assert received == {event.id for event in run.events}


def test_without_faults_everything_happens_in_order_and_once() -> None:
    """Such a simulation is a plain test with many runs."""
    order: list[list[Event]] = []

    def record(world: World) -> None:
        assert world.starts == 1
        order.append(list(subscribe(name="all", every_report=True)))

    simulate(record, expected=lambda _: [], faults=[], histories=18, seed=SEED)

    assert len(order) > 1
    assert all(times == sorted(times) for times in ([event.time for event in events] for events in order))


def test_a_module_is_loaded_as_by_a_new_process() -> None:
    """Its variables do not survive the end of a process; those outside of the program do."""
    announcing.announced.clear()

    def with_variable_of_a_module(world: World) -> None:
        world.load("tests.testing.announcing").announce(world)

    failure = failure_of(
        Case(with_variable_of_a_module, lambda facts: sorted({each.id for each in facts if each.name == "task.failed"}))
    )

    assert "the process starts again" in failure
    assert not announcing.announced


def test_a_program_that_ends_again_and_again_is_reported_with_its_error() -> None:
    """It makes no progress, also if nothing else goes wrong."""

    def misspelt(world: World) -> None:
        for _ in subscribe("task.failed", name="operators"):
            world.load("tests.testing.nowhere")

    with pytest.raises(SimulationFailedError) as failed:
        simulate(misspelt, seed=SEED)

    error = r"ModuleNotFoundError: no module named 'tests\.testing\.nowhere' \(test_simulation\.py, line \d+\)"
    assert re.search(rf"the process starts\n(  .*\n)*  it ends with {error}\n", str(failed.value))
    assert re.search(rf'\nfound:    "it makes no progress: {error}"\n', str(failed.value))


def test_a_program_that_depends_on_what_is_outside_is_reported_as_such() -> None:
    """A history that shows a mistake once only cannot be repeated."""
    starts = []

    def forgets_once(world: World) -> None:
        starts.append(world)
        for event in subscribe("task.failed", name="operators", every_report=True):
            if len(starts) > 1 and isinstance(event, TaskFailed):
                world.effect(event.id)

    failure = failure_of(
        Case(forgets_once, lambda facts: sorted({each.id for each in facts if each.name == "task.failed"}), announced),
        events=run_that_fails().events,
        faults=[],
    )

    assert failure.startswith("the program did not do the same when a history was repeated")


def test_nothing_of_a_transaction_remains_after_a_kill() -> None:
    """A database rolls it back, and another process can write."""

    def write(world: World) -> None:
        connection = sqlite3.connect(world.folder / "rows.db", timeout=0.0)
        connection.execute("CREATE TABLE IF NOT EXISTS row (id PRIMARY KEY)")
        for event in subscribe(name="all"):
            connection.execute("INSERT OR IGNORE INTO row VALUES (?)", (event.id,))
            connection.execute("INSERT OR IGNORE INTO row VALUES (?)", (f"{event.id} again",))
            connection.commit()

    def rows(world: World) -> list[Any]:
        connection = sqlite3.connect(world.folder / "rows.db")
        found = connection.execute("SELECT id FROM row ORDER BY id").fetchall()
        connection.close()
        return found

    simulate(
        write,
        observed=rows,
        expected=lambda facts: sorted({(each,) for event in facts for each in (event.id, f"{event.id} again")}),
        events=run_that_fails().events,
        histories=60,
        seed=SEED,
    )


def test_a_refused_effect_has_not_happened() -> None:
    """It is an error of a connection, as by a server that cannot be reached."""
    refused = []

    def send(world: World) -> None:
        for event in subscribe("task.failed", name="operators", every_report=True):
            try:
                world.effect(event.id)
            except RefusedError as error:
                refused.append((str(error), list(world.effects)))
                raise

    simulate(send, observed=announced, faults=["refuse"], histories=18, seed=SEED)

    assert {message for message, _ in refused} == {"the outside world is not available"}


def test_a_fault_without_a_name_is_refused() -> None:
    """The message lists the names."""
    names = "repeat, reorder, delay, kill, refuse, drop, stop, outage, second"
    with pytest.raises(ValueError, match=rf"^found the fault 'explode', expected some of {names}$"):
        simulate(announcer, faults=["kill", "explode"])
