"""
The plugin of pytest: fixtures whose names begin with `dkist_core_`.

pytest loads this module in every project that installs the package, so it imports nothing of the package itself: a
fixture imports what it needs. Not here: what the fixtures give (testing).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dkist_processing_core.testing import FixedClock, FixedIds, InMemoryBus

# Variables that decide where events and telemetry go. The other settings of a project stay as they are.
_TRACE = ("TRACEPARENT", "TRACESTATE")
_PREFIXES = ("ISB_", "OTEL_")


@pytest.fixture
def dkist_core_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    The empty state folder of this test, with the embedded bus and the inboxes of consumers in it.

    `Workflow.run` and processes that the test starts use it as well. No broker, collector or other inbox is used.
    """
    folder = tmp_path / "dkist-core-state"
    folder.mkdir(mode=0o700)
    for name in list(os.environ):
        if name in _TRACE or name.startswith(_PREFIXES):
            monkeypatch.delenv(name)
    # A variable that is not set could be in the file `.env` of the project.
    monkeypatch.setenv("MESH_CONFIG", "{}")
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    monkeypatch.setenv("DKIST_CORE_INBOX", f"sqlite:///{folder}/inbox.db")
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(folder))
    return folder


@pytest.fixture
def dkist_core_bus(dkist_core_state_dir: Path) -> Iterator[InMemoryBus]:  # noqa: ARG001 - no other bus may be reached
    """The bus of this process during this test, in memory: `bus.events` are all reports, `bus.publish(…)` adds some."""
    from dkist_processing_core.testing import InMemoryBus  # noqa: PLC0415 - see the module's docstring

    with InMemoryBus() as bus:
        yield bus


@pytest.fixture
def dkist_core_clock() -> Iterator[FixedClock]:
    """The clock of the events of tasks that this test calls; it stands still until `clock.advance(seconds)`."""
    from dkist_processing_core.testing import FixedClock  # noqa: PLC0415 - see the module's docstring

    with FixedClock() as clock:
        yield clock


@pytest.fixture
def dkist_core_ids() -> Iterator[FixedIds]:
    """The random parts of the ids of new runs during this test: `00000001`, `00000002` and so on."""
    from dkist_processing_core.testing import FixedIds  # noqa: PLC0415 - see the module's docstring

    with FixedIds() as ids:
        yield ids
