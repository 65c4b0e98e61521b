"""
The database: its address, its tables, the transactions that handlers get, and its faults.
"""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import Error
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from dkist_processing_core.collect.store import Store
from dkist_processing_core.errors import (
    ConfigurationError,
    InboxError,
    InboxUnavailableError,
    InboxVersionError,
)
from dkist_processing_core.events import CONTENT_TYPE, encode
from dkist_processing_core.inbox import Database, Inbox, Rules
from dkist_processing_core.inbox.faults import converted
from dkist_processing_core.inbox.migrating import HEAD, VERSION_TABLE, upgrade
from dkist_processing_core.inbox.tables import metadata
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text import redact
from tests.facts import failed, finished
from tests.inbox.parts import Clock, arrival, effects, failures, opened, take_effect
from tests.running import status_of_fork
from tests.services.postgres import PostgresServer

Open = Callable[..., Inbox]


def test_the_default_is_a_file_beside_the_journals(state_dir: Path) -> None:
    """
    Only its owner may read it.
    """
    with closing(Database.open(None, read_settings())) as database:
        assert database.where == f"sqlite:///{state_dir}/inbox.db"

    assert (state_dir / "inbox.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("mysql://root:hidden@host/db", "begins with 'mysql'"),
        ("postgresql+psycopg2://root:hidden@host/db", r"begins with 'postgresql\+psycopg2'"),
        ("no address hidden", "is no URL"),
        ("sqlite://", "names no file"),
        ("sqlite://hidden/inbox.db", "names no file"),
    ],
)
def test_another_address_is_refused_without_showing_it(address: str, found: str) -> None:
    """
    The message states what is expected, and holds no password.
    """
    with pytest.raises(ConfigurationError, match=f"{found}.*expected sqlite:///FILE or postgresql://") as refused:
        Database.open(address, read_settings())

    assert "hidden" not in str(refused.value)
    # The expectation is not taken for a secret where the error is printed.
    assert redact(str(refused.value)) == str(refused.value)


def test_a_password_is_never_shown(postgres: PostgresServer) -> None:
    """
    Neither by the database nor by an error about it, wherever the address holds it.
    """
    address = f"postgresql://core@{postgres.host}:{postgres.port}/nowhere?password={postgres.password}"

    with pytest.raises(ConfigurationError, match='database "nowhere" does not exist') as missing:
        Database.open(address, read_settings())

    assert str(missing.value).startswith(f"the inbox postgresql://core@{postgres.host}:{postgres.port}/nowhere cannot")
    assert postgres.password not in "".join(map(repr, [missing.value, missing.value.__cause__]))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"username": "stranger"}, 'authentication failed for user "stranger"'),
        ({"password": "hidden"}, 'authentication failed for user "core"'),
        ({"password": ""}, "no password supplied"),
        ({"query": {"timeout": "hidden"}}, 'invalid connection option "timeout"'),
        ({"query": {"sslmode": "always"}}, 'invalid sslmode value: "always"'),
        ({"query": {"sslmode": "require"}}, "server does not support SSL"),
    ],
)
def test_an_address_that_the_server_refuses_is_not_waited_for(
    postgres: PostgresServer, change: dict[str, Any], found: str
) -> None:
    """
    One sentence has what was found, where, and what is expected; no password is in it.
    """
    address = make_url(postgres.url("postgres", driver="psycopg")).set(**change)

    with pytest.raises(
        ConfigurationError, match=f"the inbox postgresql://.*:{postgres.port}.*{found}.*; expected a database"
    ) as refused:
        Database.open(address.render_as_string(hide_password=False), read_settings())

    assert "\n" not in str(refused.value)
    # Otherwise the refusal could be recognised by it, in any language of the server.
    assert state_of(refused.value) is None
    assert not {postgres.password, "hidden"} & set(re.findall(r"\w+", str(refused.value)))


def state_of(error: BaseException) -> str | None:
    """
    Return the SQLSTATE of the driver's error that has led to an error.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, Error)
    return error.sqlstate


@pytest.mark.parametrize("scheme", ["postgres", "POSTGRESQL", "postgresql", "PostgreSQL+psycopg"])
def test_an_address_has_its_usual_spellings(postgres: PostgresServer, scheme: str) -> None:
    """
    Schemes are the same in capital and small letters, and other programs shorten this one.
    """
    address = f"{scheme}://core:{postgres.password}@{postgres.host}:{postgres.port}/postgres"

    with closing(Database._of(address)) as database, database.reading() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", "found a folder"),
        ("nowhere/inbox.db", "No such file or directory"),
        ("file/inbox.db", "Not a directory"),
        ("pipe", "found something else"),
        ("n" * 300, "File name too long"),
    ],
)
def test_a_path_that_cannot_be_a_database_is_not_waited_for(tmp_path: Path, path: str, found: str) -> None:
    """
    One sentence has what was found, where, and what is expected.
    """
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(
        ConfigurationError, match=rf"the inbox sqlite:///{tmp_path / path} cannot be used: .*{found}.* expected a"
    ):
        Database.open(f"sqlite:///{tmp_path / path}", read_settings())


@pytest.mark.parametrize("protected", ["folder", "file"])
def test_a_file_that_this_user_may_not_write_is_not_waited_for(protected: str) -> None:
    """
    SQLite also needs files beside it.
    """

    def open_it() -> None:
        if os.getuid() == 0:
            os.setuid(65_534)
        with pytest.raises(ConfigurationError, match=f"may not read and write {folder}.*; expected a file"):
            Database._at(file, is_ours=False)

    # Another user cannot reach the usual folder of a test.
    with TemporaryDirectory() as name:
        folder, file = Path(name), Path(name, "inbox.db")
        file.touch()
        folder.chmod(0o555 if protected == "folder" else 0o777)
        file.chmod(0o444 if protected == "file" else 0o666)
        try:
            assert status_of_fork(open_it) == 0
        finally:
            folder.chmod(0o700)


@pytest.mark.parametrize("query", ["mode=ro", "timeout=5&cache=shared", "uri=true"])
def test_an_option_of_sqlite_is_refused(tmp_path: Path, query: str) -> None:
    """
    It would have no effect.
    """
    with pytest.raises(ConfigurationError, match=r"inbox.db has the options '.*', expected none: sqlite:///FILE"):
        Database.open(f"sqlite:///{tmp_path}/inbox.db?{query}", read_settings())

    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_one_sentence(refusing_port: int) -> None:
    """
    A consumer waits for it.
    """
    with pytest.raises(InboxUnavailableError, match=r"cannot be used now: connection failed.*refused") as refused:
        Database.open(f"postgresql://core:hidden@127.0.0.1:{refusing_port}/db", read_settings())

    assert "\n" not in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_the_migrations_make_the_tables_of_this_release(database: Database) -> None:
    """
    A change of a table needs a migration.
    """
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
            },
        )

        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD


def test_every_table_has_the_prefix(database: Database) -> None:
    """
    They may be in a database of the user.
    """
    with database.reading() as connection:
        names = set(connection.dialect.get_table_names(connection)) - {"effect"}

    assert names >= {*metadata.tables, VERSION_TABLE}
    assert [name for name in names if not name.startswith("dkist_core_")] == []


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def empty(request: pytest.FixtureRequest) -> Any:
    """
    The address of a database without tables.
    """
    if request.param == "sqlite":
        yield None
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    server.create_database("empty")
    yield server.url("empty", driver="psycopg")
    server.drop_database("empty")


def test_a_newer_schema_is_refused_untouched(empty: str | None) -> None:
    """
    A newer release has migrated the tables, and goes on with them.
    """
    with closing(Database.open(empty, read_settings())) as database, database.transaction() as transaction:
        transaction.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        transaction.execute(text("ALTER TABLE dkist_core_inbox ADD COLUMN newer INTEGER"))

    with pytest.raises(InboxVersionError, match=f"have the version 9999, expected {HEAD} or an earlier one"):
        Database.open(empty, read_settings())


def test_rows_of_an_earlier_release_are_found_by_this_one(empty: str | None) -> None:
    """
    A row that was due at once is, whatever the clock shows now, and texts of any length are known by their digests.
    """
    long = "r" * 300
    lost = failed("T" * 300, run_id=long, cause="lost", reported_by="engine", provisional=True)
    inserted = "INSERT INTO dkist_core_inbox (consumer, key, name, workflow, version, run_id, task, attempt, reporter, "
    inserted += (
        "provisional, is_end, is_final, body, content_type, received_at, state, due_at) VALUES ('consumer', :id, "
    )
    inserted += ":name, 'W', '1', :run, :task, 1, 'task', :provisional, TRUE, TRUE, :body, :type, 0, 'waiting', 1e12)"
    run = "INSERT INTO dkist_core_run (workflow_name, workflow_version, run_id, characters, ending, received_at) "
    run += "VALUES ('W', '1', :run, 'r', 'r', 0)"
    # The migrations of an earlier release, on a database that has no tables.
    database = (
        Database._of(empty)
        if empty
        else Database._at(Path(os.environ["DKIST_CORE_STATE_DIR"], "inbox.db"), is_ours=True)
    )
    with closing(database), database.transaction() as transaction:
        upgrade(transaction, database.where, "0003")
        for event in (failed("A"), lost):
            values: dict[str, Any] = {"id": event.id, "name": event.name, "run": event.run_id, "task": event.task_name}
            values |= {"provisional": event.provisional, "body": encode(event), "type": CONTENT_TYPE}
            transaction.execute(text(inserted), values)
        transaction.execute(text(run), {"run": long})

    with (
        closing(Database.open(empty, read_settings())) as database,
        closing(Inbox(database, Rules("consumer"))) as inbox,
    ):
        stored = inbox.store([arrival(finished(lost.task_name, run_id=long), is_wanted=False)])
        rows = inbox.claim(9)
        with database.transaction() as transaction:
            Store().add(transaction, lost)
            runs = transaction.execute(text("SELECT run_id FROM dkist_core_run")).all()
            unique = inspect(transaction).get_unique_constraints("dkist_core_run")

    assert stored.new == 1
    assert [row.event for row in rows] == [failed("A")]
    assert runs == [(long,)]
    assert [each["column_names"] for each in unique] == [["identity"]]


def test_processes_that_start_together_make_the_tables_once(empty: str | None) -> None:
    """
    The others wait for the first one.
    """
    program = """
import sys
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings
print("ready", flush=True)
sys.stdin.readline()
Database.open(sys.argv[1] or None, read_settings()).close()
"""
    starts = [
        subprocess.Popen([sys.executable, "-c", program, empty or ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for each in starts:
        assert each.stdout is not None
        assert each.stdout.readline() == b"ready\n"
    for each in starts:
        each.communicate(b"\n", timeout=300)

    assert [each.returncode for each in starts] == [0, 0, 0]


def test_a_killed_migration_completes_at_the_next_start(empty: str | None) -> None:
    """
    Each statement of it may be the last one: nothing of it remains.
    """
    program = """
import os, signal, sys
from sqlalchemy import Engine, event
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings

seen = 0
@event.listens_for(Engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    global seen
    seen += statement.lstrip().startswith(("CREATE", "INSERT", "ALTER"))
    if seen == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
Database.open(sys.argv[1] or None, read_settings())
"""
    killed = [
        subprocess.run([sys.executable, "-c", program, empty or "", str(number)], check=False).returncode
        for number in (1, 5, 13, 37)
    ]

    with opened(empty) as database, closing(Inbox(database, Rules("a"))) as inbox:
        assert killed == [-9, -9, -9, -9]
        assert inbox.store(failures(1)).new == 1


@pytest.mark.parametrize("name", ["begin", "close", "commit", "rollback"])
def test_a_handler_may_not_end_its_transaction(inboxes: Open, database: Database, name: str) -> None:
    """
    The inbox does, so that the effect and its mark stay together.
    """
    inbox = inboxes()
    inbox.store(failures(1))
    rows = inbox.claim(1)

    def handle(transaction: Connection) -> None:
        take_effect(transaction, rows[0])
        getattr(transaction, name)()

    with (
        pytest.raises(InboxError, match=rf"a handler called {name}\(\) of its transaction.*begin_nested\(\)"),
        inbox.handling(rows) as transaction,
    ):
        handle(transaction)

    assert effects(database) == []
    assert inbox.counts().claimed == 1


def test_a_handler_that_ends_its_transaction_by_other_means_is_found(inboxes: Open, database: Database) -> None:
    """
    Its row is not marked.
    """
    inbox = inboxes()
    inbox.store(failures(1))
    rows = inbox.claim(1)

    def handle(transaction: Connection) -> None:
        take_effect(transaction, rows[0])
        root = transaction.get_transaction()
        assert root is not None
        root.rollback()

    with pytest.raises(InboxError, match="was ended before the handler"), inbox.handling(rows) as given:
        handle(given)

    assert effects(database) == []


def test_a_part_of_a_transaction_may_fail(inboxes: Open, database: Database) -> None:
    """
    A savepoint is the handler's own.
    """
    inbox = inboxes()
    inbox.store(failures(2))
    rows = inbox.claim(2)

    with inbox.handling(rows) as transaction:
        take_effect(transaction, rows[0])
        part = transaction.begin_nested()
        take_effect(transaction, rows[1])
        part.rollback()

    assert effects(database) == [rows[0].seq]


def test_an_error_that_a_handler_catches_does_not_mark_its_row(inboxes: Open, database: Database) -> None:
    """
    PostgreSQL has ended the transaction then; SQLite goes on with it.
    """
    inbox = inboxes()
    inbox.store(failures(1))
    rows = inbox.claim(1)

    def handle(transaction: Connection) -> None:
        take_effect(transaction, rows[0])
        with pytest.raises(Exception, match="nowhere"):
            transaction.execute(text("INSERT INTO nowhere VALUES (1)"))

    if database.dialect == "postgresql":
        aborted = "has refused a statement: current transaction is aborted"
        with pytest.raises(InboxError, match=aborted), inbox.handling(rows) as transaction:
            handle(transaction)
        assert effects(database) == []
        return
    with inbox.handling(rows) as transaction:
        handle(transaction)
    assert effects(database) == [rows[0].seq]


def test_a_transaction_takes_one_exchange_more_at_each_end(inbox_url: str) -> None:
    """
    Each event is handled in a separate transaction, and each exchange with the server takes as long as a statement.
    """
    with opened(inbox_url) as database, TemporaryFile() as trace:
        with database.transaction() as connection:
            driver: Any = connection.connection.driver_connection
            driver.pgconn.trace(trace.fileno())
            connection.execute(text("SELECT 1"))
        with database.transaction() as connection:
            connection.execute(text("SELECT 2"))
        with database.reading() as connection:
            connection.execute(text("SELECT 3"))
        driver.pgconn.untrace()
        trace.seek(0)
        queries = re.findall(rb'\tF\t\d+\tQuery\t "(.*)"', trace.read())

    seal = b"SET LOCAL dkist_core.seal = 'whole'"
    assert queries == [b"SELECT 1", b"COMMIT", b"BEGIN; " + seal, b"SELECT 2", b"COMMIT", b"SELECT 3"]


def test_a_transaction_on_sqlite_begins_at_its_first_statement(state_dir: Path) -> None:
    """
    A handler that first asks a service does not keep others from writing; a definition of a table is a part of it.
    """
    with opened(None) as database:
        other = sqlite3.connect(state_dir / "inbox.db", timeout=0, isolation_level=None)

        def define(transaction: Connection) -> None:
            other.execute("INSERT INTO effect VALUES (1)")
            transaction.execute(text("CREATE TABLE made (a INTEGER)"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO effect VALUES (2)")
            raise KeyError("missing")

        with closing(other):
            with pytest.raises(KeyError, match="missing"), database.transaction() as transaction:
                define(transaction)
            tables = other.execute("SELECT name FROM sqlite_master WHERE name = 'made'").fetchall()

        assert tables == []
        assert effects(database) == [1]


def test_threads_share_the_one_writer_of_sqlite() -> None:
    """
    They wait for each other, and none for an error.
    """
    with opened(None) as database, closing(Inbox(database, Rules("a"))) as inbox:
        inbox.store(failures(60))
        errors: list[BaseException] = []

        def work() -> None:
            try:
                while rows := inbox.claim(3):
                    for row in rows:
                        with inbox.handling([row]) as transaction:
                            take_effect(transaction, row)
            except BaseException as error:  # noqa: BLE001 - it is shown below
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert errors == []
        assert effects(database) == list(range(1, 61))


def test_a_server_that_is_killed_and_started_again_loses_nothing() -> None:
    """
    Each use of the inbox meanwhile is one clear error; afterwards it goes on with the claims that it had.
    """
    with PostgresServer() as server:
        server.create_database("inbox")
        with opened(server.url("inbox", driver="psycopg")) as database:
            clock = Clock()
            with closing(Inbox(database, Rules("a"), clock=clock)) as inbox:
                inbox.become_intake()
                inbox.store(failures(3))
                held = inbox.claim(2)
                uses: list[Callable[[], Any]] = [
                    lambda: handle(inbox, held[0]),
                    lambda: inbox.store(failures(4)),
                    lambda: inbox.claim(1),
                    inbox.counts,
                    inbox.next_due,
                    inbox.prune,
                    lambda: inbox.fail(held[1], OSError("gone")),
                    lambda: inbox.release(held),
                ]

                def lose_the_server(transaction: Connection) -> None:
                    take_effect(transaction, held[0])
                    server.kill()
                    take_effect(transaction, held[0])

                with pytest.raises(InboxUnavailableError), inbox.handling(held[:1]) as transaction:
                    lose_the_server(transaction)
                for use in uses:
                    with pytest.raises(InboxUnavailableError, match="cannot be used now") as failed:
                        use()
                    assert "\n" not in str(failed.value)

                server.start()

                for row in held:
                    until_available(lambda row=row: handle(inbox, row))  # type: ignore[misc]
                until_available(inbox.become_intake)
                stored = until_available(lambda: inbox.store(failures(4)))
                rest = until_available(lambda: inbox.claim(9))
                assert stored.new == 1
                assert [(row.event, row.starts) for row in rest] == [(each.event, 1) for each in failures(4)[2:]]
                assert effects(database) == [1, 2]


def handle(inbox: Inbox, row: Any) -> None:
    """
    Take the effect of a row.
    """
    with inbox.handling([row]) as transaction:
        take_effect(transaction, row)


def until_available(use: Callable[[], Any]) -> Any:
    """
    Return the result of a use, as soon as each pooled connection has been found broken.
    """
    for _ in range(20):
        try:
            return use()
        except InboxUnavailableError:
            continue
    return use()


@pytest.mark.parametrize(
    ("option", "mode", "reason"),
    [
        ("default_transaction_read_only=on", "ACCESS SHARE", "read-only transaction"),
        ("statement_timeout=200", "ACCESS EXCLUSIVE", "statement timeout"),
        ("lock_timeout=50", "ACCESS EXCLUSIVE", "lock timeout"),
    ],
)
def test_a_server_that_refuses_statements_for_a_while_ends_no_consumer(
    inbox_url: str, option: str, mode: str, reason: str
) -> None:
    """
    As after a failover, or beside a long lock.
    """
    with (
        opened(inbox_url) as database,
        closing(Database.open(f"{inbox_url}?options=-c {option}", read_settings())) as limited,
    ):
        inbox = Inbox(limited, Rules("a"))
        with database.transaction() as transaction:
            transaction.execute(text(f"LOCK TABLE dkist_core_inbox IN {mode} MODE"))
            with pytest.raises(InboxUnavailableError, match=f"cannot be used now: .*{reason}"):
                inbox.store(failures(1))


def test_the_hint_of_a_driver_is_set_apart(refusing_port: int) -> None:
    """
    The text of a driver may have several lines.
    """
    with pytest.raises(InboxUnavailableError, match=r"Connection refused \(Is the server running .*\?\)$"):
        Database.open(f"postgresql://core@127.0.0.1:{refusing_port}/postgres", read_settings())


@pytest.mark.parametrize(
    ("folder", "ending"), [("/proc", "; no space is left on its disk: free some in /proc"), ("/", "")]
)
def test_a_full_disk_is_named_where_an_error_does_not_state_it(folder: str, ending: str) -> None:
    """
    SQLite reports an error of the disk if its log or its index has no space.
    """
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    where = f"sqlite:///{Path(folder, 'inbox.db')}"

    found = converted(where, OperationalError("SELECT 1", None, error))

    assert isinstance(found, InboxUnavailableError)
    assert str(found) == f"the inbox {where} cannot be used now: disk I/O error{ending}"


def test_a_full_disk_is_one_sentence_and_nothing_is_stored_by_half() -> None:
    """
    The messages stay on the bus until there is space again.
    """
    with opened(None) as database, closing(Inbox(database, Rules("a"))) as inbox:
        inbox.store(failures(3))
        (row, *_) = inbox.claim(9)
        with database.reading() as connection:
            pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        limit(database, pages + 2)
        large = failures(50, message="m" * 4000)

        with pytest.raises(InboxUnavailableError, match="cannot be used now: database or disk is full"):
            inbox.store(large)
        with pytest.raises(InboxUnavailableError, match="database or disk is full"), inbox.handling([row]) as given:
            given.execute(text("INSERT INTO effect SELECT value FROM json_each(:many)"), {"many": str([0] * 100_000)})
        limit(database, 100_000)

        handle(inbox, row)
        assert inbox.store(large).new == 47
        assert effects(database) == [row.seq]


def limit(database: Database, pages: int) -> None:
    """
    Limit the size of an SQLite file, on each pooled connection.
    """
    connections = [database.engine.connect() for _ in range(5)]
    for connection in connections:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute(f"PRAGMA max_page_count = {pages}")
    for connection in connections:
        connection.close()


def test_a_file_of_another_user_is_not_used(tmp_path: Path) -> None:
    """
    A link could lead anywhere.
    """
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")

    with pytest.raises(ConfigurationError, match=r"cannot be used: .*found a link"):
        Database.open(f"sqlite:///{tmp_path}/link.db", read_settings())

    assert os.listdir(tmp_path) == ["link.db"]  # noqa: PTH208 - names alone


def test_the_mode_of_a_file_that_its_user_has_named_is_kept(tmp_path: Path) -> None:
    """
    Others may read it; also if it turns out to be no database.
    """
    own, other = tmp_path / "own.db", tmp_path / "text"
    own.touch(0o644)
    own.chmod(0o644)
    other.write_text("no database\n" * 100)
    other.chmod(0o644)

    with closing(Database.open(f"sqlite:///{own}", read_settings())):
        assert own.stat().st_mode & 0o777 == 0o644
    with pytest.raises(InboxError, match="file is not a database"):
        Database.open(f"sqlite:///{other}", read_settings())

    assert other.stat().st_mode & 0o777 == 0o644
    assert other.read_text() == "no database\n" * 100


def test_a_database_may_be_closed_twice() -> None:
    """
    The second call closes no descriptor that now belongs to another file.
    """
    database = Database.open(None, read_settings())
    database.close()
    with Path(os.devnull).open("rb") as other:
        database.close()
        assert other.read() == b""
