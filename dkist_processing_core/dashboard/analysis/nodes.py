"""
Which tasks of a run belong to which node of its graph: the instances of a mapped task are one node.

Not here: the places of the nodes (drawing.graph).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dkist_processing_core.identity import class_name_of
from dkist_processing_core.runs import RunView, State, TaskView

_MOST_DIGITS = 15
# The first of these that a task of a node has is the state of the node.
_PRECEDENCE = (
    State.FAILED,
    State.RUNNING,
    State.DISPATCHED,
    State.WAITING,
    State.FINISHED,
    State.SKIPPED,
    State.NOT_RUN,
)


@dataclass(frozen=True, slots=True)
class TasksOfGraph:
    """The tasks of a run, by the nodes of its graph."""

    nodes: Mapping[str, Sequence[TaskView]]
    """At least one task for each node, in the order of the graph."""
    others: Sequence[TaskView]
    """The tasks that belong to no node: all, if the graph is not known."""

    @property
    def tasks(self) -> list[TaskView]:
        """All of them, those of each node together."""
        return [*(task for tasks in self.nodes.values() for task in tasks), *self.others]


def tasks_by_node(view: RunView) -> TasksOfGraph:
    """Return the tasks of a run by the nodes of its graph."""
    names = [] if view.graph is None else list(view.graph.nodes)
    own = {task.name: task for task in view.tasks}
    instances: dict[str, list[TaskView]] = {name: [] for name in names}
    others = []
    for task in view.tasks:
        if task.name in instances:
            continue
        node = class_name_of(task.name)
        if node != task.name and node in instances:
            instances[node].append(task)
        else:
            others.append(task)
    # A mapped task itself has no attempt.
    nodes = {name: sorted(instances[name], key=_index) or [own[name]] for name in names if name in own}
    return TasksOfGraph(nodes, others)


def _index(task: TaskView) -> tuple[int, str]:
    """Return by what the instances of a task are sorted: by the number in their names."""
    digits = "".join(filter(str.isdecimal, task.name.rpartition("[")[2]))[:_MOST_DIGITS]
    return int(digits or 0), task.name


def state_of(tasks: Sequence[TaskView]) -> State:
    """Return the state of a node by the states of its tasks: a failure counts first, then what goes on."""
    states = {task.state for task in tasks}
    return next(state for state in _PRECEDENCE if state in states)
