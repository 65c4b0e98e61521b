"""
The place of a task among the other tasks of its workflow: its name is new, and what it waits for is there.

Not here: the checks of the task itself (tasks).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from dkist_processing_core.author_checks.values import refuse

if TYPE_CHECKING:
    from dkist_processing_core.node import Node

_MOST_SHOWN = 10
"""How many names of a circle a message shows."""


def check_placement(node: "Node", nodes: Mapping[str, "Node"]) -> None:
    """
    Check that a node can be added to the other nodes of its workflow.

    Args:
        node: the new node.
        nodes: the nodes of the workflow, by name.

    Raises:
        WorkflowError: A task of this name is there already, or an upstream is not.
    """
    name = node.name
    # Names that differ only in case would clash as files of a case-insensitive file system, or as lower-case words.
    clash = next((other for other in nodes.values() if other.name.lower() == name.lower()), None)
    if clash is not None:
        _refuse_name(node, clash, nodes)
    for upstream in node.upstreams:
        if upstream.__name__ not in nodes:
            refuse(
                f"{name} waits for {upstream.__name__}, which is not in {node.workflow_name}; add upstreams first. "
                f"It has: {', '.join(nodes) or 'no tasks yet'}",
                note=f"If {upstream.__name__} also waits for {name}, directly or through others, the upstreams are "
                f"circular ({name} -> {upstream.__name__} -> … -> {name}): one of these tasks must not wait.",
            )
        if nodes[upstream.__name__].task is not upstream:
            refuse(f"{name} waits for another {upstream.__name__} than the one in {node.workflow_name}")


def _refuse_name(node: "Node", clash: "Node", nodes: Mapping[str, "Node"]) -> NoReturn:
    name = node.name
    if clash.task is node.task and (circle := _circle(node, nodes)):
        shown = circle if len(circle) <= _MOST_SHOWN else [*circle[: _MOST_SHOWN - 2], "…", *circle[-2:]]
        refuse(
            f"{name} cannot wait for {circle[1]}: the upstreams would be circular, {' -> '.join(shown)} "
            "(each waits for the next)"
        )
    refuse(
        f"{name} cannot be added to {node.workflow_name}: it has a task of this name already, {clash.name}; "
        f"add each task once, with all its upstreams, and use a subclass for a second task with the same code"
    )


def _circle(node: "Node", nodes: Mapping[str, "Node"]) -> list[str]:
    """Return a shortest way by upstreams from a task back to itself, if it waited as `node` does; [] without one."""
    upstreams_of = {name: each.upstream_names for name, each in nodes.items()} | {node.name: node.upstream_names}
    # Breadth first; each task that was reached, with the one that waits for it.
    waiting: dict[str, str] = {}
    reached = [node.name]
    for name in reached:
        for upstream in upstreams_of.get(name, ()):
            if upstream == node.name:
                way = [name]
                while way[-1] != node.name:
                    way.append(waiting[way[-1]])
                return [*reversed(way), node.name]
            if upstream not in waiting:
                waiting[upstream] = name
                reached.append(upstream)
    return []
