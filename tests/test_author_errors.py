"""
The sentence that an author of pipelines gets for a mistake: the error, its place, and the expected value.

Not here: the mistakes that the tests of a module cover (test_workflow, test_export, test_build_utils, test_local,
test_task), and errors of Python itself, such as an unknown keyword.
"""

import functools
import re
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dkist_processing_core import TaskBase, Workflow, subscribe
from dkist_processing_core.build_utils import validate_workflows
from dkist_processing_core.errors import ConfigurationError, DKISTProcessingCoreError, IdentityError, WorkflowError
from dkist_processing_core.events import Cause, TaskFailed
from dkist_processing_core.launcher.bootstrap import LOADING
from tests.clients import TASKS, importing, workflow, write_package

LONGEST = 400
"""How many characters a sentence may have, without a long path in it."""
LONGEST_OF_ANY = 600
"""The maximum length, whatever value it shows."""


class First(TaskBase):
    """
    A task.
    """

    def run(self) -> None:
        """
        Do nothing.
        """


class Second(First):
    """
    Another task.
    """


class Mute:
    """
    A value that cannot be shown.
    """

    def __repr__(self) -> str:
        """
        Raise.
        """
        raise RuntimeError


async def _asynchronous() -> None:
    pass


def given_more(function: Callable[..., Any], *more: object) -> Callable[..., Any]:
    """
    Return a method that passes another one the additional arguments that it needs.
    """

    @functools.wraps(function)
    def inner(self: object) -> Any:
        return function(self, *more)

    return inner


class OtherNames(First):
    """
    A task whose constructor has other names.
    """

    def __init__(self, run_id: int, name: str, version: str) -> None:
        """
        Pass them on.
        """
        super().__init__(run_id, name, version)


def with_first(**options: Any) -> Workflow:
    """
    Return a workflow that holds the first task.
    """
    names = {"process_category": "My", "process_name": "Workflow", "workflow_package": "p", "workflow_version": "1.0"}
    built = Workflow(**names | options)
    built.add_node(First)
    return built


def refused(make: Callable[[], object], error: type[DKISTProcessingCoreError]) -> str:
    """
    Return the sentence of a refusal: one line, of this library, and still a ValueError.
    """
    with pytest.raises(error, match=r"\S") as caught:
        make()
    sentence = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in sentence
    assert len(sentence) <= LONGEST
    return sentence


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"process_name": ""}, "a workflow is named by process_category and process_name, .*; given: process_category"),
        ({"detail": "x"}, "given: process_category, process_name, detail"),
        (
            {"process_name": " "},
            "the name of a workflow is 'My_ ', which contains ' '; allowed are letters, digits, dash",
        ),
        ({"process_name": "a/b"}, "the name of a workflow is 'My_a/b', which contains '/'"),
        ({"workflow_version": 1}, "workflow_version is 1, expected a string"),
        (
            {"workflow_version": "1.0 beta"},
            "^workflow_version is '1.0 beta', which contains ' '; allowed are letters, dig",
        ),
        ({"workflow_version": "feature/x"}, "^workflow_version is 'feature/x', which contains '/'"),
        ({"workflow_version": "1.0\n"}, r"^workflow_version is '1.0\\n', which contains '\\n'"),
        (
            {"workflow_version": "1" * 5000},
            "^workflow_version is '1{50,}[.]{3}1{50,}', 5000 characters; allowed are 1 to 100",
        ),
        (
            {"workflow_version": "1" * 245},
            "^workflow_version is .*, 245 characters; allowed are 1 to 100",
        ),
        ({"tags": "x" * 101}, "^tags: found 'x{101}', expected text of 1 to 100 characters"),
        ({"tags": 3}, "^tags is 3, expected a list of strings"),
        ({"tags": False}, "^tags is False, expected a list of strings"),
        ({"tags": b"nightly"}, "^tags is b'nightly', expected a list of strings"),
        ({"tags": Mute()}, "^tags is <Mute .*>, expected a list of strings"),
        ({"tags": [Mute()]}, "^tags: found <Mute .*>, expected text of 1 to 100 characters"),
    ],
)
def test_a_name_that_a_workflow_cannot_have(names: dict[str, Any], message: str) -> None:
    """
    The author sees the name that the parts form together, and the character that is not allowed.
    """
    assert re.search(message, refused(lambda: with_first(**names), WorkflowError))


BY_PROCESS: dict[str, Any] = {"process_category": "My", "process_name": "Workflow"}
BY_DATA: dict[str, Any] = {"input_data": "l0", "output_data": "l1", "category": "visp"}
PARTS = [*BY_PROCESS, *BY_DATA, "detail", "workflow_package", "workflow_version"]


@pytest.mark.parametrize("value", [3, 0, False, b"x", ["x"], Path("x"), str, Mute()])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_name_that_is_no_text(part: str, value: Any) -> None:
    """
    The message names the part, whatever the others are: `0` is not an empty text.
    """
    sentence = refused(lambda: Workflow(**BY_PROCESS | {part: value}), WorkflowError)

    assert re.match(rf"{part} is .+, expected a string$", sentence)


@pytest.mark.parametrize("version", ["1.0 rc", " 1.0", "feature/x"])
def test_a_build_version_that_no_workflow_can_have(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is refused when the workflow is created, as one that its author gives, and the message calls it the build
    version.
    """
    monkeypatch.setenv("BUILD_VERSION", version)

    sentence = refused(lambda: with_first(workflow_version=None), WorkflowError)
    assert sentence.startswith(f"BUILD_VERSION is '{version}', which contains ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": None}, "add_node expects a task, a subclass of TaskBase; found None"),
        ({"task": "Second"}, "add_node expects a task, a subclass of TaskBase; found 'Second'"),
        ({"task": [Second]}, r"add_node expects a task, a subclass of TaskBase; found \[<class '.*Second'>\]"),
        ({"task": pytest}, "add_node expects a task, a subclass of TaskBase; found <module 'pytest' from"),
        ({"task": with_first()}, "add_node expects a task, .*; found <Workflow My_Workflow 1.0, 1 task>"),
        ({"task": Mute()}, "add_node expects a task, a subclass of TaskBase; found <Mute .*>"),
        ({"task": list[int]}, r"add_node expects a task, a subclass of TaskBase; found list\[int\]"),
        ({"task": type("", (First,), {})}, "the name of a task is '', 0 characters; allowed are 1 to 100"),
        ({"upstreams": ""}, "Second: upstreams is '', expected a task, a sequence of tasks or None"),
        ({"upstreams": 0}, "Second: upstreams is 0, expected a task, a sequence of tasks or None"),
        ({"upstreams": First(1, "w", "1")}, r"Second: upstreams is First\(recipe_run_id=1, .*, expected a task, a se"),
        ({"upstreams": with_first().nodes[0]}, "Second: upstreams is Node.*, expected a task, a sequence of tasks"),
        ({"upstreams": [None]}, "Second: each upstream must be a task, a subclass of TaskBase; found None"),
        ({"upstreams": [First(1, "w", "1")]}, r"Second: each upstream must be a task, .*; found First\(recipe_run"),
        ({"upstreams": ((First,),)}, r"Second: each upstream must be a task, .*; found \(<class '.*First'>,\)"),
        ({"upstreams": [[First]]}, r"Second: each upstream must be a task, .*; found \[<class '.*First'>\]"),
        ({"upstreams": [{}]}, "Second: each upstream must be a task, a subclass of TaskBase; found {}"),
        ({"upstreams": False}, "Second: upstreams is False, expected a task, a sequence of tasks or None"),
        ({"upstreams": Mute()}, "Second: upstreams is <Mute .*>, expected a task, a sequence of tasks or None"),
        ({"upstreams": int}, "Second: each upstream must be a task, a subclass of TaskBase; found <class 'int'>"),
        ({"upstreams": TaskBase}, "Second waits for TaskBase, which is not in My_Workflow; add upstreams first"),
        ({"resource_queue": "GPU"}, ".* is 'GPU', expected one of default, .*, gpu; write 'gpu', or ResourceQueue.GPU"),
        ({"resource_queue": ""}, "Second: resource_queue is '', expected one of default"),
        ({"resource_queue": 3}, "Second: resource_queue is 3, expected one of default"),
        ({"resource_queue": ["gpu"]}, r"Second: resource_queue is \['gpu'\], expected one of default"),
        ({"resource_queue": Mute()}, "Second: resource_queue is <Mute .*>, expected one of default"),
        (
            {"task": type("a\nb", (First,), {"retries": -1})},
            r"the name of a task is 'a\\nb', which contains '\\n'; allow",
        ),
        (
            {"task": type("Odd", (First,), {"run": staticmethod(_asynchronous)})},
            "Odd.run is a coroutine, which never runs",
        ),
        (
            {"task": type("Odd", (First,), {"run": partial(_asynchronous)})},
            "Odd.run is a coroutine, which never runs",
        ),
        ({"pip_extras": b"asdf"}, "Second: pip_extras is the string b'asdf', expected a list of names"),
        ({"pip_extras": ""}, "Second: pip_extras is the string '', expected a list of names"),
        ({"pip_extras": 3}, "Second: pip_extras is 3, expected a list of names"),
        ({"pip_extras": False}, "Second: pip_extras is False, expected a list of names"),
        (
            {"pip_extras": [["a"]]},
            r"Second: pip_extras holds \['a'\], expected the name of an extra, for example quality",
        ),
        ({"pip_extras": [""]}, "Second: pip_extras holds '', expected the name of an extra, for example quality"),
        ({"pip_extras": [None]}, "Second: pip_extras holds None, expected the name of an extra, for example quality"),
        (
            {"pip_extras": ["asdf", "a,b"]},
            "Second: pip_extras holds 'a,b', expected the name of an extra, for example quality",
        ),
        (
            {"pip_extras": [Mute()]},
            "Second: pip_extras holds <Mute .*>, expected the name of an extra, for example quality",
        ),
    ],
)
def test_a_node_that_is_none(arguments: dict[str, Any], message: str) -> None:
    """
    The sentence names the task, the argument, the value and the expected type; the workflow is unchanged.
    """
    built = with_first()

    sentence = refused(lambda: built.add_node(**{"task": Second} | arguments), WorkflowError)

    assert re.match(message, sentence)
    assert [node.name for node in built.nodes] == ["First"]


def test_what_a_method_wraps_is_its_own_affair() -> None:
    """
    The method in its place is called, whatever name it claims to wrap.
    """
    built = with_first()

    built.add_node(type("Wrapped", (First,), {"run": given_more(lambda _self, _number: None, 3)}))
    built.add_node(type("Untold", (First,), {"__init__": 3}))

    assert [node.name for node in built.nodes] == ["First", "Wrapped", "Untold"]


def test_the_first_node_has_nothing_to_wait_for() -> None:
    """
    If nodes are added in the wrong order, the sentence states which comes first.
    """
    built = Workflow(process_category="My", process_name="Workflow")

    assert refused(partial(built.add_node, Second, upstreams=First), WorkflowError) == (
        "Second waits for First, which is not in My_Workflow; add upstreams first. It has: no tasks yet"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retries", None),
        ("retries", -1),
        ("retries", 2**31 - 1),
        ("retries", 10**30),
        ("retries", 1.5),
        ("retries", True),
        ("retry_delay_seconds", "60"),
        ("retry_delay_seconds", -1),
        ("retry_delay_seconds", float("nan")),
        ("retry_delay_seconds", float("inf")),
        ("retry_delay_seconds", True),
        ("retry_delay_seconds", timedelta(minutes=1)),
        ("overdue_after_seconds", "60"),
        ("overdue_after_seconds", 0),
        ("overdue_after_seconds", float("nan")),
        ("overdue_after_seconds", 1e10),
        ("overdue_after_seconds", True),
        ("overdue_after_seconds", timedelta(minutes=1)),
    ],
)
def test_a_number_of_a_class_that_is_none(name: str, value: object) -> None:
    """
    It is refused when the task is added, and not at its first failure.
    """
    task = type("Second", (First,), {name: value})

    sentence = refused(partial(with_first().add_node, task), WorkflowError)

    bounds = {
        "retries": f"whole number from 0 to {2**31 - 2}",
        "retry_delay_seconds": "number of seconds from 0 to 10^9",
        "overdue_after_seconds": "number of seconds above 0 and up to 10^9, or None",
    }
    assert sentence == f"Second: {name} is {value!r}, expected a {bounds[name]}"


def test_a_number_without_a_decimal_form_is_refused() -> None:
    """
    No text can show it.
    """
    task = type("Second", (First,), {"retries": 10**5000})

    sentence = refused(partial(with_first().add_node, task), WorkflowError)

    assert sentence.startswith("Second: retries is <int>, expected a whole number from 0 to ")


def test_as_many_retries_as_the_engine_can_count() -> None:
    """
    The number of tries is higher by one.
    """
    built = with_first()
    built.add_node(type("Second", (First,), {"retries": 2**31 - 2}))

    assert built.nodes[-1].task.retries == 2**31 - 2


async def _coroutine(_: object) -> None:
    pass


def _generator(_: object) -> Iterator[None]:
    yield


async def _asynchronous_generator(_: object) -> AsyncIterator[None]:
    yield


def _of_another(_: object, x: int) -> None:
    pass


def _of_a_keyword(_: object, *, x: int) -> None:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_coroutine, "{0} is a coroutine, which never runs: define it without async and yield"),
        (_generator, "{0} is a generator, which never runs: define it without async and yield"),
        (
            _asynchronous_generator,
            "{0} is an asynchronous generator, which never runs: define it without async and yield",
        ),
        (
            _of_another,
            r"{0} is called without arguments: define it as def \w+\(self\) \(missing a required argument: 'x'\)",
        ),
        (
            _of_a_keyword,
            r"{0} is called without arguments: define it as def \w+\(self\) \(missing a required .*argument: 'x'\)",
        ),
        (
            lambda: None,
            r"{0} is called without arguments: define it as def \w+\(self\) \(too many positional arguments\)",
        ),
        (3, "{0} is 3, expected a method that takes no arguments"),
        (None, "{0} is None, expected a method that takes no arguments"),
    ],
)
@pytest.mark.parametrize("phase", ["pre_run", "run", "post_run", "__call__"])
def test_a_phase_that_would_not_run(phase: str, value: object, message: str) -> None:
    """
    It is refused when the task is added, and not on a worker; the workflow is unchanged.
    """
    built = with_first()

    sentence = refused(partial(built.add_node, type("Second", (First,), {phase: value})), WorkflowError)

    assert re.fullmatch(message.format(rf"Second\.{phase}"), sentence)
    assert [node.name for node in built.nodes] == ["First"]


@pytest.mark.parametrize(
    "value",
    [staticmethod(lambda: None), classmethod(lambda _: None), lambda *_: None, lambda _, x=1: x, partial(print, "x")],
)
@pytest.mark.parametrize("phase", ["pre_run", "run", "post_run", "__call__"])
def test_a_phase_of_an_unusual_form_that_runs(phase: str, value: object) -> None:
    """
    The only condition is that it can be called without arguments.
    """
    built = with_first()
    built.add_node(type("Second", (First,), {phase: value}))

    assert [node.name for node in built.nodes] == ["First", "Second"]


class Half(TaskBase):
    """
    A task that subclasses complete, by defining one more method.
    """


@pytest.mark.parametrize("task", [TaskBase, Half])
def test_a_task_that_is_abstract(task: type[TaskBase]) -> None:
    """
    It cannot be constructed: the sentence states the methods that it does not define.
    """
    sentence = refused(lambda: with_first().add_node(task), WorkflowError)

    assert sentence == f"{task.__name__} cannot be run: it does not define run"


TAKES = "Second cannot be created: its constructor must take recipe_run_id, workflow_name, workflow_version, and takes "


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (lambda _, run_id, name: (run_id, name), r"\(run_id, name\) \(missing a required argument: 'run_id'\)"),
        (lambda _: None, r"\(\) \(got an unexpected keyword argument 'recipe_run_id'\)"),
        (lambda _, *given: given, r"\(given\) \(got an unexpected keyword argument 'recipe_run_id'\)"),
        (
            lambda _, recipe_run_id, workflow_name, workflow_version, more: (
                recipe_run_id,
                workflow_name,
                workflow_version,
                more,
            ),
            r"\(recipe_run_id, workflow_name, workflow_version, more\) \(missing a required argument: 'more'\)",
        ),
        (
            lambda _, recipe_run_id, workflow_name, workflow_version, /: (
                recipe_run_id,
                workflow_name,
                workflow_version,
            ),
            r"\(recipe_run_id, workflow_name, workflow_version\) \(.*positional",
        ),
        (lambda _, recipe_run_id, **more: (recipe_run_id, more), None),
        (lambda _, **given: given, None),
        (
            lambda _, recipe_run_id, workflow_name, workflow_version, more=1: (
                recipe_run_id,
                workflow_name,
                workflow_version,
                more,
            ),
            None,
        ),
        (
            lambda _, *, workflow_version, workflow_name, recipe_run_id: (
                workflow_version,
                workflow_name,
                recipe_run_id,
            ),
            None,
        ),
        (print, None),
    ],
)
def test_a_constructor_takes_the_three_established_keywords(
    constructor: Callable[..., object], message: str | None
) -> None:
    """
    A task is constructed with these. A constructor without a readable signature is only checked when it is called.
    """
    built = with_first()
    add = partial(built.add_node, type("Second", (First,), {"__init__": constructor}))

    if message is None:
        add()
    else:
        assert re.match(TAKES + message, refused(add, WorkflowError))
    assert [node.name for node in built.nodes] == (["First", "Second"] if message is None else ["First"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workflow_package": ""}, r"its workflow names no package, and a worker can "),
        (
            {"workflow_package": "__main__"},
            (
                "no worker could install version '1.0' of workflow_package '__main__': "
                "package of an environment: found '__main__', expected letters, digits"
            ),
        ),
        (
            {"workflow_version": "."},
            (
                r"no worker could install version '\.' of workflow_package 'p': "
                r"version of an environment: found '\.', expected a version"
            ),
        ),
    ],
)
def test_an_export_that_no_worker_could_install(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """
    The sentence names the task and the workflow, and no file is written.
    """
    sentence = refused(lambda: with_first(**options).export_dag(tmp_path / "dags"), WorkflowError)

    assert re.match(f"First of My_Workflow cannot be exported: {message}", sentence)
    assert not (tmp_path / "dags").exists()


def test_an_export_onto_a_file_names_it(tmp_path: Path) -> None:
    """
    The path should be a folder.
    """
    place = tmp_path / "dags"
    place.write_text("a file")

    with pytest.raises(WorkflowError, match=rf"^the export cannot be written to {place}, expected a folder: File exi"):
        with_first().export_dag(place)


@pytest.mark.parametrize(("path", "shown"), [("out\0side", r"'out\\x00side'"), (3, "3"), (b"dags", "b'dags'")])
@pytest.mark.parametrize("export", [Workflow.export_dag, Workflow.export, Workflow.export_notebook])
def test_an_export_to_what_is_no_path(export: Callable[[Workflow, Any], Path], path: object, shown: str) -> None:
    """
    The null byte is shown as Python writes it.
    """
    with pytest.raises(WorkflowError, match=rf"^found {shown}, expected the path of a folder for the export$"):
        export(with_first(), path)


def test_a_task_of_the_program_that_runs_cannot_be_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The name of its module in that program has no meaning elsewhere.
    """
    monkeypatch.setattr(First, "__module__", "__main__")

    sentence = refused(with_first().dag_source, WorkflowError)

    assert re.match(
        "First of My_Workflow cannot be exported: another process imports a task by the name of its module", sentence
    )


def test_a_workflow_without_tasks_cannot_be_loaded() -> None:
    """
    The sentence is that of its export, whether Airflow is installed or not.
    """
    built = Workflow(process_category="My", process_name="Workflow", workflow_package="p")

    assert refused(built.load, WorkflowError).endswith("it has no tasks")


@pytest.mark.parametrize("recipe_run_id", [1.0, True, None, "abc", "1.0", "-1", "", -1, 2**63, [1]])
def test_a_recipe_run_id_that_is_none(recipe_run_id: Any) -> None:
    """
    A run is refused before any part of it starts; the sentence shows the value.
    """
    sentence = refused(lambda: with_first().run(recipe_run_id), IdentityError)

    assert sentence == (
        f"recipe_run_id: found {recipe_run_id!r}, expected an integer or decimal digits, from 0 to 2^63 - 1"
    )
    assert list(subscribe(replay=True, timeout=0.05)) == []


def test_releases_of_a_script_cannot_be_run() -> None:
    """
    The sentence asks for the release that a worker would install, if there is none.
    """
    sentence = refused(lambda: with_first(workflow_package=None).run(1, environments=True), WorkflowError)

    assert sentence.startswith("First of My_Workflow cannot be ")
    assert "define the workflow with workflow_package=__package__, which is None in a script" in sentence


@pytest.mark.processes
def test_a_constructor_of_other_names_is_named_by_the_failure() -> None:
    """
    For a file that was exported before such tasks were refused, the failure still names the constructor.
    """
    built = with_first()
    built._nodes = {"OtherNames": replace(built.nodes[0], task=OtherNames)}

    built.run(1)

    (failed,) = subscribe("task.failed", replay=True, timeout=0.05)
    assert isinstance(failed, TaskFailed)
    assert (failed.cause, failed.error_type) == (Cause.EXCEPTION, "TypeError")
    assert failed.message == "OtherNames.__init__() got an unexpected keyword argument 'recipe_run_id'"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            workflow("w").replace("upstreams=First", "upstreams=Third"),
            r"scratch\.w cannot be imported: NameError: name 'Third' is not defined",
        ),
        (
            workflow("w").replace("workflow.add_node(First)\n", ""),
            r"scratch\.w cannot be imported: WorkflowError: Second waits for First, which is not in scratch_w; add",
        ),
        (
            workflow("w", package="None"),
            r"scratch\.w: scratch_w 1\.0: First of scratch_w cannot be exported: its workflow names no ",
        ),
        (
            workflow("w", version="."),
            r"scratch\.w: scratch_w \.: First of scratch_w cannot be exported: no worker could install version '\.' of",
        ),
        ("", r"scratch defines no workflow; searched: scratch\.w, scratch$"),
    ],
)
def test_a_package_s_mistake_is_told_with_its_module(source: str, message: str, tmp_path: Path) -> None:
    """
    One sentence leads from the check of a package to the line in the author's code.
    """
    write_package(tmp_path, {"w.py": TASKS + source})

    with importing(tmp_path) as package:
        sentence = refused(lambda: validate_workflows(package), WorkflowError)

    assert re.match(message, sentence)


# Arbitrary values, some of them very long
TEXTS = st.text(max_size=40) | st.builds(
    str.__mul__, st.sampled_from(["x", "1", " ", "/", "x.y"]), st.integers(0, 3000)
)
SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, 10**4000, 2**63]),
    st.floats(),
    TEXTS,
    st.binary(),
    st.sampled_from([int, str, list, type, Enum, TaskBase, First, Second, list[int], object()]),
    st.builds(with_first),
)
JUNK = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=6
)


def made_or_refused(make: Callable[[], object]) -> None:
    """
    Call the function, or check that it is refused in one line.
    """
    refusal: Exception | None = None
    try:
        make()
    except DKISTProcessingCoreError as error:
        refusal = error
    if refusal is not None:
        assert type(refusal) is WorkflowError
        assert "\n" not in str(refusal)
        assert 1 <= len(str(refusal)) <= LONGEST_OF_ANY


@given(
    name=st.sampled_from([*PARTS, "tags"]),
    named=st.sampled_from([BY_PROCESS, BY_DATA, {}]),
    value=JUNK,
)
@example(name="tags", named=BY_PROCESS, value=list[int])
@example(name="tags", named=BY_DATA, value=[[None]])
@example(name="workflow_version", named=BY_PROCESS, value="1" * 200)
def test_whatever_a_workflow_is_made_with(name: str, named: dict[str, str], value: Any) -> None:
    """
    It is created, or one sentence states why not.
    """
    made_or_refused(lambda: Workflow(**{"workflow_version": "1"} | named | {name: value}))


@given(version=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_whatever_the_version_of_the_build_is(version: str) -> None:
    """
    If a workflow has no version, this is its version, or one sentence states why not.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILD_VERSION", version)
        made_or_refused(lambda: Workflow(**BY_PROCESS))


def test_a_setting_that_is_none_is_named_where_a_workflow_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A workflow without a version reads the settings, whose sentence names the variable.
    """
    monkeypatch.setenv("MESH_CONFIG", "[")

    assert "MESH_CONFIG" in refused(lambda: with_first(workflow_version=None), ConfigurationError)
    assert with_first(workflow_version="1.0").workflow_version == "1.0"


@given(name=st.sampled_from(["task", "upstreams", "resource_queue", "pip_extras"]), value=JUNK)
@example(name="upstreams", value={First: Second})
@example(name="pip_extras", value=list[int])
def test_whatever_a_node_is_added_with(name: str, value: Any) -> None:
    """
    It is added, or one sentence states why not and the workflow is unchanged.
    """
    built = with_first()
    before = built.nodes

    made_or_refused(lambda: built.add_node(**{"task": Second, name: value}))

    assert built.nodes[:1] == before
    assert len(built.nodes) <= 2


@given(
    name=st.sampled_from(["retries", "retry_delay_seconds", "overdue_after_seconds", "pre_run", "run", "__call__"]),
    value=JUNK,
)
def test_whatever_a_task_s_class_holds(name: str, value: Any) -> None:
    """
    It is added, or one sentence states why not.
    """
    made_or_refused(lambda: with_first().add_node(type("Second", (First,), {name: value})))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: with_first().add_node(Second, upstream=First),  # type: ignore[call-arg]
            "Workflow.add_node: found the argument 'upstream', expected upstreams; for example: add_node(",
        ),
        (
            lambda: with_first().add_node(Second, retries=2),  # type: ignore[call-arg]
            "Workflow.add_node: found the argument 'retries', expected it in the class of the task, as in",
        ),
        (
            lambda: Workflow("hello"),  # type: ignore[call-arg]
            "Workflow: found 'hello' without a name, expected name=value; for example: Workflow(process_category=",
        ),
        (lambda: Workflow(name="hello"), "Workflow: found the argument 'name', expected process_category and"),  # type: ignore[call-arg]
        (lambda: with_first().run(), "Workflow.run needs recipe_run_id; for example: run("),  # type: ignore[call-arg]
        (lambda: with_first().run(1, 3), "Workflow.run: found 3 without a name, expected name=value; for"),  # type: ignore[call-arg]
        (lambda: with_first().run(1, parallel=3), "Workflow.run: found the argument 'parallel', expected max_parallel"),  # type: ignore[call-arg]
    ],
)
def test_a_call_with_wrong_arguments_shows_the_right_ones(call: Callable[[], object], message: str) -> None:
    """
    It is still a `TypeError`, as for each function of Python.
    """
    with pytest.raises(TypeError) as mistake:
        call()

    assert str(mistake.value).startswith(message)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Workflow(process_category="my sun", process_name="x"),
        lambda: with_first().add_node(type("Second", (First,), {"run": lambda: None})),
        lambda: with_first().add_node(First, pip_extras=["a b"]),
        lambda: with_first().run("first"),
        lambda: with_first().add_node(Second, upstream=First),  # type: ignore[call-arg]
    ],
)
def test_one_line_of_the_library_follows_the_author_s_own_line(call: Callable[[], object]) -> None:
    """
    The traceback has one frame below the author's, and no other error above it.
    """
    with pytest.raises((WorkflowError, IdentityError, TypeError)) as mistake:
        call()

    shown = "".join(traceback.format_exception(mistake.value))
    files = [Path(frame.filename).name for frame in traceback.extract_tb(mistake.value.__traceback__)]
    assert files == ["test_author_errors.py", "test_author_errors.py", "author_calls.py"]
    assert shown.count("Traceback (most recent call last)") == 1


def test_circular_upstreams_are_shown_as_a_circle() -> None:
    """
    A task that is added again, to wait for a task downstream of it, closes the circle.
    """
    built = with_first()
    built.add_node(Second, upstreams=First)
    third = type("Third", (First,), {})
    built.add_node(third, upstreams=Second)

    sentence = refused(partial(built.add_node, First, upstreams=third), WorkflowError)

    assert sentence == (
        "First cannot wait for Third: the upstreams would be circular, First -> Third -> Second -> First "
        "(each waits for the next)"
    )


def test_a_second_addition_is_refused_at_once_in_a_graph_with_many_ways() -> None:
    """
    Sixty layers of two tasks have 2^60 ways from end to begin; each task is looked at once.
    """
    built = with_first()
    layer: list[type[TaskBase]] = [First]
    for depth in range(60):
        below, layer = layer, [type(f"{side}{depth}", (First,), {}) for side in ("Left", "Right")]
        for each in layer:
            built.add_node(each, upstreams=below)

    assert "a task of this name already" in refused(partial(built.add_node, layer[0], upstreams=below), WorkflowError)
    circle = refused(partial(built.add_node, First, upstreams=layer), WorkflowError)
    assert (
        "First -> Left59 -> Left58 -> Left57 -> Left56 -> Left55 -> Left54 -> Left53 -> … -> Left0 -> First" in circle
    )


def test_an_upstream_that_is_missing_may_close_a_circle() -> None:
    """
    Upstreams are added first, so the first task of a circle is refused; a note below shows the possible circle.
    """
    built = Workflow(process_category="My", process_name="Workflow")

    with pytest.raises(WorkflowError, match="add upstreams first") as mistake:
        built.add_node(First, upstreams=Second)

    (note,) = mistake.value.__notes__
    assert "circular (First -> Second -> … -> First)" in note


def test_a_misspelt_method_is_named() -> None:
    """
    The sentence states the missing method, and the one that is meant.
    """
    misspelt = type("Misspelt", (TaskBase,), {"runn": lambda _: None})

    assert refused(partial(with_first().add_node, misspelt), WorkflowError) == (
        "Misspelt cannot be run: it does not define run; its method runn seems misspelt"
    )


class NearMisses(First):
    """Names that look like those of TaskBase and have no effect."""

    retry = 3
    retry_delay = 5.0
    retires = 1

    def prerun(self) -> None:
        """Never called."""

    def roll_back(self) -> None:
        """Never called."""


class OwnNames(First):
    """Names that only look so, are used, or belong to the author."""

    entries = 3
    retry = 2

    def run(self) -> None:
        """Use them."""
        for _ in range(self.retry):
            self.prerun()

    def prerun(self) -> None:
        """Called by run."""

    def retrieve(self) -> None:
        """Nothing of TaskBase."""


class Overriding(NearMisses):
    """A task of a library's class, which has the names."""

    retry = 4


def test_a_task_that_imports_its_workflow_again_repeats_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The process that runs the workflow has logged it; each task would log it for all tasks.
    """
    monkeypatch.setenv(LOADING, "1")

    with_first().add_node(NearMisses)

    assert caplog.records == []


def test_a_name_that_is_nearly_one_of_a_task_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """
    It has no effect, which shows only when it is needed; a name that the task itself uses is the author's own.
    """
    built = with_first()
    for task in (NearMisses, OwnNames, Overriding):
        built.add_node(task)

    told = [record.getMessage() for record in caplog.records]

    assert [each.partition(" has no effect")[0] for each in told] == [
        f"NearMisses.{name}" for name in ("retry", "retry_delay", "retires", "prerun", "roll_back")
    ]
    assert [each.rpartition("the name that a run reads is ")[2] for each in told] == [
        "retries", "retry_delay_seconds", "retries", "pre_run", "rollback",
    ]  # fmt: skip
