"""
Links, files and folders that another user has placed are not used.
"""

import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal._opened_file_check import OpenedFileCheck
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.place import place
from dkist_processing_core.process.descriptors import _lowest_high
from dkist_processing_core.process.trusted_files import exchangeable_above, make_folder, open_file
from tests.facts import started
from tests.running import status_of_fork

IS_ROOT = os.geteuid() == 0
VICTIM, ATTACKER, GROUP = 64201, 64202, 64203
SECRET = "canary of a private key"


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    Yield a folder on a disk that any user can reach.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="dkist-core-tests-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def shared(folder: Path) -> Path:
    """
    Return a folder that its setgid bit shares with a group.
    """
    path = folder / "shared"
    path.mkdir()
    if IS_ROOT:
        os.chown(path, VICTIM, GROUP)
    path.chmod(0o2770)
    return path


@pytest.fixture
def key(folder: Path) -> Path:
    """
    Return a file that only the victim can read.
    """
    home = folder / "home"
    home.mkdir()
    path = home / "id_rsa"
    path.write_text(SECRET)
    path.chmod(0o600)
    if IS_ROOT:
        os.chown(home, VICTIM, VICTIM)
        os.chown(path, VICTIM, VICTIM)
    return path


def as_user(user: int, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """
    Run a program as another user of the group, where this process may do that, after the library is loaded.
    """
    become = f"os.setgroups([{GROUP}]); os.setgid({user}); os.setuid({user})" if IS_ROOT else "pass"
    return subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{become}\n{program}", *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith(("DKIST_", "MESH_"))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# Loads in advance the interpreter's files that another user may not be able to read.
PRELUDE = """\
import codecs, os, sys
codecs.lookup("ascii"), codecs.lookup("idna"), codecs.lookup("unicode_escape")
import multiprocessing.synchronize
from pathlib import Path
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import started
settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=sys.argv[1])
"""
PUBLISH = """\
with Publisher.open(settings) as publisher:
    publisher.publish(started("A"))
"""
PLACED = {
    "journal": 'os.symlink(sys.argv[2], sys.argv[1] + "/embedded.db")',
    "dangling": 'os.symlink(sys.argv[2] + "-new", sys.argv[1] + "/embedded.db")',
    "log": 'os.symlink(sys.argv[2], sys.argv[1] + "/embedded.db-wal")',
    "pipe": 'os.mkfifo(sys.argv[1] + "/embedded.db")',
    "folder": 'os.mkdir(sys.argv[1] + "/embedded.db")',
    "spare": 'os.symlink(sys.argv[2], sys.argv[1] + "/embedded.1-0a0a0a0a.db")',
    "spare's lock": 'os.symlink(sys.argv[2], sys.argv[1] + "/embedded.1-0a0a0a0a.lock");'
    ' open(sys.argv[1] + "/embedded.1-0a0a0a0a.db", "x")',
}


@pytest.mark.parametrize("placed", PLACED.values(), ids=PLACED)
def test_what_a_member_of_the_group_places_opens_no_file_of_another_s(shared: Path, key: Path, placed: str) -> None:
    """
    The victim's file keeps its mode and content, and no file is created for the attacker.
    """
    assert as_user(ATTACKER, placed, str(shared), str(key)).returncode == 0

    done = as_user(VICTIM, PUBLISH, str(shared))

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (stat.S_IMODE(key.stat().st_mode), key.read_text()) == (0o600, SECRET)
    assert [*key.parent.iterdir()] == [key]


def test_a_lock_that_is_a_link_is_refused_before_anything_is_changed(folder: Path, key: Path) -> None:
    """
    The error states what was found, what was expected and the remedy.
    """
    lock = folder / "outbox.lock"
    lock.symlink_to(key)

    with pytest.raises(JournalError, match=r"k: found a link, expected a regular file of uid \d+; remove it"):
        FileLock(lock).acquire()

    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_journal_under_two_names_is_refused(folder: Path, key: Path) -> None:
    """
    A second name may be a link that an attacker made to a file of this user.
    """
    os.link(key, folder / "embedded.db")

    with pytest.raises(JournalError, match=r"embedded\.db: found a file that has several names"):
        Journal.open(folder / "embedded.db")

    assert (stat.S_IMODE(key.stat().st_mode), key.read_text()) == (0o600, SECRET)


def _link(path: Path, other: Path) -> None:
    path.rename(path.with_name("moved.db"))
    path.symlink_to(other)


def _file(path: Path, other: Path) -> None:
    path.rename(path.with_name("moved.db"))
    other.rename(path)


@contextmanager
def kept_descriptor(path: Path) -> Iterator[None]:
    """
    Have SQLite keep a descriptor of a file open, which its next connection to that file reuses.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE held (number)")
        holder.execute("BEGIN IMMEDIATE")
        # Closing it would release the lock of the other connection.
        sqlite3.connect(path).close()
        yield


@pytest.mark.parametrize("exchange", [_link, _file])
@pytest.mark.parametrize("is_kept", [False, True])
def test_a_file_that_is_exchanged_while_it_is_opened_is_noticed(
    folder: Path, exchange: Callable[[Path, Path], None], *, is_kept: bool
) -> None:
    """
    SQLite opens the file by its path, which may then lead to another file.
    """
    path, other = folder / "embedded.db", folder / "other.db"
    other.touch()

    with ExitStack() as stack:
        if is_kept:
            stack.enter_context(kept_descriptor(path))
        file = stack.enter_context(OpenedFileCheck(path, make=True))
        exchange(path, other)
        connection = stack.enter_context(closing(sqlite3.connect(path)))

        with pytest.raises(PermissionError, match=r"embedded\.db: found another file than a moment ago"):
            file.check(connection)


@pytest.mark.parametrize("is_kept", [False, True])
def test_files_that_another_thread_opens_and_closes_meanwhile_are_no_exchange(folder: Path, *, is_kept: bool) -> None:
    """
    This holds, too, if SQLite opens nothing because it reuses a descriptor that it had to keep.
    """
    path = folder / "embedded.db"
    with ExitStack() as stack:
        if is_kept:
            stack.enter_context(kept_descriptor(path))
        closed = stack.enter_context(Path(os.devnull).open("rb"))
        file = stack.enter_context(OpenedFileCheck(path, make=True))
        closed.close()
        stack.enter_context((folder / "theirs").open("wb"))
        connection = stack.enter_context(closing(sqlite3.connect(path)))
        stack.enter_context((folder / "theirs-too").open("wb"))

        file.check(connection)


def test_holding_a_file_gives_up_no_lock_of_this_process(folder: Path) -> None:
    """
    Closing any other descriptor of the file would release the lock (fcntl(2)), without notice to SQLite.
    """
    path = folder / "embedded.db"
    program = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with path.open("w+b") as locked:
        fcntl.lockf(locked, fcntl.LOCK_EX)
        with OpenedFileCheck(path, make=True):
            pass

        taken = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=False, timeout=300)

    assert b"BlockingIOError" in taken.stderr


@pytest.mark.parametrize("name", ["theirs", "embedded.db"])
def test_a_file_that_got_the_number_by_which_another_is_held_is_not_closed(folder: Path, name: str) -> None:
    """
    The number is high, and checked before it is closed: SQLite may have got it, for the same file.
    """
    path = folder / "embedded.db"
    with OpenedFileCheck(path, make=True):
        (number,) = numbers_of(path)
        os.close(number)
        with (folder / name).open("ab") as theirs:
            os.dup2(theirs.fileno(), number)

    assert number >= _lowest_high()
    assert os.fstat(number).st_ino == (folder / name).stat().st_ino
    os.close(number)


def test_a_file_that_got_the_number_of_a_folder_meanwhile_is_not_closed(folder: Path) -> None:
    """
    Another thread closes the folder's descriptor, between the opening of the folder and of the file in it.
    """
    path = folder / "a.lock"

    def steal() -> None:
        stolen: list[int] = []

        def exchange_number(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and arguments[0] == path.name and not stolen:
                stolen.extend(numbers_of(folder))
                os.close(stolen[0])
                assert os.open(os.devnull, os.O_RDONLY) == stolen[0]

        sys.addaudithook(exchange_number)
        with pytest.raises(NotADirectoryError):
            open_file(path, os.O_CREAT | os.O_RDWR)
        assert stat.S_ISCHR(os.fstat(stolen[0]).st_mode)

    assert status_of_fork(steal) == 0


def numbers_of(path: Path) -> list[int]:
    """
    Return the descriptors of this process for a file or folder.
    """
    return [int(each.name) for each in Path("/proc/self/fd").iterdir() if os.path.realpath(each) == str(path)]


def squatted(make: Callable[[Path], object]) -> Iterator[tuple[DKISTProcessingCoreConfiguration, Path]]:
    """
    Place another user's folder where journals go instead of a memory file system; yield the settings and the folder.
    """
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=Path(f"/dev/shm/dkist-core-test-{os.getpid()}"))
    path = place(settings).folder
    make(path)
    try:
        yield settings, path
    finally:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)


def _of_everybody(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _of_the_attacker(path: Path) -> None:
    path.mkdir()
    os.chown(path, ATTACKER, -1)


SQUATTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda path: path.symlink_to("/var/tmp"), "is a link"),
    "mode": (_of_everybody, "has mode 0777, by which others may write to it"),
    "owner": (_of_the_attacker, f"belongs to uid {ATTACKER}"),
}


@pytest.mark.parametrize("squatter", ["link", "mode", *(["owner"] if IS_ROOT else [])])
def test_a_folder_in_public_that_is_not_ours_is_not_used(squatter: str, caplog: pytest.LogCaptureFixture) -> None:
    """
    It is not used for spare journals either: events are kept in memory, with one warning.
    """
    make, reason = SQUATTERS[squatter]
    for settings, path in squatted(make):
        with pytest.raises(JournalError, match=reason):
            open_bus(settings).open_journal()
        before = {*path.iterdir()}
        caplog.clear()

        publisher = Publisher.open(settings)
        publisher.publish(started("A"))
        publisher.publish(started("B"))
        found = [record.message for record in caplog.records if "kept in memory" in record.message]
        publisher.close()

        assert {*path.iterdir()} == before
        assert len(found) == 1


def test_a_folder_of_another_user_who_shares_it_with_nobody_is_not_used(folder: Path) -> None:
    """
    The owner could replace a file of the folder.
    """
    if IS_ROOT:
        theirs = folder / "theirs"
        theirs.mkdir()
        os.chown(theirs, ATTACKER, ATTACKER)
        theirs.chmod(0o777)
        done = as_user(VICTIM, "open_bus(settings).open_journal()", str(theirs))
        assert f"belongs to uid {ATTACKER}, and is not shared with a group of uid {VICTIM}" in done.stderr
        assert [*theirs.iterdir()] == []


def test_folders_that_are_made_are_their_owner_s_whatever_the_umask(folder: Path) -> None:
    """
    This includes the parents, since a user who may write to them could replace the folder.
    """
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            make_folder(str(folder / f"{umask}" / "b" / "c"))
        finally:
            os.umask(before)

    made = [path for path in folder.rglob("*") if path.is_dir()]
    assert len(made) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}


def test_a_folder_above_that_anybody_may_write_to_is_named(folder: Path) -> None:
    """
    A folder with the sticky bit is not named: there only the owner of a folder can rename it.
    """
    above, inside = folder / "above", folder / "above" / "inside"
    inside.mkdir(parents=True)
    (folder / "link").symlink_to(inside)
    assert exchangeable_above(str(inside)) is None

    above.chmod(0o777)
    found = exchangeable_above(str(inside / "not there")), exchangeable_above(str(folder / "link" / "x"))
    above.chmod(0o1777)

    assert found == (f"{above} has mode 0777, which lets every user put another in its place: chmod o-w it",) * 2
    assert exchangeable_above(str(inside)) is None
