"""
Airflow's view of a published pipeline: the same as with the release that it was published for.

Each release exports with its own code, and an Airflow of its environment reads the files. Not here: running an exported
task (tests.airflow).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.published.environments import Installed

VERSION = "1.46.0"

Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def from_replaced(replaced: Installed) -> dict[str, Any]:
    """
    Airflow's view of the pipeline's DAGs as the replaced release exports them.
    """
    answer: dict[str, Any] = replaced.ask("read_dags", replaced.folder / "dags", variables={"BUILD_VERSION": VERSION})
    return answer


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder in which the pipeline is checked and exported, with one of a user's own.
    """
    folder = tmp_path_factory.mktemp("cwd")
    (folder / "export").mkdir()
    (folder / "export" / "kept.py").write_text("a user's own")
    return folder


@pytest.fixture(scope="module")
def from_here(clients: Installed, replaced: Installed, from_replaced: dict[str, Any], cwd: Path) -> dict[str, Any]:
    """
    The same of the DAGs that this library makes, and of the files that the replaced release has left.
    """
    assert from_replaced
    answer: dict[str, Any] = clients.ask(
        "read_dags", clients.folder / "dags", replaced.folder / "dags", cwd=cwd, variables={"BUILD_VERSION": VERSION}
    )
    return answer


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """
    Yield each value inside of nested ones, with its path.
    """
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{path} / {key}" if path else key)
    else:
        yield path, value


def differences(expected: Seen, actual: Seen) -> list[str]:
    """
    Return a line for each fact of a DAG that differs.
    """
    before, now = dict(flat(expected)), dict(flat(actual))
    return [
        f"{path}: {before.get(path, 'nothing')!r} became {now.get(path, 'nothing')!r}"
        for path in sorted(before.keys() | now.keys())
        if before.get(path, "nothing") != now.get(path, "nothing")
    ]


def test_the_engine_sees_what_it_saw_of_the_replaced_release(
    from_replaced: dict[str, Any], from_here: dict[str, Any]
) -> None:
    """
    Of all 32 workflows: ids, tags, schedule, edges, queues, pools, retries, owner, and announcements of a failure.
    """
    expected: Seen = from_replaced["exported"]

    assert len(expected) == 32
    assert differences(expected, from_here["exported"]) == []


def test_each_task_tells_of_its_failure_once(from_here: dict[str, Any]) -> None:
    """
    The callback of release 7.x is attached, with the names of the workflow and the task.
    """
    for name, dag in from_here["exported"].items():
        assert dag["tasks"]
        for task, facts in dag["tasks"].items():
            assert facts["announcements"] == [
                {
                    "workflow_name": name.removesuffix(f"_{VERSION}"),
                    "workflow_version": VERSION,
                    "task_name": task,
                }
            ]


def test_what_is_loaded_is_what_is_exported(from_here: dict[str, Any]) -> None:
    """
    A pipeline's own tests inspect the DAG that Airflow gets.
    """
    assert differences(from_here["exported"], from_here["loaded"]) == []


def test_files_of_the_replaced_release_still_load(from_replaced: dict[str, Any], from_here: dict[str, Any]) -> None:
    """
    Deployed files keep working, and their failure callback is this library's.
    """
    (earlier,) = from_here["earlier"]

    assert differences(from_replaced["exported"], earlier) == []


def test_workflows_are_valid_and_nothing_is_left(from_here: dict[str, Any], cwd: Path) -> None:
    """
    A folder with the name that the replaced release used, and then removed, keeps its content.
    """
    kept = cwd / "export" / "kept.py"

    assert len(from_here["exported"]) == 32
    assert sorted(cwd.rglob("*")) == [kept.parent, kept]
    assert kept.read_text() == "a user's own"
