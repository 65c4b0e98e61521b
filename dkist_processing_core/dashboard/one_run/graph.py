"""
The graph of a run: what each node shows of its tasks, and where it leads.

Not here: the places of the nodes, which do not depend on the run (drawing.graph).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dkist_processing_core.dashboard.addresses.links import attempt_addresses, run_address
from dkist_processing_core.dashboard.analysis.nodes import state_of, tasks_by_node
from dkist_processing_core.dashboard.drawing.graph import Edge, GraphLayout, Node, laid_out
from dkist_processing_core.dashboard.drawing.labels import fitted
from dkist_processing_core.dashboard.html.words import duration
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import RunView, State, TaskView
from dkist_processing_core.runs.moments import Moments
from dkist_processing_core.text import amount

_LABEL_COLUMNS, _TEXT_COLUMNS = 20, 28
_AT_A_GLANCE, _MOST_JUMPS = 30, 12
_NOTABLE = (State.FAILED, State.RUNNING, State.DISPATCHED)


@dataclass(frozen=True, slots=True)
class Face:
    """What a node shows, or a task that belongs to no node."""

    node: Node | None
    name: str
    label: str
    """The name as far as there is room for it."""
    state: State
    text: str
    """The state in a word, and its most important value, as far as there is room for it."""
    share: float | None
    """How much of its work is done, from 0 to 1; None if that is not known."""
    address: str | None
    """Where it leads: the last attempt, or the attempts of a mapped task."""
    is_critical: bool
    is_late: bool


@dataclass(frozen=True, slots=True)
class RunGraph:
    """The graph of a run, as a template draws it."""

    layout: GraphLayout | None
    """None if the graph is not known."""
    faces: Sequence[Face]
    others: Sequence[Face]
    """The tasks that belong to no node."""
    edges: str
    """All edges as the data of one SVG path."""
    critical_edges: str
    """Those between tasks of the critical path."""
    jumps: Sequence[Face]
    """The nodes of a large graph that its page leads to: the first one, and some that have failed or go on."""


def run_graph(view: RunView, moments: Moments, critical: Collection[str], **parameters: object) -> RunGraph:
    """
    Return the graph of a run.

    Args:
        view: The run.
        moments: Its times.
        critical: The names of the tasks on the critical path.
        parameters: Parameters of all addresses, such as the time of the past.
    """
    tasks = tasks_by_node(view)
    faces = _Faces(view.run, moments, critical, parameters)
    others = [faces.of(None, task.name, [task]) for task in tasks.others]
    if view.graph is None:
        return RunGraph(None, (), others, "", "", ())
    layout = laid_out(view.graph)
    of_nodes = [faces.of(node, node.name, tasks.nodes.get(node.name, ())) for node in layout.nodes]
    of_path = {face.name for face in of_nodes if face.is_critical}
    on_path = [edge for edge in layout.edges if edge.upstream in of_path and edge.downstream in of_path]
    return RunGraph(layout, of_nodes, others, layout.path, _joined(on_path), _jumps(of_nodes))


def _jumps(faces: Sequence[Face]) -> Sequence[Face]:
    """Return the nodes to which the page of a graph leads that is larger than a window."""
    if len(faces) <= _AT_A_GLANCE:
        return ()
    notable = sorted((face for face in faces if face.state in _NOTABLE), key=lambda face: _NOTABLE.index(face.state))
    return list(dict.fromkeys([faces[0], *notable[:_MOST_JUMPS]]))


def _joined(edges: Sequence[Edge]) -> str:
    return "".join(edge.path for edge in edges)


class _Faces:
    """What the nodes of one run have in common."""

    def __init__(self, run: Run, moments: Moments, critical: Collection[str], parameters: Mapping[str, object]) -> None:
        self._run = run
        self._moments = moments
        self._critical = critical
        self._parameters = parameters
        self._address_of = attempt_addresses(run, **parameters)

    def of(self, node: Node | None, name: str, tasks: Sequence[TaskView]) -> Face:
        """Return what a node shows of its tasks."""
        state = state_of(tasks) if tasks else State.WAITING
        share: float | None = None
        address = None
        if len(tasks) == 1:
            (task,) = tasks
            value, share = _value(task, self._moments)
            if task.attempts:
                address = self._address_of(task.name, task.attempts[-1].number)
        else:
            ended = sum(task.state.is_end for task in tasks)
            value, share = f"{ended} of {len(tasks)}", ended / len(tasks) if tasks else None
            address = f"{run_address(self._run, task=name, **self._parameters)}#attempts" if tasks else None
        return Face(
            node=node,
            name=name,
            label=fitted(name, _LABEL_COLUMNS),
            state=state,
            text=fitted(f"{state} · {value}" if value else state.value, _TEXT_COLUMNS),
            share=share,
            address=address,
            is_critical=any(task.name in self._critical for task in tasks),
            is_late=any(task.attempts and task.attempts[-1].overdue is not None for task in tasks),
        )


def _value(task: TaskView, moments: Moments) -> tuple[str, float | None]:
    """Return the most important value of a task as text: its progress, or how long its last attempt took."""
    if not task.attempts:
        return "", None
    attempt = task.attempts[-1]
    progress = attempt.progress
    if progress is not None and not attempt.state.is_end:
        total = progress.total or 0
        share = min(1.0, max(0.0, progress.done / total)) if total > 0 else None
        return amount(progress.done, progress.total, progress.unit), share
    seconds = moments.duration(attempt)
    again = f", attempt {attempt.number}" if len(task.attempts) > 1 else ""
    return f"{'' if seconds is None else duration(seconds)}{again}".removeprefix(", "), None
