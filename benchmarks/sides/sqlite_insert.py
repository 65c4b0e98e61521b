"""The disk's part of `publish()`: SQLite alone, one row of the same bytes per transaction, synced or not."""

import sqlite3
import time
from pathlib import Path

from benchmarks.sides.job import Job, report


def main() -> None:
    """Insert the messages of the job."""
    job = Job.read()
    pause: float = job.options["pause"]
    first, timed = job.prepared()
    connection = sqlite3.connect(Path(job.state_dir) / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if job.options['synced'] else 'NORMAL'}")
    connection.execute("CREATE TABLE message (seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, id TEXT, body BLOB)")
    laps = []
    for number, message in enumerate([*first, *timed]):
        if pause:
            time.sleep(pause)
        lap = time.perf_counter()
        connection.execute(
            "INSERT INTO message (key, id, body) VALUES (?, ?, ?)",
            (message.routing_key, message.message_id, message.body),
        )
        if number >= len(first):
            laps.append(time.perf_counter() - lap)
    connection.close()
    report(laps=laps)


if __name__ == "__main__":
    main()
