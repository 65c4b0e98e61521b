"""
Launchers and the environments that they prepare: built once, used by all, and rebuilt once if one is damaged.

The installed package has a task that does not use this package: the launcher's program needs only its constructor. Not
here: the cache itself (test_environments.py).
"""

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from dkist_processing_core.events import TaskFailed, TaskStarted
from tests.services.sockets import BlackHole
from tests.services.wheels import make_wheel
from tests.test_faults import journal_rows, launch, the_attempt
from tests.waiting import wait_until

TASKS = """\
import os, sys
from tiny_library import ANSWER

class Tiny:
    def __init__(self, recipe_run_id, workflow_name, workflow_version):
        self.told = recipe_run_id, workflow_name, workflow_version
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def __call__(self):
        print("in", sys.prefix, *self.told, ANSWER, flush=True)
        if "TINY_WAITS" in os.environ:
            os.read(os.pipe()[0], 1)

class NeedsMore(Tiny):
    def __call__(self):
        import not_installed_at_all
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """
    Return the variables of a task whose package consists of two small wheels, with a separate cache and no network.
    """
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tiny-library", "1.0", files={"tiny_library.py": "ANSWER = 42\n"})
    make_wheel(
        wheels,
        "tiny-pipeline",
        "1.0",
        requires=["tiny-library"],
        files={"tiny_pipeline/__init__.py": "", "tiny_pipeline/tasks.py": TASKS},
    )
    return {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": wheels.as_uri(),
        "DKIST_CORE_PACKAGE": "tiny_pipeline.workflows",
        "DKIST_CORE_VERSION": "1.0",
        "DKIST_CORE_TASK_MODULE": "tiny_pipeline.tasks",
        "DKIST_CORE_ENVIRONMENTS_DIR": str(tmp_path / "environments"),
    }


def built_in(environ: dict[str, str]) -> list[Path]:
    """
    Return the folders of the environments that were built.
    """
    folder = Path(environ["DKIST_CORE_ENVIRONMENTS_DIR"])
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def test_eight_launchers_build_one_environment(environ: dict[str, str]) -> None:
    """
    One launcher builds, the others wait for it. Each logs what it did, and all run in the same environment.
    """
    with ExitStack() as stack:
        launchers = [
            stack.enter_context(launch("Tiny", **environ, DKIST_CORE_RUN_ID=f"manual__{number}")) for number in range(8)
        ]
        assert [launcher.wait() for launcher in launchers] == [0] * 8

    (environment,) = built_in(environ)
    for launcher in launchers:
        assert f"in {environment} 5 faults 1.0 42" in launcher.lines
    starts = [event for _, event in journal_rows() if isinstance(event, TaskStarted)]
    assert Counter(event.environment for event in starts) == {"built": 1, "reused": 7}


def damage_library(environment: Path) -> None:
    """
    Remove a module that the task imports.
    """
    next(environment.rglob("tiny_library.py")).unlink()


def damage_interpreter(environment: Path) -> None:
    """
    Replace the interpreter by a dangling link.
    """
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("/nowhere/python")


def damage_program(environment: Path) -> None:
    """
    Replace the interpreter by one that ends before it has read its program.
    """
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("/bin/false")


@pytest.mark.parametrize("damage", [damage_library, damage_interpreter, damage_program])
def test_a_damaged_environment_is_built_anew_once(damage: type, environ: dict[str, str]) -> None:
    """
    The attempt in a damaged environment succeeds after a rebuild, without action by an operator.
    """
    with launch("Tiny", **environ) as launcher:
        assert launcher.wait() == 0, launcher.lines
    (environment,) = built_in(environ)
    damage(environment)

    with launch("Tiny", **environ, DKIST_CORE_RUN_ID="manual__2") as launcher:
        assert launcher.wait() == 0, launcher.lines

    assert f"in {environment.parent / environment.name.removesuffix('.1')}.2 5 faults 1.0 42" in launcher.lines
    ends = [event for _, event in journal_rows() if event.run_id == "manual__2"]
    assert [event.name for event in ends][-1] == "task.finished"


def test_a_task_that_lacks_a_module_is_no_damaged_environment(environ: dict[str, str]) -> None:
    """
    An environment is not rebuilt for a module that its author did not declare.
    """
    with launch("NeedsMore", **environ) as launcher:
        assert launcher.wait() == 1

    attempt = the_attempt("NeedsMore")
    assert isinstance(attempt.end, TaskFailed)
    assert (attempt.cause, attempt.end.error_type) == ("exception", "ModuleNotFoundError")
    assert len(built_in(environ)) == 1


def test_what_damages_its_own_environment_has_it_built_anew_once(environ: dict[str, str], tmp_path: Path) -> None:
    """
    An environment that its own task damages is rebuilt once; later attempts do not rebuild it.
    """
    spoiling = "with open(__file__, 'a') as file: file.write('# more\\n')\nraise ImportError('as ever')\n"
    make_wheel(
        tmp_path / "wheels",
        "tiny-pipeline",
        "2.0",
        files={"tiny_pipeline/__init__.py": "", "tiny_pipeline/tasks.py": spoiling},
    )
    for attempt in range(2):
        with launch(
            "Tiny", **{**environ, "DKIST_CORE_VERSION": "2.0", "DKIST_CORE_RUN_ID": f"manual__{attempt}"}
        ) as launcher:
            assert launcher.wait() == 1, launcher.lines

    assert max(path.suffix for path in built_in(environ)) == ".2"
    assert any("was installed again for the same reason before" in line for line in launcher.lines)
    causes = [event.cause for _, event in journal_rows() if isinstance(event, TaskFailed)]
    assert causes == ["exception", "exception"]


def test_an_environment_in_use_is_not_pruned_though_its_launcher_is_gone(environ: dict[str, str]) -> None:
    """
    The task's process holds the lock of its environment, too, and holds it until its end.
    """
    prune = [sys.executable, "-m", "dkist_processing_core.cli", "environments", "prune", "--max-size", "0"]
    environment = {**os.environ, "DKIST_CORE_ENVIRONMENTS_DIR": environ["DKIST_CORE_ENVIRONMENTS_DIR"]}
    with launch("Tiny", **environ, TINY_WAITS="1") as launcher:
        launcher.wait_for_line("in ")
        subprocess.run(prune, env=environment, check=True, capture_output=True)
        assert len(built_in(environ)) == 1
        launcher.process.kill()

    def is_gone() -> bool:
        subprocess.run(prune, env=environment, check=True, capture_output=True)
        return built_in(environ) == []

    wait_until(is_gone)


def test_a_launcher_that_is_terminated_while_it_builds_reports_it(
    environ: dict[str, str], black_hole: BlackHole
) -> None:
    """
    A terminated launcher ends the installer, which waits for an index that does not answer, and the next launcher
    builds.
    """
    locks = Path(environ["DKIST_CORE_ENVIRONMENTS_DIR"])
    index = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": f"http://127.0.0.1:{black_hole.port}/simple"}
    with launch("Tiny", **{**environ, **index, "PIP_FIND_LINKS": ""}) as launcher:
        wait_until(lambda: any(locks.glob("*.lock")))
        launcher.process.terminate()
        assert launcher.wait() == 1

    attempt = the_attempt("Tiny")
    assert (attempt.cause, attempt.started_at) == ("terminated", None)
    with launch("Tiny", **environ, DKIST_CORE_RUN_ID="manual__2") as launcher:
        assert launcher.wait() == 0, launcher.lines
