"""The loop that a careful author writes by hand: a separate inbox, one event in a transaction, with psycopg."""

import json
import time

import psycopg

from benchmarks.sides.job import Job, report

_TABLES = """
    CREATE TABLE event (seq BIGSERIAL PRIMARY KEY, event_id TEXT UNIQUE, body BYTEA, done_at TIMESTAMPTZ);
    CREATE INDEX event_waiting ON event (seq) WHERE done_at IS NULL;
    CREATE TABLE effect (event_id TEXT PRIMARY KEY, workflow TEXT, run_id TEXT);
"""
_CLAIM = "SELECT seq, body FROM event WHERE done_at IS NULL ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED"
_EFFECT = "INSERT INTO effect (event_id, workflow, run_id) VALUES (%s, %s, %s)"
_DONE = "UPDATE event SET done_at = now(), body = NULL WHERE seq = %s"


def main() -> None:
    """Handle the events of the table; report the time after the warm-up."""
    job = Job.read()
    with psycopg.connect(job.options["inbox"]) as connection:
        _fill(job, connection)
        for _ in range(job.warm_up):
            handle_next(connection)
        began = time.perf_counter()
        while handle_next(connection):
            pass
        ended = time.perf_counter()
        (count,) = connection.execute("SELECT count(*) FROM effect").fetchone() or (0,)
    if count != job.warm_up + job.count:
        msg = f"{job.warm_up + job.count} events were in the table, {count} were handled"
        raise RuntimeError(msg)
    report(seconds=ended - began, count=job.count)


def handle_next(connection: psycopg.Connection) -> bool:
    """Handle the oldest event that no other process handles; return False if there is none."""
    with connection.transaction():
        found = connection.execute(_CLAIM).fetchone()
        if found is None:
            return False
        seq, body = found
        event = json.loads(body)
        data = event["data"]
        connection.execute(_EFFECT, (event["id"], data["workflowName"], data["dagRunId"]))
        connection.execute(_DONE, (seq,))
    return True


def _fill(job: Job, connection: psycopg.Connection) -> None:
    connection.execute(_TABLES)
    with connection.cursor() as cursor, cursor.copy("COPY event (event_id, body) FROM STDIN") as rows:
        for part in job.prepared():
            for message in part:
                rows.write_row((message.message_id, message.body))
    connection.commit()


if __name__ == "__main__":
    main()
