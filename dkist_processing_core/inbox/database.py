"""
The database of inboxes: SQLite beside the journals by default, PostgreSQL by its URL.

It is long because it has the addresses, connections and transactions of both kinds. Not here: its tables
(tables), and how they are made and changed (migrating).
"""

import ctypes
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self, cast

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dkist_processing_core.errors import (
    ConfigurationError,
    InboxError,
    InboxLostError,
    InboxMissingError,
    InboxUnavailableError,
)
from dkist_processing_core.inbox.faults import converted, explained, is_outage, is_passing, refusal, unavailable
from dkist_processing_core.inbox.lending import ENDED, IS_LENT, SEAL_ON_SQLITE
from dkist_processing_core.inbox.migrating import check, migrate
from dkist_processing_core.inbox.sessions import IS_READING, prepare
from dkist_processing_core.journal.place import INBOX_FILE, open_folder, place
from dkist_processing_core.process.descriptors import HeldDescriptors
from dkist_processing_core.process.trusted_files import ClosedAfterwards, open_file
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text.redaction import secrets_of

# How long a transaction on SQLite waits for one of another process.
_BUSY_SECONDS = 30.0
# A consumer's lock ends with its connection, so a host that disappears must be noticed on both sides.
_CONNECTION_SECONDS = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_SERVER_SETTINGS = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
# Errors of a path that no retry changes. Others, such as a full disk, are waited for.
_LASTING = {
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EROFS,
}
# Where errors are printed, a user in a URL is taken for a secret.
_SERVER = "postgresql://HOST/DATABASE with USER:PASSWORD@ before HOST"
_EXPECTED = f"expected sqlite:///FILE or {_SERVER}"


class Database:
    """An open database with the inbox's tables. Its connections may be used by several threads."""

    def __init__(self, engine: Engine, where: str, file: Path | None) -> None:
        """Store an engine; `file` is that of SQLite."""
        self.engine = engine
        self.where = where
        """The address, without the password."""
        self.file = file
        self.secrets: tuple[str, ...] = ()
        """What no text of a failure may show: the secrets of the settings, and the password of the address."""
        # Code that closes descriptors by number, as a daemon does at its start, closes this one as well.
        self._descriptor = os.open("/", os.O_PATH | os.O_CLOEXEC)
        self._held = HeldDescriptors([self._descriptor])
        self._writing = threading.Lock()
        # The connection that holds this lock. The driver's own connection may be lost meanwhile.
        self._writer: Connection | None = None
        event.listen(engine, "handle_error", self._convert, retval=True)
        if file is not None:
            event.listen(engine, "connect", _set_up)
            event.listen(engine, "before_cursor_execute", self._begin)
        else:
            prepare(engine)

    @classmethod
    def open(cls, url: str | None, settings: Settings) -> Self:
        """
        Return a database whose tables are those of this release, made or migrated if necessary.

        Args:
            url: An address in SQLAlchemy's form; None means that of the setting `DKIST_CORE_INBOX`, or the file
                `inbox.db` beside the journals.
            settings: The settings of this process.

        Raises:
            ConfigurationError: The address is none of SQLite or PostgreSQL, or names what cannot be used.
            InboxUnavailableError: The database cannot be reached now.
            InboxVersionError: A newer release has migrated the tables.
            JournalFolderError: There is no folder for journals.
        """
        database = cls._named(url, settings, is_made=True)
        with database._opening():  # noqa: SLF001 - of this class
            migrate(database.where, database.reading, database.transaction)
        return database

    @classmethod
    def open_existing(cls, url: str | None, settings: Settings) -> Self:
        """
        Return a database to look at, whose tables are neither made nor migrated: see `open`.

        Raises:
            InboxMissingError: There is no such file, or no inbox in it.
            InboxVersionError: The tables are those of another release.
        """
        database = cls._named(url, settings, is_made=False)
        with database._opening():  # noqa: SLF001 - of this class
            check(database.where, database.reading)
        return database

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Run the first statements on the database, which is closed if they fail."""
        try:
            with explained(self.where):
                yield
        except BaseException as error:
            self.close()
            if isinstance(error, InboxError) and self.file is None and (reason := refusal(error)):
                msg = (
                    f"the inbox {self.where} cannot be used: {reason}; expected a database that exists, and a role "
                    f"that may use it, as in {_SERVER}"
                )
                raise ConfigurationError(msg) from error
            raise

    @classmethod
    def _named(cls, url: str | None, settings: Settings, *, is_made: bool) -> Self:
        address = url or settings.dkist_core_inbox
        try:
            if address:
                database = cls._of(address, is_made=is_made)
            else:
                folder = open_folder(place(settings)) if is_made else place(settings).folder
                database = cls._at(folder / INBOX_FILE, is_ours=True, is_made=is_made)
        except ConfigurationError as error:
            if not address or address == url:
                raise
            msg = f"{error}; it comes from the setting DKIST_CORE_INBOX"
            raise ConfigurationError(msg) from error
        database.secrets = (*secrets_in(settings), *_secrets_of(address))
        return database

    @classmethod
    def _of(cls, address: str, *, is_made: bool = True) -> Self:
        try:
            url = make_url(address)
        except (ArgumentError, ValueError):
            # The text may hold a password, and is not shown.
            msg = f"the inbox's address is no URL, {_EXPECTED}"
            raise ConfigurationError(msg) from None
        match url.drivername.lower():
            case "sqlite" | "sqlite+pysqlite":
                return cls._at(_file_of(url), is_ours=False, is_made=is_made)
            case "postgresql" | "postgres" | "postgresql+psycopg":
                return cls._on_server(url.set(drivername="postgresql+psycopg"))
        msg = f"the inbox's address begins with {url.drivername!r}, {_EXPECTED}"
        raise ConfigurationError(msg)

    @classmethod
    def _at(cls, file: Path, *, is_ours: bool, is_made: bool = True) -> Self:
        where = f"sqlite:///{file}"
        try:
            if not is_made and not file.exists():
                msg = f"there is no inbox {file}"
                raise InboxMissingError(msg)
            # Only its path is opened: closing another descriptor would release the locks that SQLite holds for other
            # connections of this process, and the last process would remove the log under them.
            # The mode of a file that its user has named is the user's.
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, "found a folder")
            with ClosedAfterwards(open_file(file, os.O_CREAT | os.O_PATH, sets_mode=is_ours)):
                pass
            _check_access(file)
        except OSError as error:
            reason = error.strerror or error
            if error.errno not in _LASTING and not isinstance(error, PermissionError):
                msg = f"the inbox {where} cannot be opened: {reason}"
                raise InboxUnavailableError(msg) from error
            msg = f"the inbox {where} cannot be used: {reason}"
            if error.errno is not None:
                msg += (
                    f"; expected a file that this user may read and write, or a new one in such a folder: {file.parent}"
                )
            raise ConfigurationError(msg) from error
        engine = create_engine(
            URL.create("sqlite", database=str(file)),
            connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None, "check_same_thread": False},
            max_overflow=-1,
            hide_parameters=True,
        )
        if is_made:
            event.listen(engine, "connect", _use_log)
        return cls(engine, where, file)

    @classmethod
    def _on_server(cls, url: URL) -> Self:
        where = URL.create(
            "postgresql", username=url.username, host=url.host, port=url.port, database=url.database
        ).render_as_string()
        given: dict[str, Any] = dict(url.query)
        options = {**_CONNECTION_SECONDS, "options": _SERVER_SETTINGS, "application_name": "dkist-core inbox", **given}
        engine = create_engine(
            url.set(query={}),
            connect_args=options,
            # The driver begins no transaction by itself.
            isolation_level="AUTOCOMMIT",
            max_overflow=-1,
            pool_recycle=3600,
            hide_parameters=True,
        )
        return cls(engine, where, None)

    def __repr__(self) -> str:
        """Return the address, without the password."""
        return f"Database({self.where!r})"

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """The kind of the database."""
        return cast("Literal['sqlite', 'postgresql']", self.engine.dialect.name)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """
        Run a transaction: committed at the end, rolled back at an exception.

        On SQLite it takes the lock to write at its first statement.

        Raises:
            InboxUnavailableError: The database cannot be reached or written now.
            InboxLostError: This process cannot use it any more.
        """
        self.check()
        with explained(self.where):
            connection = self.engine.connect()
        try:
            root = connection.begin()
            try:
                yield connection
            except BaseException:
                # The connection may be lost, and with it the transaction: the error that was raised is the reason.
                with suppress(InboxError, SQLAlchemyError):
                    connection.rollback()
                raise
            self.check()
            try:
                with explained(self.where):
                    root.commit()
            except BaseException:
                # SQLAlchemy takes the transaction for ended, and would keep it open for the next use of it.
                connection.invalidate()
                raise
        finally:
            connection.close()
            if self._writer is connection:
                self._writer = None
                self._writing.release()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run statements that only read, each by itself: on SQLite they wait for no transaction."""
        self.check()
        with explained(self.where), self.engine.connect() as connection:
            # Of the driver's connection, since SQLAlchemy begins with that alone.
            info = connection.info
            info[IS_READING] = True
            try:
                yield connection
            finally:
                info.pop(IS_READING, None)

    def _convert(self, context: ExceptionContext) -> InboxError | None:
        """
        Convert errors of the database itself; in the transaction of a handler, only those of an outage.

        A handler may use other databases too: their errors are its own.
        """
        self.check()
        error, connection = context.sqlalchemy_exception, context.connection
        is_lent = connection is not None and connection.get_execution_options().get(IS_LENT)
        passes = is_outage if is_lent else is_passing
        return converted(self.where, error) if error is not None and passes(error) else None

    def _begin(self, connection: Connection, cursor: Any, *_: object) -> None:
        """Begin the transaction on SQLite: the driver would do that later, and not for each kind of statement."""
        if connection.info.get(IS_READING) or cursor.connection.in_transaction:
            return
        if self._writer is connection:
            raise InboxError(ENDED)
        if not self._writing.acquire(timeout=_BUSY_SECONDS):
            msg = f"the inbox {self.where} is locked: another transaction of this process lasts over {_BUSY_SECONDS} s"
            raise InboxUnavailableError(msg)
        try:
            cursor.execute("BEGIN IMMEDIATE")
            if connection.get_execution_options().get(IS_LENT):
                cursor.execute(SEAL_ON_SQLITE)
        except BaseException as error:
            self._writing.release()
            self.check()
            if isinstance(error, sqlite3.OperationalError):
                raise InboxUnavailableError(unavailable(self.where, error)) from error
            raise
        self._writer = connection

    def check(self) -> None:
        """
        Check that no other code of this process has closed its descriptors.

        Raises:
            InboxLostError: It has. Another file may have their numbers, and must not be written or closed.
        """
        if not self._held.are_ours:
            msg = (
                f"the inbox {self.where} can no longer be used by this process: other code has closed its descriptors, "
                "such as os.closerange in a handler; expected handlers that close only what they have opened; "
                "what was not marked as done is handled by the next process"
            )
            raise InboxLostError(msg)

    def close(self) -> None:
        """Close the connections that are not in use. A second call does nothing."""
        if not self._held.identities:
            return
        if self._held.are_ours:
            os.close(self._descriptor)
            self._held = HeldDescriptors()
            self.engine.dispose()
        else:
            # Its connections would close descriptors that may now belong to other files, also at the exit of Python.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.engine))


def _secrets_of(address: str | None) -> list[str]:
    url = make_url(address or "sqlite://")
    options = {name: value for name, value in url.query.items() if isinstance(value, str)}
    return secrets_of({"password": url.password or "", **options})


def _file_of(url: URL) -> Path:
    """
    Return the file that an address of SQLite names.

    Raises:
        ConfigurationError: It names none, or has other parts, which would have no effect.
    """
    if url.host or url.username or not url.database or url.database == ":memory:":
        msg = f"the inbox's address names no file, {_EXPECTED}"
        raise ConfigurationError(msg)
    if url.query:
        options = ", ".join(map(repr, url.query))
        msg = f"the inbox's address sqlite:///{url.database} has the options {options}, expected none: sqlite:///FILE"
        raise ConfigurationError(msg)
    return Path(url.database).absolute()


def _check_access(file: Path) -> None:
    """Raise a PermissionError unless this user may write the file and new ones beside it, as SQLite does."""
    for path in (file, file.parent):
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, f"this user may not read and write {path}")


def _use_log(connection: sqlite3.Connection, _: object) -> None:
    """Let readers and a writer of a file not wait for each other. The file keeps this mode."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    """Make a commit survive a power cut: a message is acknowledged after its commit. Read and write few pages."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA synchronous=FULL")
        # Four times the default: a page that changes again and again is written back to the file less often.
        cursor.execute("PRAGMA wal_autocheckpoint=4000")
        # In KiB, as a negative number: four times the default, in which the indexes of a large store have no room.
        cursor.execute("PRAGMA cache_size=-8000")
        # If SQLite is built to overwrite deleted data, a deletion costs as much as an insertion. On a page that changes
        # in any case, it still does.
        cursor.execute("PRAGMA secure_delete=FAST")
