"""
The effects of a handler in the database of its inbox.
"""

from sqlalchemy import Connection, create_engine, text

from dkist_processing_core.events import Event, TaskProgressed


class Effects:
    """
    The rows that handlers have written, in the order of their commits.
    """

    def __init__(self, url: str) -> None:
        """
        Store the address of the database, which has a table for them.
        """
        self.url = url
        self._engine = create_engine(url)

    @staticmethod
    def take(transaction: Connection, event: Event) -> None:
        """
        Write the effect of an event, numbered by the database.
        """
        transaction.execute(
            text("INSERT INTO effect SELECT count(*), CAST(:run AS TEXT), CAST(:event AS TEXT) FROM effect"),
            {"run": event.run_id, "event": _name_of(event)},
        )

    @property
    def events(self) -> list[str]:
        """
        The names of the events that had an effect, in the order of their commits.
        """
        with self._engine.connect() as connection:
            return list(connection.scalars(text("SELECT event FROM effect ORDER BY seq")))

    def of_state(self, state: str) -> list[tuple[str, int, str | None]]:
        """
        Return the task, the number of failures, and the reason of each row in a state.
        """
        query = text("SELECT task, tries, reason FROM dkist_core_inbox WHERE state = :state ORDER BY seq")
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query, {"state": state})]

    @property
    def failures(self) -> str:
        """
        All that the rows of failed events state about their failures.
        """
        query = text("SELECT error_type, error_message, stack, reason FROM dkist_core_inbox WHERE tries > 0")
        with self._engine.connect() as connection:
            return "\n".join(str(part) for row in connection.execute(query) for part in row)

    @property
    def idle_in_transaction(self) -> int:
        """
        The number of sessions on PostgreSQL that keep a transaction open and do nothing in it.
        """
        if self.url.startswith("sqlite"):
            return 0
        query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = :name"
        with self._engine.connect() as connection:
            return int(connection.execute(text(query), {"name": self._engine.url.database}).scalar_one())

    def execute(self, statement: str) -> None:
        """
        Execute a statement.
        """
        with self._engine.begin() as connection:
            connection.execute(text(statement))

    def close(self) -> None:
        """
        Close the connections.
        """
        self._engine.dispose()


def _name_of(event: Event) -> str:
    task = getattr(event, "task_name", "")
    return f"{task} {event.sequence}" if isinstance(event, TaskProgressed) else task
