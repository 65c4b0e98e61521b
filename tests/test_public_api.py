"""The names that users import, and the modules that an import loads."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import dkist_processing_core
from dkist_processing_core import errors

HOMES = {
    "Consumer": "consumer",
    "ResourceQueue": "resource_queue",
    "RunState": "runs",
    "Subscription": "consumer",
    "TaskBase": "task",
    "Workflow": "workflow",
    "subscribe": "consumer",
}
# The names that pipelines of release 7.x import by their paths.
ESTABLISHED = {
    "build_utils": [
        "export",
        "export_dags",
        "export_notebook_dockerfile",
        "export_notebooks",
        "extract_workflows_from_package",
        "validate_workflows",
    ],
    "config": ["DKISTProcessingCoreConfiguration", "core_configurations"],
    "failure_callback": ["chat_ops_notification"],
    "node": ["Node"],
    "notebook_utils": ["export_notebook_by_path", "wait_for_notebook_save"],
    "resource_queue": ["ResourceQueue"],
    "task": ["TaskBase"],
    "workflow": ["Workflow", "dag_name", "workflow_name_from_details"],
}


def test_the_public_names_are_these() -> None:
    """A name that is added or removed must be added to or removed from this list."""
    assert sorted(HOMES) == dkist_processing_core.__all__


@pytest.mark.parametrize("name", HOMES)
def test_a_public_name_is_the_one_of_its_module(name: str) -> None:
    """A name of the package and of its module is the same object."""
    home = importlib.import_module(f"dkist_processing_core.{HOMES[name]}")

    assert getattr(dkist_processing_core, name) is getattr(home, name)


def loaded_after(program: str) -> list[str]:
    """Return the modules of the package that a new interpreter has loaded after a program."""
    program += (
        "\nimport json, sys; print(json.dumps([n for n in sys.modules if n.startswith('dkist_processing_core.')]))"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded: list[str] = json.loads(made.stdout)
    return [name.removeprefix("dkist_processing_core.") for name in loaded]


def test_importing_the_package_loads_none_of_its_modules() -> None:
    """An exported DAG imports its callbacks from the package each time that Airflow parses the file."""
    assert loaded_after("import dkist_processing_core") == []


def test_a_name_loads_what_it_needs_and_no_more() -> None:
    """The module of the queues loads no other module."""
    assert loaded_after("from dkist_processing_core import ResourceQueue") == ["resource_queue"]


def test_every_name_can_be_imported_at_once() -> None:
    """`import *` defines all names of `__all__`."""
    names: dict[str, object] = {}

    exec("from dkist_processing_core import *", names)

    assert set(HOMES) <= set(names)


def test_the_names_are_listed_before_they_are_loaded() -> None:
    """An interactive user finds the names by completion."""
    assert set(HOMES) <= set(dir(dkist_processing_core))


def test_the_version_is_that_of_the_distribution() -> None:
    """The version is defined in one place."""
    assert version("dkist-processing-core") == dkist_processing_core.__version__


def test_there_is_no_other_name() -> None:
    """A misspelt name raises AttributeError."""
    with pytest.raises(AttributeError, match="module 'dkist_processing_core' has no attribute 'Taskbase'"):
        dkist_processing_core.Taskbase  # noqa: B018 - the access raises


@pytest.mark.parametrize("module", ESTABLISHED)
def test_established_paths_stay(module: str) -> None:
    """Names that pipelines of release 7.x import exist."""
    found = importlib.import_module(f"dkist_processing_core.{module}")

    assert [name for name in ESTABLISHED[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("ConfigurationError", ValueError),
        ("IdentityError", ValueError),
        ("DecodeError", ValueError),
        ("WorkflowError", ValueError),
        ("RunFailedError", Exception),
        ("EnvironmentRequestError", ValueError),
        ("EnvironmentBuildError", Exception),
        ("JournalError", Exception),
        ("JournalVersionError", errors.JournalError),
        ("BusError", Exception),
        ("BusUnreachableError", errors.BusError),
        ("ConnectionFailedHereError", errors.BusUnreachableError),
        ("BusRefusedError", errors.BusError),
    ],
)
def test_every_error_is_of_the_one_tree(name: str, parent: type[Exception]) -> None:
    """A caller can catch all of them by the root class, and wrong values by ValueError."""
    error = getattr(errors, name)

    assert issubclass(error, errors.DKISTProcessingCoreError)
    assert issubclass(error, parent)


def test_the_queues_are_text() -> None:
    """An exported DAG uses their values as queue names, and with `_pool` as pool names."""
    queue = dkist_processing_core.ResourceQueue

    assert [*queue] == ["default", "high_memory", "multi_core", "gpu"]
    assert f"{queue.HIGH_MEMORY}_pool" == "high_memory_pool"
