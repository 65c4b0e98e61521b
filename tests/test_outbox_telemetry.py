"""
Tests of the outbox commands on telemetry: list, drain and relay, with a real OTLP receiver, and the doctor.

Not here: the delivery itself (test_otlp_delivery), and the commands on messages (test_outbox).
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dkist_processing_core.cli import app
from dkist_processing_core.cli.outbox.telemetry import telemetry_lines
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.otlp import OtlpBooks
from dkist_processing_core.otlp import SIGNALS, journal_path, lock_path
from dkist_processing_core.outbox import TelemetryState
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal
from tests.otlp_requests import append, books_of, open_journal
from tests.running import ROOT
from tests.services.otlp import Answer, OtlpReceiver

pytestmark = pytest.mark.once

SECRET = "s3cret-of-the-collector"


@pytest.fixture
def receiver(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> OtlpReceiver:
    """
    The receiver of this module, which has received nothing so far, as the collector of all signals.
    """
    for name, value in receiver.http_env.items():
        monkeypatch.setenv(name, value)
    return receiver


def asked(*arguments: str) -> Result:
    """
    Run a command in this process, on a terminal of 80 columns.
    """
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["outbox", *arguments])


def test_a_drain_without_a_broker_delivers_telemetry(receiver: OtlpReceiver) -> None:
    """
    The exit code is 0 when nothing is pending, also if nothing was.
    """
    append(read_settings(), "traces", "a", "b")
    append(read_settings(), "logs", "c")

    first, second = asked("drain"), asked("drain")

    assert (first.exit_code, first.stdout, first.stderr) == (0, "telemetry delivered: 3, still pending: 0\n", "")
    assert (second.exit_code, second.stdout) == (0, "telemetry delivered: 0, still pending: 0\n")
    assert sorted(span.name for span in receiver.spans()) == ["a", "b"]
    assert len(receiver.logs()) == 1


def test_a_drain_names_the_problem_of_a_collector(refusing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It ends early, since another try would not succeed.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{refusing_port}")
    path = append(read_settings(), "traces", "a", "b")

    done = asked("drain")

    problem = f"no connection to 127.0.0.1:{refusing_port}: Connection refused"
    assert done.exit_code == 1
    assert done.stderr == f"error: {problem}; telemetry pending in {path}: 2, delivered: 0\n"


def test_a_drain_reports_what_a_collector_refuses(receiver: OtlpReceiver) -> None:
    """
    It is dropped, so the exit code is 1 only now.
    """
    append(read_settings(), "traces", "a", "b")
    receiver.answer("traces", Answer(status=400, message="unknown"))

    first, second = asked("drain"), asked("drain")

    assert (first.exit_code, second.exit_code) == (1, 0)
    assert "telemetry that a collector refused, which is dropped: 2" in first.stderr


def test_a_drain_keeps_the_pause_that_a_collector_requests(receiver: OtlpReceiver) -> None:
    """
    The specification recommends this, and the message names the end of the pause.
    """
    path = append(read_settings(), "traces", "a")
    receiver.answer("traces", Answer(status=503, retry_after="900"))

    first, second = asked("drain"), asked("drain")

    assert (first.exit_code, second.exit_code) == (1, 1)
    assert "answers 503" in first.stderr
    where = re.escape(receiver.http_endpoint)
    assert re.fullmatch(
        rf"error: {where} has requested a pause until [-0-9]+ [:0-9]+ UTC \(Retry-After\); "
        rf"telemetry pending in {path}: 1, delivered: 0\n",
        second.stderr,
    )
    assert len(receiver.requests("traces")) == 1


def test_a_drain_that_is_out_of_time_says_so(receiver: OtlpReceiver) -> None:
    """
    A silent collector does not hold it.
    """
    append(read_settings(), "traces", "a")
    receiver.answer("traces", Answer(is_silent=True))

    done = asked("drain", "--timeout", "0.2")

    assert done.exit_code == 1
    assert done.stderr.startswith("error: the time is over; telemetry pending in ")


def test_a_relay_without_a_broker_delivers_telemetry(receiver: OtlpReceiver) -> None:
    """
    Also that of processes which append later, until SIGTERM.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "dkist_processing_core.cli", "outbox", "relay"],
        cwd=ROOT,
        env={**os.environ, "OTEL_EXPORTER_OTLP_HEADERS": f"key={SECRET}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    append(read_settings(), "traces", "a")
    receiver.wait_for(lambda found: found.spans(), 60.0)
    append(read_settings(), "metrics", "b")
    receiver.wait_for(lambda found: found.metrics(), 60.0)

    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=300)

    assert process.returncode == 0, shown
    assert f"delivering telemetry from {journal_path(read_settings())}" in shown
    assert SECRET not in shown
    assert [books_of(read_settings(), each).pending for each in ("traces", "metrics")] == [0, 0]


def test_a_relay_with_nothing_to_deliver_is_refused() -> None:
    """
    The settings name neither a broker nor a collector.
    """
    done = asked("relay")

    assert done.exit_code == 1
    assert "there is nothing to relay: MESH_CONFIG names no interservice-bus, and no telemetry is exported" in (
        done.stderr + str(done.exception)
    )


@pytest.mark.usefixtures("receiver")
def test_the_journals_of_telemetry_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each with its counts, its collectors without credentials, and the processes that deliver; within 80 columns.
    """
    append(read_settings(), "traces", "other")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"https://user:{SECRET}@collector.example:4318/v1/traces")
    settings = read_settings()
    path = append(settings, "traces", "a", "b")
    append(settings, "logs", *[f"record {number}" for number in range(1200)])
    with open_journal(settings) as journal:
        (chunk,) = journal.pending("traces", most_bytes=1, most_items=1)
        journal.remove([chunk], delivered=1, refused=1)
    lock = FileLock(lock_path(path, "logs"))
    assert lock.acquire()

    shown, found = asked("list"), json.loads(asked("list", "--json").stdout)
    lock.release()

    lines = shown.stdout.splitlines()
    at = lines.index(f"● {path.stem}")
    assert max(len(line) for line in lines[at - 1 :] if str(path.parent) not in line) <= 80
    assert [line.split() for line in lines[at - 1 : at + 4]] == [
        ["delivered", "pending", "refused", "dropped"],
        ["●", path.stem],
        ["spans", "1", "0", "1", "0"],
        ["metric", "points", "0", "0", "0", "0"],
        ["log", "records", "0", "1,200", "0", "0"],
    ]
    assert "  spans for https://collector.example:4318/v1/traces (http/protobuf)" in lines
    assert f"  process {os.getpid()} is delivering log records" in lines
    assert any(re.fullmatch(r"  oldest pending: \d.*s; \d+ \w+ on disk", line) for line in lines)
    mine, other = found["telemetry"]
    assert (Path(mine["file"]), mine["current"], other["current"]) == (path, True, False)
    assert mine["signals"]["traces"] == {
        "protocol": "http/protobuf",
        "endpoint": "https://collector.example:4318/v1/traces",
        "delivered": 1,
        "pending": 0,
        "refused": 1,
        "dropped": 0,
        "deliveredBy": None,
    }
    assert mine["signals"]["logs"]["deliveredBy"] == os.getpid()
    assert SECRET not in shown.stdout + json.dumps(found)


def test_the_page_about_outages_shows_what_is_listed() -> None:
    """
    The block of the page is drawn from the counts in it.
    """
    page = (ROOT / "docs" / "how-to" / "outages.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?s)```text\n( +delivered.*?)```", page)
    state = TelemetryState(
        Path("/var/lib/dkist/otlp-1f2e3d4c.db"),
        is_current=True,
        collectors=dict.fromkeys(SIGNALS, ("grpc", "http://collector.example:4317")),
        books={
            "traces": OtlpBooks(pending=12, delivered=1204, refused=0, dropped=0),
            "metrics": OtlpBooks(pending=0, delivered=96, refused=0, dropped=0),
            "logs": OtlpBooks(pending=140, delivered=8310, refused=2, dropped=0),
        },
        size=98_304,
        oldest=time.time() - 41,
    )

    lines = [line.plain for line in telemetry_lines([state], Terminal(width=80), lambda text: text)]

    assert [line.replace("41.0 s", "41 s").rstrip() for line in lines] == block.splitlines()


def test_a_journal_of_telemetry_that_cannot_be_read_is_listed(receiver: OtlpReceiver) -> None:
    """
    With the reason, and without its counts.
    """
    path = append(read_settings(), "traces", "a")
    path.write_bytes(b"this is no journal")

    shown = asked("list")
    (found,) = json.loads(asked("list", "--json").stdout)["telemetry"]

    assert shown.exit_code == 0
    assert "cannot be used: file is not a database" in " ".join(shown.stdout.split())
    assert (found["bytes"], found["signals"]["traces"]["pending"]) == (None, None)
    assert receiver.spans() == []


def test_the_doctor_counts_pending_telemetry(receiver: OtlpReceiver) -> None:
    """
    It names the commands that deliver it.
    """
    path = append(read_settings(), "traces", "a", "b")

    done = CliRunner().invoke(app, ["doctor", "--json"])

    (check,) = [each for each in json.loads(done.stdout)["checks"] if each["name"] == "telemetry"]
    assert check["status"] == "ok"
    assert check["detail"] == f"{path} can be read; pending: 2, refused: 0, dropped: 0"
    assert "`dkist-core outbox drain` does so now" in check["advice"]
    assert receiver.spans() == []


def test_the_doctor_checks_the_variables_of_a_delivery(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that only appends does not read them.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"key={SECRET},{SECRET}")

    done = CliRunner().invoke(app, ["doctor", "--json"])

    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert checks["traces"]["status"] == "wrong"
    assert "OTEL_EXPORTER_OTLP_HEADERS: found header 2 in another form" in checks["traces"]["detail"]
    assert SECRET not in done.stdout
    assert receiver.spans() == []
