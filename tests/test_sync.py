"""
Each `publish` writes and syncs its events before it returns, as the system calls in strace show.

Not here: the pragmas for this (bus/test_journal.py), and events after a kill (test_kill_points.py).
"""

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from tests.arrivals import Child
from tests.bus.contract import SECONDS
from tests.killed import Plan
from tests.services.broker import Broker
from tests.test_delivery import settings_of, unreachable

pytestmark = pytest.mark.strace

COUNT = 20
STRACE = ["strace", "-f", "-y", "-s", "16", "-e", "trace=openat,pwrite64,write,fdatasync,fsync", "-o"]
INSTALL = Path(__file__).with_name("services") / "install_packages.sh"
# Matches a line such as: 4711  fdatasync(5</state/embedded.db-wal>) = 0
CALL = re.compile(r"(?P<name>\w+)\(\d+<(?P<path>[^>]*)>(?:, \"(?P<text>[a-z]*))?")


def calls_of(trace: Path, thread: int) -> Iterator[tuple[str, str, str]]:
    """
    Yield name, file and first word of each call of a thread on a descriptor, in the order of their ends.
    """
    begun = ""
    for line in trace.read_text().splitlines():
        number, _, call = line.partition(" ")
        if int(number) != thread:
            continue
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun = call
            continue
        if call.startswith("<... "):
            call = begun
        if found := CALL.match(call):
            yield found["name"], found["path"], found["text"] or ""


def publishes(trace: Path, report: Path) -> list[list[str]]:
    """
    Return the calls on a journal's log in each publish, as `written` or `synced` with the name of the log.
    """
    # The first thread publishes. Others remove confirmed messages, which needs no sync.
    thread = int(trace.read_text().partition(" ")[0])
    found: list[list[str]] = []
    inside = False
    for name, path, text in calls_of(trace, thread):
        if path == str(report) and text in {"attempted", "returned"}:
            inside = text == "attempted"
            if inside:
                found.append([])
        elif inside and path.endswith("-wal"):
            found[-1].append(f"{'synced' if name in {'fdatasync', 'fsync'} else 'written'} {Path(path).name}")
    return found


@pytest.fixture(autouse=True)
def _strace() -> None:
    """
    Fail with one sentence if strace is missing.
    """
    check = subprocess.run([INSTALL, "--check", "strace"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def traced(folder: Path, environment: Mapping[str, str], plan: Plan) -> list[list[str]]:
    """
    Run a plan under strace, and return the calls on a journal's log in each publish.
    """
    trace, report = folder / "trace", folder / "said.txt"
    with Child(plan, environment, report, under=[*STRACE, trace]) as child:
        assert child.wait_for_end(SECONDS * 2), child.output
        assert child.process.wait() == 0, child.output
    assert len(child.output_of("returned")) == COUNT
    return publishes(trace, report)


def assert_each_is_synced(found: list[list[str]], log: str) -> None:
    """
    Check that each publish has written to the log of that name, and synced it after its last write.
    """
    assert len(found) == COUNT
    for calls in found:
        assert f"written {log}" in calls
        assert calls[-1] == f"synced {log}"


def test_every_publish_to_the_embedded_journal_is_synced_before_it_returns(tmp_path: Path) -> None:
    """
    A sync follows the last write of each publish.
    """
    found = traced(tmp_path, {}, Plan("A", limit=COUNT))

    assert_each_is_synced(found, "embedded.db-wal")


def test_every_publish_to_an_outbox_is_synced_before_it_returns(broker: Broker, tmp_path: Path) -> None:
    """
    This holds while another thread delivers and removes confirmed messages.
    """
    found = traced(tmp_path, broker.env, Plan("A", limit=COUNT, timeout=SECONDS))

    assert_each_is_synced(found, f"{open_bus(settings_of(broker)).journal_path.name}-wal")


def test_every_publish_to_a_spare_journal_is_synced_before_it_returns(refusing_port: int, tmp_path: Path) -> None:
    """
    This holds for a spare journal that replaces a locked journal.
    """
    bus = open_bus(unreachable(refusing_port))
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    bus.open_journal().close()

    with closing(sqlite3.connect(bus.journal_path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        found = traced(tmp_path, {"MESH_CONFIG": json.dumps(mesh)}, Plan("A", limit=COUNT))

    (log,) = {call.partition(" ")[2] for calls in found for call in calls}
    assert re.fullmatch(rf"{bus.journal_path.stem}\.\d+-[0-9a-f]{{8}}\.db-wal", log)
    assert_each_is_synced(found, log)
