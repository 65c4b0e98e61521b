"""
Real processes that share an inbox and are killed at random moments.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable

import pytest
from sqlalchemy import text

from dkist_processing_core.inbox import Database
from tests.inbox.worker import ROWS, RUNS

SEED = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))
KILLS = 6


def start(url: str) -> subprocess.Popen[bytes]:
    """
    Start a worker, and return when it begins to work.
    """
    worker = subprocess.Popen([sys.executable, "-m", "tests.inbox.worker", url], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    return worker


def test_kills_lose_nothing_and_repeat_nothing(
    database: Database, request: pytest.FixtureRequest, tell: Callable[[str], None]
) -> None:
    """
    Each effect is there once, and in order within its run, whatever was interrupted.
    """
    tell(f"KILL_SEED={SEED}")
    chance = random.Random(SEED)
    url = request.getfixturevalue("inbox_url") if database.dialect == "postgresql" else ""
    with database.transaction() as transaction:
        transaction.execute(text("DROP TABLE IF EXISTS killed_effect"))
        key = "SERIAL" if url else "INTEGER"
        transaction.execute(text(f"CREATE TABLE killed_effect (at {key} PRIMARY KEY, run TEXT, number INTEGER)"))

    workers = [start(url), start(url)]
    for _ in range(KILLS):
        victim = chance.randrange(2)
        try:
            workers[victim].wait(chance.uniform(0, 0.15))
        except subprocess.TimeoutExpired:
            workers[victim].kill()
        workers[victim].communicate()
        workers[victim] = start(url)
    for worker in workers:
        worker.communicate(timeout=60)

    with database.reading() as connection:
        found = connection.execute(text("SELECT run, number FROM killed_effect ORDER BY at")).all()
    by_run = {str(run): [number for of, number in found if of == str(run)] for run in range(RUNS)}
    assert [worker.returncode for worker in workers] == [0, 0]
    assert by_run == {str(run): list(range(run, ROWS, RUNS)) for run in range(RUNS)}
