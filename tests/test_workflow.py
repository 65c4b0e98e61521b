"""
Tests of building workflows; none of them runs one.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core import ResourceQueue, TaskBase, Workflow
from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.node import Node
from dkist_processing_core.workflow import dag_name, workflow_name_from_details


class A(TaskBase):
    """
    A task.
    """

    def run(self) -> None:
        """
        Do nothing.
        """


class B(A):
    """
    Another task.
    """


class C(A):
    """
    A third task.
    """


class D(A):
    """
    A fourth task.
    """


def new(name: str, base: type = A) -> type[TaskBase]:
    """
    Return a task class with this name.
    """
    return type(name, (base,), {})


@pytest.fixture
def workflow() -> Workflow:
    """
    Return a workflow in which B waits for A.
    """
    built = Workflow(process_category="My", process_name="Workflow", workflow_package="p", workflow_version="1.0")
    built.add_node(A)
    built.add_node(B, upstreams=A)
    return built


def test_a_workflow_is_named_by_category_and_process() -> None:
    """
    The older form is `{category}_{name}`.
    """
    built = Workflow(process_category="My", process_name="Workflow", workflow_package="p", workflow_version="dev")

    assert (built.workflow_name, built.dag_name) == ("My_Workflow", "My_Workflow_dev")
    assert built.tags == ("dev", "My", "Workflow")


@pytest.mark.parametrize(("detail", "name"), [(None, "l0_to_l1_visp"), ("sample", "l0_to_l1_visp_sample")])
def test_a_workflow_is_named_by_its_data(detail: str | None, name: str) -> None:
    """
    The newer form is `{input}_to_{output}_{category}[_{detail}]`. Tags are the given ones, the version and the data,
    each once.
    """
    built = Workflow(
        input_data="l0", output_data="l1", category="visp", detail=detail, workflow_package="p",
        tags=["nightly", "visp"], workflow_version="2",
    )  # fmt: skip

    assert built.workflow_name == name == workflow_name_from_details("l0", "l1", "visp", detail)
    assert built.dag_name == f"{name}_2" == dag_name(name, "2")
    assert built.tags == ("nightly", "visp", "2", "l0", "l1")


def test_a_name_by_details_is_refused_where_the_workflow_s_would_be() -> None:
    """
    `workflow_name_from_details` raises the same error.
    """
    with pytest.raises(WorkflowError, match=r"^the name of a workflow is .*, 108 characters; allowed are 1 to 100$"):
        workflow_name_from_details(input_data="l0", output_data="l1", category="v" * 99)


@pytest.mark.parametrize(
    ("upstreams", "pip_extras", "queue"),
    [(A, None, None), ([A], [], "default"), ((A,), (), ResourceQueue.DEFAULT)],
    ids=["one or none", "lists", "as they are kept"],
)
def test_a_node_takes_the_established_forms(upstreams: Any, pip_extras: Any, queue: Any) -> None:
    """
    Upstreams are one task, several or None, extras a list or None, the queue a member or its name. Errors are those of
    `add_node`.
    """
    node = Node("W", "1", "p", B, upstreams=upstreams, pip_extras=pip_extras, resource_queue=queue)

    assert node == Node("W", "1", "p", B, upstreams=(A,))
    assert node.dependencies == [("A", "B")]
    with pytest.raises(WorkflowError, match=r"^B: resource_queue is 'tiny', expected one of "):
        Node("W", "1", "p", B, resource_queue="tiny")  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [None, ""])
def test_the_version_is_the_build_s_where_none_is_given(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The version is BUILD_VERSION, or `dev` if that is not set. An empty version counts as not given.
    """

    def made() -> Workflow:
        return Workflow(process_category="My", process_name="Workflow", workflow_version=version)

    assert (made().workflow_version, made().dag_name) == ("dev", "My_Workflow_dev")
    monkeypatch.setenv("BUILD_VERSION", "4.5.6")
    assert (made().workflow_version, made().dag_name) == ("4.5.6", "My_Workflow_4.5.6")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "given: none of them"),
        ({"process_category": "My"}, "given: process_category$"),
        ({"input_data": "l0", "category": "c"}, "given: input_data, category$"),
        ({"process_category": "a", "process_name": "b", "input_data": "l0"}, "process_category, process_name, input"),
        (
            {"process_category": "a", "process_name": "b", "workflow_version": 1.0},
            "workflow_version is 1.0, expected a s",
        ),
        (
            {"process_category": "My", "process_name": "Work flow"},
            "'My_Work flow', which contains ' '; allowed are lett",
        ),
        ({"process_category": "Mü", "process_name": "x"}, "which contains 'ü'"),
        ({"process_category": "My", "process_name": "x" * 98}, "101 characters; allowed are 1 to 100"),
        (
            {"process_category": "My", "process_name": "W", "workflow_version": "1.0+local"},
            (
                r"^workflow_version is '1\.0\+local', which contains '\+'; allowed are letters, digits, "
                r"dash, dot and under"
            ),
        ),
    ],
)
def test_a_workflow_that_cannot_be_named_is_refused(arguments: dict[str, Any], message: str) -> None:
    """
    One sentence states the value and the allowed ones.
    """
    with pytest.raises(WorkflowError, match=message):
        Workflow(**arguments)


def test_nodes_keep_what_they_were_given(workflow: Workflow) -> None:
    """
    A node has the given queue, extras and upstreams. The caller's list is copied.
    """
    upstreams = [A, B]
    workflow.add_node(task=C, upstreams=upstreams, resource_queue=ResourceQueue.GPU, pip_extras=["asdf"])
    upstreams.clear()
    workflow.add_node(D, upstreams=(A, C), resource_queue="high_memory")

    c, d = workflow.nodes[2:]
    assert (c.task, c.upstreams, c.resource_queue, c.pip_extras) == (C, (A, B), ResourceQueue.GPU, ("asdf",))
    assert (d.upstream_names, d.resource_queue) == (("A", "C"), ResourceQueue.HIGH_MEMORY)
    assert workflow.graph.edges == (("A", "B"), ("A", "C"), ("B", "C"), ("A", "D"), ("C", "D"))


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda w: w.add_node(C, upstreams=C), "C cannot wait for itself"),
        (lambda w: w.add_node(C, upstreams=[A, C]), "C cannot wait for itself"),
        (
            lambda w: w.add_node(C, upstreams=[D, A]),
            "C waits for D, which is not in My_Workflow; add upstreams first. It has: A, B",
        ),
        (lambda w: w.add_node(A, upstreams=B), "A cannot wait for B: the upstreams would be circular, A -> B -> A "),
        (lambda w: w.add_node(new("A")), "A cannot be added to My_Workflow: it has a task of this name already, A"),
        (lambda w: w.add_node(new("a")), "a cannot be added to My_Workflow: it has a task of this name already, A"),
        (lambda w: w.add_node(C, upstreams=new("B")), "C waits for another B than the one in My_Workflow"),
        (lambda w: w.add_node(int), "add_node expects a task, a subclass of TaskBase; found <class 'int'>"),
        (lambda w: w.add_node(A(1, "w", "1")), r"add_node expects a task, a subclass of TaskBase; found A\("),
        (lambda w: w.add_node(C, upstreams="A"), "C: upstreams is 'A', expected a task, a sequence of tasks or None"),
        (lambda w: w.add_node(C, upstreams=["A"]), "C: each upstream must be a task, a subclass of TaskBase; fo"),
        (lambda w: w.add_node(C, upstreams=3), "C: upstreams is 3, expected a task"),
        (lambda w: w.add_node(C, resource_queue="fast"), "resource_queue is 'fast', expected one of default, high_mem"),
        (lambda w: w.add_node(C, pip_extras="asdf"), "C: pip_extras is the string 'asdf', expected a list of names"),
        (lambda w: w.add_node(type("C", (A,), {"retries": -1})), "C: retries is -1, expected a whole number from 0"),
        (lambda w: w.add_node(type("C", (A,), {"retries": "2"})), "C: retries is '2', expected a whole number from 0"),
        (lambda w: w.add_node(type("C", (A,), {"retry_delay_seconds": None})), "C: retry_delay_seconds is None, expec"),
        (
            lambda w: w.add_node(type("C", (A,), {"overdue_after_seconds": -1})),
            "C: overdue_after_seconds is -1, expected a number of seconds above 0 and up to",
        ),
        (lambda w: w.add_node(new("Bild_ä")), "the name of a task is 'Bild_ä', which contains 'ä'"),
        (lambda w: w.add_node(new("X" * 101)), "101 characters; allowed are 1 to 100"),
    ],
)
def test_a_node_that_makes_no_workflow_is_refused_and_leaves_it_as_it_was(
    add: Callable[[Workflow], None], message: str, workflow: Workflow
) -> None:
    """
    Self-loops, cycles, unknown upstreams, duplicates, invalid names and other classes raise an error of one sentence.
    """
    before = workflow.nodes

    with pytest.raises(WorkflowError, match=message):
        add(workflow)

    assert workflow.nodes == before


@given(st.data())
def test_any_graph_built_forwards_is_sorted_with_upstreams_first(data: st.DataObject) -> None:
    """
    Each node comes once, after all its upstreams.
    """
    names = data.draw(st.lists(st.from_regex(r"\A[A-Z][a-z0-9]{0,5}\Z"), unique_by=str.lower, max_size=12))
    workflow = Workflow(process_category="p", process_name="q")
    classes: list[type[TaskBase]] = []
    for name in names:
        task = new(name)
        workflow.add_node(task, upstreams=data.draw(st.lists(st.sampled_from(classes), max_size=4)) if classes else ())
        classes.append(task)

    ordered = workflow.topological_sort()

    assert sorted(names) == sorted(node.name for node in ordered)
    for position, node in enumerate(ordered):
        assert set(node.upstream_names) <= {each.name for each in ordered[:position]}


def test_a_script_s_workflow_says_why_it_cannot_be_exported(tmp_path: Path) -> None:
    """
    Without a package, a worker has nothing to install.
    """
    workflow = Workflow(process_category="My", process_name="Script", workflow_package=None)
    workflow.add_node(A)

    with pytest.raises(
        WorkflowError, match=r"cannot be exported: its workflow names no package, and a worker can run only "
    ):
        workflow.export_dag(tmp_path)


def test_no_engine_is_imported() -> None:
    """
    Building a workflow does not need Airflow.
    """
    assert "airflow" not in sys.modules
