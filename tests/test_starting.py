"""
Tests that start a process are found by their code. A start in other tests is an error where they run as tests that
start none.

Not here: how `make quick` divides them (test_door.py).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core import Workflow
from dkist_processing_core.environments import Environments, Requirement
from tests import pipelines, running
from tests.conftest import OF_THE_BROKER, SAME_ON_EVERY_PYTHON
from tests.running import run_python
from tests.services.rabbitmq import RabbitMQNode
from tests.starting import starts

ROOT = Path(__file__).parents[1]


def _by_the_standard_library() -> None:
    subprocess.run(["/bin/true"], check=True)


def _by_a_fork() -> int:
    return os.fork()


def _by_a_function_of_the_tests() -> None:
    run_python("", {})


def _by_a_function_of_a_module() -> None:
    running.run_python("", {})


def _in_a_nested_function() -> Callable[[], object]:
    return lambda: run_python("", {})


def _by_a_class_of_the_tests(folder: Path) -> RabbitMQNode:
    return RabbitMQNode(folder)


def _by_a_run_of_a_workflow() -> None:
    pipelines.diamond.run(recipe_run_id=1)


def _by_an_argument(cache: Environments) -> None:
    cache.prepare(Requirement.parse("small==1"))


@pytest.mark.parametrize(
    "function",
    [
        _by_the_standard_library,
        _by_a_fork,
        _by_a_function_of_the_tests,
        _by_a_function_of_a_module,
        _in_a_nested_function,
        _by_a_class_of_the_tests,
        _by_a_run_of_a_workflow,
        _by_an_argument,
    ],
)
def test_a_start_is_found_behind_what_a_test_calls(function: Any) -> None:
    """
    The start is found in any function that is called by its name.
    """
    assert starts(function)


def _makes_a_workflow() -> Workflow:
    return Workflow(process_category="a", process_name="b", workflow_package="c")


def _looks_at_this_process() -> int:
    return os.getpid()


@pytest.mark.parametrize("function", [_makes_a_workflow, _looks_at_this_process])
def test_what_starts_nothing_is_not_taken_for_a_start(function: Any) -> None:
    """
    Other methods of the same class, and other functions of the same module, may start one.
    """
    assert not starts(function)


HIDDEN = """
import os

def test_hidden():
    getattr(os, "system")("true")
"""


@pytest.mark.parametrize(("marks", "shown"), [("not processes", "mark it `processes`"), ("not soak", "1 passed")])
def test_a_start_that_is_not_seen_is_refused_where_none_is_expected(tmp_path: Path, marks: str, shown: str) -> None:
    """
    In all other runs, the start is allowed.
    """
    test = tmp_path / "test_hidden.py"
    test.write_text(HIDDEN)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-m", marks]

    ran = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(test)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert shown in ran.stdout


@pytest.mark.parametrize("chosen", [SAME_ON_EVERY_PYTHON, OF_THE_BROKER], ids=["once", "versions"])
def test_modules_that_are_chosen_by_name_exist(chosen: frozenset[str]) -> None:
    """
    A module that is renamed does not leave the choice silently.
    """
    assert chosen <= {path.stem for path in Path(__file__).parent.rglob("test_*.py")}
