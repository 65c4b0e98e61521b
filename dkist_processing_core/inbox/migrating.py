"""
The tables of the inbox are made and migrated when a database is opened, by one process at a time.

Not here: the steps (migrations).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from dkist_processing_core.errors import InboxMissingError, InboxVersionError

HEAD = "0013"
"""The newest revision of this release."""
VERSION_TABLE = "dkist_core_version"
_SCRIPTS = Path(__file__).with_name("migrations")
# The key of the advisory lock that a migrator holds on PostgreSQL; on SQLite it is the only writer.
_LOCK = 0x646B697374  # "dkist"
_Connecting = Callable[[], AbstractContextManager[Connection]]


def migrate(where: str, reading: _Connecting, transaction: _Connecting) -> None:
    """
    Make or migrate the tables in one transaction: a migration that is killed leaves no trace.

    Raises:
        InboxVersionError: A newer release has migrated them; they are not changed.
    """
    with reading() as connection:
        if _version(connection) == HEAD:
            return
    with transaction() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        upgrade(connection, where)


def check(where: str, reading: _Connecting) -> None:
    """
    Check that the tables are those of this release. Nothing is changed.

    Raises:
        InboxMissingError: There are none.
        InboxVersionError: They are those of another release, whose consumers may use them now.
    """
    with reading() as connection:
        found = _version(connection)
    if found is None:
        msg = f"there is no inbox {where}"
        raise InboxMissingError(msg)
    if found != HEAD:
        msg = (
            f"the tables of the inbox {where} have the version {found}, expected {HEAD}: nothing was changed; use the "
            "release of the consumers. The next start of a consumer or of `dkist-core collect` of this release "
            "migrates those of an earlier one"
        )
        raise InboxVersionError(msg)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return found


def upgrade(connection: Connection, where: str, revision: str = HEAD) -> None:
    """
    Make or migrate the tables up to a revision.

    Raises:
        InboxVersionError: A newer release has migrated them; they are not changed.
    """
    # The import takes a tenth of a second, and most starts find the tables as they should be.
    from alembic.operations import Operations  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory(str(_SCRIPTS))
    found = _version(connection)
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        msg = (
            f"the tables of the inbox {where} have the version {found}, expected {HEAD} or an earlier one: "
            "a newer release has migrated them; use that release, or another database"
        )
        raise InboxVersionError(msg)
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "transactional_ddl": True,
            "fn": lambda found, _: scripts._upgrade_revs(revision, found),  # noqa: SLF001 - as alembic.command does
        },
    )
    with Operations.context(context):
        context.run_migrations()
