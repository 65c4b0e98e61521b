"""
The deployed settings for Airflow: they can be read, exist in Airflow, fit the queues, and hold no secret. Not here: an
Airflow that runs workflows with them (tests/airflow).
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from dkist_processing_core import ResourceQueue
from tests.services.airflow import CONFIG, ENVIRONMENT, read_settings, require_airflow

FILES = sorted(CONFIG.glob("*.env"))
POOLS = json.loads((CONFIG / "pools.json").read_text())
README = (CONFIG / "README.md").read_text()
EXECUTORS = ["local-executor", "celery-executor"]

# Settings that identify a deployment or grant access, by the names of Airflow's settings.
SECRET = re.compile(r"(SECRET|PASSWORD|_KEY|BROKER_URL|RESULT_BACKEND|SQL_ALCHEMY_CONN)$")


@pytest.mark.airflow
def test_every_setting_exists_in_airflow(tmp_path: Path) -> None:
    """
    Airflow would ignore an unknown setting without a message.
    """
    require_airflow()
    listed = subprocess.run(
        [ENVIRONMENT / "bin" / "airflow", "config", "list", "--defaults"],
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    known = set(re.findall(r"^# Variable: (\S+)$", listed.stdout, flags=re.MULTILINE))

    unknown = {name for file in FILES for name in read_settings(file)} - known

    assert known
    assert unknown == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_is_a_list_of_settings(file: Path) -> None:
    """
    Systemd and container runtimes read it equally: no quotes, no spaces around names, no name twice.
    """
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]

    odd = [line for line in lines if not re.fullmatch(r"AIRFLOW__[A-Z0-9_]+__[A-Z0-9_]+=[^\s\"'](?:.*[^\s\"'])?", line)]

    assert odd == []
    assert len(lines) == len(read_settings(file)) > 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_setting_has_its_reason_above(file: Path) -> None:
    """
    A reader of a setting first learns its reason; two settings that belong together share a reason.
    """
    groups = file.read_text().split("\n\n", 1)[1].splitlines()

    without = [
        line for before, line in zip(["", *groups], groups, strict=False) if line.startswith("AIRFLOW") and not before
    ]

    assert without == []


@pytest.mark.parametrize("executor", EXECUTORS)
def test_executors_file_says_nothing_that_common_says(executor: str) -> None:
    """
    The order in which the two files are read does not matter.
    """
    common = read_settings(CONFIG / "common.env")

    assert not common.keys() & read_settings(CONFIG / f"{executor}.env").keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_holds_no_secret_and_no_host(file: Path) -> None:
    """
    Each secret, and each value that differs between deployments, is an obvious placeholder.
    """
    settings = read_settings(file)

    given = [name for name, value in settings.items() if SECRET.search(name) and "REPLACE" not in value]
    hosts = {host for value in settings.values() for host in re.findall(r"(?:://|@)(?:[^/@]*@)?([^/:@]+)", value)}

    assert given == []
    assert {host for host in hosts if not host.endswith(".example")} == set()


def test_every_queue_has_its_pool_and_no_other_is_there() -> None:
    """
    An exported task names the pool of its queue, and would wait without end for a missing one.
    """
    assert set(POOLS) == {f"{queue}_pool" for queue in ResourceQueue}


@pytest.mark.parametrize("pool", sorted(POOLS))
def test_pool_is_what_the_import_takes(pool: str) -> None:
    """
    The command skips a pool without slots or description, with only a message.
    """
    assert POOLS[pool].keys() == {"slots", "description", "include_deferred"}
    assert POOLS[pool]["slots"] > 0


def test_airflows_own_pool_keeps_its_slots() -> None:
    """
    The queue `default` has Airflow's own pool, which the import changes for every DAG: it keeps Airflow's size.
    """
    assert POOLS["default_pool"]["slots"] == 128


@pytest.mark.parametrize("queue", ResourceQueue)
def test_readme_starts_a_worker_for_every_queue(queue: ResourceQueue) -> None:
    """
    The tasks of a queue without a worker fail after an hour.
    """
    assert re.search(rf"airflow celery worker --queues {queue} ", README)


def test_readme_names_every_file() -> None:
    """
    It explains each file of the folder.
    """
    others = {file.name for file in CONFIG.iterdir()} - {"README.md"}

    assert {name for name in others if f"`{name}`" not in README} == set()
