"""
One SQLite file that several parts of a process use at the same time: its locks are those of all of them.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.locks import LockedFile
from dkist_processing_core.settings.reading import read_settings
from tests.running import run_python

_THREADS = 8
_OTHER_PROCESS = """
import sqlite3
connection = sqlite3.connect({file!r})
connection.execute("SELECT count(*) FROM dkist_core_inbox").fetchall()
connection.close()
"""


def test_a_second_database_releases_no_lock_of_the_first() -> None:
    """
    Another process that closes the file last would remove the log, which the connections of this process still use.
    """
    with closing(Database.open(None, read_settings())) as first:
        with first.transaction() as transaction:
            transaction.execute(text("CREATE TABLE effect (seq INTEGER)"))
        Database.open(None, read_settings()).close()
        log = Path(f"{first.file}-wal")
        before = log.stat().st_ino
        ended = run_python(_OTHER_PROCESS.format(file=str(first.file)), {})

        assert (ended.returncode, ended.stderr) == (0, "")
        assert log.exists()
        assert log.stat().st_ino == before


def test_threads_that_acquire_a_lock_at_the_same_time_all_hold_it() -> None:
    """
    The intake and the workers of a consumer ask for its lock when they begin.
    """
    with closing(Database.open(None, read_settings())) as database, ThreadPoolExecutor(_THREADS) as threads:
        for number in range(50):
            lock, start = LockedFile(database, f"consumer {number}"), threading.Barrier(_THREADS)

            def acquired(lock: LockedFile = lock, start: threading.Barrier = start) -> bool:
                start.wait()
                return lock.acquire()

            asked = [threads.submit(acquired) for _ in range(_THREADS)]
            found = {each.result() for each in asked}
            lock.release()

            assert found == {True}
