"""The measures of the watcher's process."""

from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.measurement import Measurement, Number
from dkist_processing_core.watch.facts import Decision
from dkist_processing_core.watch.listening import Listening
from dkist_processing_core.watch.measures import Measures

RUN = Run("l0_to_l1_visp", "1.2.3", "run", 7)


def values_of(measurements: list[Measurement]) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values by the names of the metrics, and by the values of their attributes."""
    return {
        each.metric.name: {
            tuple(value.attributes.values()): value.value for value in each.values if isinstance(value, Number)
        }
        for each in measurements
    }


def test_time_counts_by_whether_the_store_was_complete() -> None:
    """Of ten seconds between two judgements, the store was complete for six."""
    moments = iter([0.0, 1.0, 11.0])
    measures = Measures(clock=lambda: next(moments))

    measures.note_judged(Listening([(100.0, 200.0)]))
    measures.note_judged(Listening([(100.0, 202.0), (206.0, 210.0)]))

    found = values_of(measures.measurements())
    assert found[declarations.LISTENING_TIME.name] == {("complete",): 6.0, ("incomplete",): 1.0 + 4.0}
    assert found[declarations.JUDGED_TIME.name] == {(): 210.0}


def test_counters_never_fall_without_a_span() -> None:
    """A new store has no span, and no time up to which it is judged: the start of the process takes its place."""
    moments = iter([0.0, 5.0])
    measures = Measures(clock=lambda: next(moments), began_at=1000.0)

    measures.note_judged(Listening())

    found = values_of(measures.measurements())
    assert found[declarations.LISTENING_TIME.name] == {("complete",): 0.0, ("incomplete",): 5.0}
    assert found[declarations.JUDGED_TIME.name] == {(): 1000.0}
    assert measures.judged_until is None


def test_alarms_and_withdrawals_are_counted_by_workflow_and_kind() -> None:
    """A workflow with an expected start has a value before its first miss, so that a rate sees that one."""
    measures = Measures(("l0_to_l1_vbi",))
    for facts in ({}, {"withdrawn": True}, {}):
        measures.note_published(Decision(RUN, TaskOverdue, {"exceeded": "silence", **facts}))
    measures.note_published(Decision(RUN, WorkflowOverdue, {}))
    measures.note_missed("l0_to_l1_visp")

    found = values_of(measures.measurements())
    assert found[declarations.ALARM_RAISED.name] == {(RUN.workflow_name, "silence"): 2, (RUN.workflow_name, "idle"): 1}
    assert found[declarations.ALARM_WITHDRAWN.name] == {(RUN.workflow_name, "silence"): 1}
    assert found[declarations.START_MISSED.name] == {("l0_to_l1_vbi",): 0, ("l0_to_l1_visp",): 1}
