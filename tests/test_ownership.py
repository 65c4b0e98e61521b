"""
The owners of the files in a state folder: read-only commands create none, and root does not lock the user out.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp import link
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.journal.spare import spares_of
from tests.facts import finished, progressed, started

USER = 12345 if os.geteuid() == 0 else os.geteuid()
LOOKS = (
    ("doctor",),
    ("outbox", "list"),
    ("outbox", "list", "--set-aside"),
    ("outbox", "drain"),
    ("events", "list"),
    ("timeline",),
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    Yield a folder of an ordinary user that all users can reach.
    """
    path = Path(tempfile.mkdtemp(prefix="dkist-core-test-", dir="/var/tmp"))
    os.chown(path, USER, USER if os.geteuid() == 0 else -1)
    yield path
    shutil.rmtree(path)


def as_user(action: Callable[[], object], log: Path) -> None:
    """
    Call `action` in a fork with the user's id, with its warnings in a file.
    """
    # Loaded in advance: the user may not have the permission to read the interpreter's files.
    assert link.__name__
    assert "localhost".encode("idna")
    CliRunner().invoke(app, ["doctor"])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(USER)
                os.setuid(USER)
            handler = logging.FileHandler(log)
            logging.getLogger("dkist_processing_core").addHandler(handler)
            action()
            handler.flush()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    """
    Return the content and the time of change of every file of a folder.
    """
    return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in path.iterdir()}


@pytest.mark.parametrize("arguments", LOOKS, ids=" ".join)
def test_a_command_that_looks_makes_no_folder(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path, arguments: tuple[str, ...]
) -> None:
    """
    Where nothing was published yet, no folder exists after the command.
    """
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(state_dir / "missing"))

    CliRunner().invoke(app, list(arguments))

    assert list(state_dir.iterdir()) == []


@pytest.mark.parametrize("arguments", LOOKS, ids=" ".join)
def test_a_command_that_looks_changes_no_file(state_dir: Path, arguments: tuple[str, ...]) -> None:
    """
    It does not create a file beside the journal either.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("A"))
    before = contents(state_dir)

    CliRunner().invoke(app, list(arguments))

    assert contents(state_dir) == before


@pytest.mark.parametrize("arguments", LOOKS, ids=" ".join)
def test_a_command_that_looks_at_a_copy_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """
    The copy has a journal and its log, but not the shared memory that SQLite keeps beside them.
    """
    folder = tmp_path / "copy"
    folder.mkdir(mode=0o700)
    settings = DKISTProcessingCoreConfiguration.read()
    with Publisher.open(settings) as publisher:
        path = publisher.bus.journal_path
        publisher.publish(*[progressed("A", number) for number in range(1500)])
        for each in (path, path.with_name(f"{path.name}-wal")):
            shutil.copy(each, folder)
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(folder))
    before = contents(folder)

    CliRunner().invoke(app, list(arguments))
    found = Journal.look(folder / path.name, Journal.books)

    assert contents(folder) == before
    assert found.published == 1500


def test_what_root_makes_in_a_users_folder_is_the_users(folder: Path) -> None:
    """
    Journal, spare journal, lock and folder that root creates can be used by the user afterwards.
    """
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=folder / "made" / "state")
    bus = open_bus(settings)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        lock = FileLock(bus.journal_path.with_suffix(".lock"))
        assert lock.acquire()
        owners = {path.stat().st_uid for path in folder.rglob("*")}
        lock.release()

    def publish() -> None:
        with Publisher.open(settings) as publisher:
            publisher.publish(finished("A"))
            assert not publisher._shelf.is_displaced

    as_user(publish, folder / "log")
    assert owners == {USER}
    with bus.open_journal() as journal:
        assert len(journal.read(0, 10)) == 2


def test_a_file_of_another_user_is_one_warning_that_names_owner_and_remedy(folder: Path, refusing_port: int) -> None:
    """
    The events are kept in a spare journal, and the warning does not mention the broker.
    """
    settings = DKISTProcessingCoreConfiguration(
        dkist_core_state_dir=folder,
        mesh_config=f'{{"interservice-bus": {{"mesh_address": "127.0.0.1", "mesh_port": {refusing_port}}}}}',
        event_flush_timeout=0.5,
    )
    bus = open_bus(settings)
    bus.open_journal().close()
    try:
        os.chown(bus.journal_path, 0, 0)
    except PermissionError:
        assert os.geteuid() != 0
        return

    def publish() -> None:
        with Publisher.open(settings) as publisher:
            publisher.publish(started("A"))
            publisher.publish(finished("A"))

    as_user(publish, folder / "log")

    (warning,) = (folder / "log").read_text().splitlines()
    (spare,) = spares_of(bus.journal_path)
    assert warning.startswith(
        f"the journal {bus.journal_path} cannot be used: {bus.journal_path} belongs to user root, and user {USER} may "
        f"not read and write it; have an administrator run `chown -h {USER} {bus.journal_path}*`"
    )
    assert str(spare) in warning


def test_the_doctor_names_the_owner_of_a_file_that_this_user_may_not_write(folder: Path) -> None:
    """
    The check changes nothing.
    """
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=folder)
    with open_bus(settings).open_journal() as journal:
        journal.append([to_message(started("A"), "x")])
    try:
        os.chown(open_bus(settings).journal_path, 0, 0)
    except PermissionError:
        assert os.geteuid() != 0
        return
    told = folder / "told"

    def examine() -> None:
        os.environ["DKIST_CORE_STATE_DIR"] = str(folder)
        os.chdir(folder)
        told.write_text(CliRunner().invoke(app, ["doctor"]).stdout)

    as_user(examine, folder / "log")

    assert f"belongs to user root, and user {USER} may not read and write it" in told.read_text()


def test_a_link_to_a_file_of_another_user_is_reported_as_a_link(folder: Path) -> None:
    """
    The advice for a file of another user, to change its owner, would give the link's target to this user.
    """
    lock = FileLock(folder / "outbox.lock")
    lock.path.symlink_to("/etc/passwd")

    as_user(lambda: logging.getLogger("dkist_processing_core").warning(lock.problem), folder / "log")

    (reported,) = (folder / "log").read_text().splitlines()
    assert reported == (
        f"the lock's file {lock.path} cannot be used: {lock.path}: found a link, "
        f"expected a regular file of uid {USER}; remove it"
    )
