"""
Tests of the doctor: its findings, its advice, and the secrets that it must not show.
"""

import json
import os
import socket
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dkist_processing_core import Consumer, subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.inbox.migrating import HEAD
from dkist_processing_core.testing import InMemoryBus
from tests.facts import failed, started
from tests.running import run_command
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.services.sockets import BlackHole
from tests.waiting import SECONDS

BROKER_CHECKS = ["broker", "credentials", "virtual host", "topology", "publish", "subscribe"]
CANARY = "canary-7f3a/with?odd&signs"


def doctor(*arguments: str) -> Result:
    """
    Run the doctor.
    """
    return CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)


def findings() -> dict[str, tuple[str, str]]:
    """
    Return the status and the detail of each check, by name.
    """
    return {
        check["name"]: (check["status"], check["detail"]) for check in json.loads(doctor("--json").stdout)["checks"]
    }


def statuses(found: dict[str, tuple[str, str]]) -> list[str]:
    """
    Return the status of each check of the broker, in order.
    """
    return [found[name][0] for name in BROKER_CHECKS]


def name_broker(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    Make RabbitMQ this test's bus, with this user.
    """
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)


def name_port(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """
    Make a broker that should listen on a port this test's bus.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))


# The settings and the journal


def test_without_a_broker_the_embedded_journal_is_found_well(state_dir: Path) -> None:
    """
    It states which bus is in use and why, and which signals could be exported.
    """
    told = doctor()

    assert told.exit_code == 0
    assert f"the embedded journal {state_dir / 'embedded.db'}: MESH_CONFIG names no interservice-bus" in told.stdout
    assert f"✓ journal       {state_dir / 'embedded.db'} can be read and written; messages: 0" in told.stdout
    assert "– telemetry     nothing is exported" in told.stdout  # noqa: RUF001 - an en dash is meant
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told.stdout
    assert told.stdout.endswith("3 checks, no problem\n")


def test_a_mesh_without_the_broker_is_the_reason_for_the_embedded_journal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, state_dir: Path
) -> None:
    """
    The doctor and the log of a run state in one line which bus is used, and which services are named instead.
    """
    monkeypatch.setenv("MESH_CONFIG", '{"object-store": {"mesh_address": "o", "mesh_port": 1}}')
    reason = "MESH_CONFIG names object-store and no interservice-bus"

    told = doctor()
    with caplog.at_level("INFO"):
        for _ in range(2):
            Publisher.open(DKISTProcessingCoreConfiguration()).close()

    assert f"bus  the embedded journal {state_dir / 'embedded.db'}: {reason}\n" in told.stdout
    assert [record.getMessage() for record in caplog.records] == [
        f"events go to the embedded journal {state_dir / 'embedded.db'}, since {reason}"
    ]


def test_a_typing_error_in_the_name_of_a_collector_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Events do not depend on the collector: the name is no error in the settings.
    """
    monkeypatch.setenv("MESH_CONFIG", '{"otlp-trace-endpoint": {"mesh_address": "o", "mesh_port": 1}}')

    found = findings()

    assert found["settings"][0] == "ok"
    assert found["traces"] == ("wrong", "MESH_CONFIG names 'otlp-trace-endpoint', expected 'otlp-traces-endpoint'")


def test_the_json_holds_the_same() -> None:
    """
    Monitoring systems read it.
    """
    told = json.loads(doctor("--json").stdout)

    assert told["ok"] is True
    assert told["reason"] == "MESH_CONFIG names no interservice-bus"
    assert [check["name"] for check in told["checks"]] == ["settings", "folder", "journal", "telemetry"]
    assert told["checks"][-1]["advice"].startswith("to export, name a collector")


def test_the_json_holds_names_as_they_are(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    """
    It is in UTF-8 without escapes, like all JSON of the commands.
    """
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(state_dir / "Räume"))

    assert f"{state_dir}/Räume/embedded.db" in doctor("--json").stdout


def test_unusable_settings_are_told_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every wrong variable is named at once; checks that depend on them are skipped.
    """
    monkeypatch.setenv("MESH_CONFIG", "{")
    monkeypatch.setenv("ISB_QUEUE_TYPE", "stack")

    told = doctor()

    assert told.exit_code == 1
    assert "MESH_CONFIG: found '{', expected a JSON object" in told.stdout
    assert "ISB_QUEUE_TYPE: found 'stack', expected classic or quorum" in told.stdout
    assert "1 of 1 checks found a problem" in told.stdout


def test_settings_from_a_file_are_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A forgotten `.env` is a frequent cause of errors.
    """
    (tmp_path / ".env").write_text("ISB_VHOST=here\n")
    monkeypatch.chdir(tmp_path)

    assert findings()["settings"] == ("ok", f"read from the environment, and from {tmp_path / '.env'}: ISB_VHOST")


def test_a_file_that_names_a_broker_gets_no_password_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Another user may have put the file into the current folder. One error names both, and no connection is opened.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISB_PASSWORD", CANARY)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.0)
        mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": listening.getsockname()[1]}}
        (tmp_path / ".env").write_text(f"MESH_CONFIG='{json.dumps(mesh)}'\n")

        told = doctor()

        with pytest.raises(BlockingIOError):
            listening.accept()
    assert told.exit_code == 1
    assert f"MESH_CONFIG: found in {tmp_path / '.env'}, and ISB_PASSWORD in the environment" in told.stdout
    assert CANARY not in told.output


def test_a_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    The finding names the variable that sets another folder.
    """
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(tmp_path / "file" / "state"))

    told = doctor()

    assert told.exit_code == 1
    assert f"✗ folder        the journals' folder {tmp_path / 'file' / 'state'} cannot be created" in told.stdout
    assert "set DKIST_CORE_STATE_DIR to a folder on a local disk" in told.stdout


@pytest.mark.parametrize("state", ["/proc/nothing", "/sys/nothing/below", "long"])
def test_a_folder_that_no_user_can_create_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """
    A file system of the kernel holds no other files, although root has the permission to write, and names have a limit.
    """
    folder = tmp_path / ("x" * 300) if state == "long" else Path(state)
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(folder))

    told = doctor()

    assert told.exit_code == 1
    assert f"the journals' folder {folder} cannot be created: " in told.stdout
    assert "can be read and written" not in told.stdout
    assert not os.path.lexists(folder)


def test_a_folder_in_memory_is_said_to_have_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The journal does not stay in a folder that a restart would empty.
    """
    wanted = Path("/dev/shm") / f"dkist-core-{uuid.uuid4().hex}"
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(wanted))
    moved_to = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path.parent

    status, detail = findings()["folder"]

    assert not moved_to.exists()
    assert status == "ok"
    assert detail.startswith(f"{moved_to} (")
    assert f"since {wanted} is on a memory file system (tmpfs)" in detail


def test_a_journal_of_a_newer_release_is_left_alone_and_told(state_dir: Path) -> None:
    """
    The doctor does not change a file that it cannot read.
    """
    open_bus(DKISTProcessingCoreConfiguration.read()).open_journal().close()
    with sqlite3.connect(state_dir / "embedded.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    status, detail = findings()["journal"]

    assert status == "wrong"
    assert "was written by a newer release (format 99" in detail


def test_a_file_that_is_no_journal_is_told(state_dir: Path) -> None:
    """
    The finding contains its name, and no traceback.
    """
    (state_dir / "embedded.db").write_text("this is no database, however long it may be")

    status, detail = findings()["journal"]

    assert status == "wrong"
    assert str(state_dir / "embedded.db") in detail


# The broker


def test_a_healthy_broker_is_found_well_and_left_so(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    Missing objects are declared, a probe is delivered, no part of the probe remains, and `topology plan` agrees.
    """
    name_broker(monkeypatch, broker)

    first, second = findings(), findings()

    names = "workflow.events.x, master.direct.x, workflow.events.dlx, workflow.events.archive.q, recipe.run.failure.q"
    assert CliRunner().invoke(app, ["topology", "plan"]).exit_code == 0
    assert statuses(first) == statuses(second) == ["ok"] * 6
    assert first["topology"][1] == f"created now: {names}"
    assert second["topology"][1] == f"{names} exist"
    every_queue = f'Queue <- rabbit_amqqueue:list(<<"{broker.vhost}">>)'
    queues = broker.node.eval(f"lists:sort([binary_to_list(element(4, amqqueue:get_name(Queue))) || {every_queue}]).")
    assert json.loads(queues) == ["recipe.run.failure.q", "workflow.events.archive.q"]


def test_a_broker_is_told_with_its_address_and_why_it_is_the_bus(
    monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    """
    A user with two brokers sees which one is used.
    """
    name_broker(monkeypatch, broker)

    told = doctor()

    assert told.exit_code == 0
    where = f"RabbitMQ at 127.0.0.1:{broker.port}, virtual host {broker.vhost}"
    assert f"{where}: MESH_CONFIG names interservice-bus" in told.stdout
    assert f"✓ broker        RabbitMQ at 127.0.0.1:{broker.port} answers" in told.stdout


def test_probes_disturb_no_consumer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broker: Broker
) -> None:
    """
    Neither a subscriber to all events nor a replay of the archive receives a probe, or a warning about one.
    """
    name_broker(monkeypatch, broker)
    told = started("A")
    with subscribe(timeout=SECONDS) as live:
        findings()
        with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
            publisher.publish(told)
            publisher.flush(10)
        followed = next(live)
    with subscribe(replay=True, timeout=SECONDS) as archive:
        replayed = next(archive)

    assert (followed, replayed) == (told, told)
    assert caplog.text == ""


def test_an_account_without_a_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Events stay on the host then, and the account suggests that a broker was meant.
    """
    monkeypatch.setenv("ISB_USERNAME", "observer")

    told = doctor()

    assert told.exit_code == 0
    assert "not used: ISB_USERNAME set, and MESH_CONFIG names no interservice-bus" in told.stdout


def test_a_port_where_nobody_listens_is_told(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    """
    Later checks have no answer, and are not reported as errors.
    """
    name_port(monkeypatch, refusing_port)

    told, found = doctor(), findings()

    assert told.exit_code == 1
    assert statuses(found) == ["wrong", *["skipped"] * 5]
    assert f"✗ broker        RabbitMQ at 127.0.0.1:{refusing_port} refuses the connection" in told.stdout
    assert "check that the broker runs, and that MESH_CONFIG names the address of its AMQP port" in told.stdout
    assert told.stdout.count("check that the broker runs") == 1
    assert "1 of 4 checks found a problem; 7 without a result" in told.stdout


def test_a_port_that_never_speaks_is_told_in_time(monkeypatch: pytest.MonkeyPatch, black_hole: BlackHole) -> None:
    """
    The doctor does not hang if the broker does.
    """
    name_port(monkeypatch, black_hole.port)

    told = run_command("doctor")

    assert told.returncode == 1
    assert f"✗ broker        RabbitMQ at 127.0.0.1:{black_hole.port} does not answer in time" in told.stdout


@pytest.mark.parametrize("kept_in", ["environment", "file"])
def test_a_wrong_password_is_told_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, kept_in: str
) -> None:
    """
    It is hidden wherever it is stored, in every form of the findings.
    """
    name_broker(monkeypatch, broker)
    monkeypatch.delenv("ISB_PASSWORD")
    monkeypatch.chdir(tmp_path)
    if kept_in == "environment":
        monkeypatch.setenv("ISB_PASSWORD", CANARY)
    else:
        (tmp_path / ".env").write_text(f"ISB_PASSWORD='{CANARY}'\n")

    told = run_command("--verbose", "doctor")
    as_json = doctor("--json")

    assert (told.returncode, as_json.exit_code) == (1, 1)
    assert "✗ credentials   " in told.stdout
    assert "set ISB_USERNAME and ISB_PASSWORD" in told.stdout
    assert "canary" not in told.stdout + told.stderr + as_json.output


def test_a_password_that_strays_into_another_variable_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    """
    The doctor quotes a virtual host, and hides a secret that was pasted there.
    """
    name_broker(monkeypatch, replace(broker, vhost=broker.password))

    told = doctor()

    assert told.exit_code == 1
    assert broker.password not in told.output


def test_a_wrong_virtual_host_is_told(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    The credentials before it are known to be correct.
    """
    name_broker(monkeypatch, replace(broker, vhost="nowhere"))

    found = findings()

    assert statuses(found) == ["ok", "ok", "wrong", *["skipped"] * 3]
    assert "refuses virtual host 'nowhere' (ISB_VHOST)" in found["virtual host"][1]


def test_missing_exchanges_that_may_not_be_made_are_told(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    The finding contains their names, and who could declare them.
    """
    name_broker(monkeypatch, broker.as_user(write=".*", read=".*"))

    found = findings()

    assert statuses(found) == ["ok", "ok", "ok", "wrong", "skipped", "skipped"]
    assert found["topology"][1].startswith("workflow.events.x, master.direct.x, ")
    assert "missing and cannot be created: " in found["topology"][1]


def test_a_user_who_may_not_publish_is_told(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    The topology exists, the permission does not.
    """
    name_broker(monkeypatch, broker)
    findings()
    name_broker(monkeypatch, broker.as_user(read=".*"))

    told, found = doctor(), findings()

    assert statuses(found) == ["ok", "ok", "ok", "ok", "wrong", "skipped"]
    assert "ACCESS_REFUSED" in found["publish"][1]
    assert "grant this user the write permission on workflow.events.x" in told.stdout


def test_a_publisher_need_not_be_allowed_to_subscribe(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    For a user with only the write permission, the doctor reports no error.
    """
    name_broker(monkeypatch, broker)
    findings()
    name_broker(monkeypatch, broker.as_user(write=".*"))

    told, found = doctor(), findings()

    assert told.exit_code == 0
    assert statuses(found) == ["ok", "ok", "ok", "ok", "ok", "skipped"]
    assert "to consume events, grant this user the configure and read permissions" in told.stdout


def test_a_broker_that_blocks_publishers_is_told(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    During a memory alarm a connection looks healthy, but publishing is blocked.
    """
    name_broker(monkeypatch, broker)
    findings()
    broker.node.memory_alarm(on=True)

    told = doctor()

    assert told.exit_code == 1
    assert "✗ publish       the broker blocks publishers: low on memory" in told.stdout


def test_an_archive_that_lost_its_binding_is_told(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    Events would be returned, and a late consumer would find nothing.
    """
    name_broker(monkeypatch, broker)
    findings()
    with broker.connect() as connection:
        connection.channel().queue_unbind("workflow.events.archive.q", "workflow.events.x", "#")

    told = doctor()

    assert told.exit_code == 1
    assert "✗ publish       " in told.stdout
    assert "the broker returned it" in told.stdout
    assert "bind workflow.events.archive.q to workflow.events.x with '#'" in told.stdout


def test_an_exchange_that_knows_no_patterns_is_told(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    It accepts events, but no subscription would get one.
    """
    name_broker(monkeypatch, broker)
    with broker.connect() as connection:
        channel = connection.channel()
        elsewhere = {"alternate-exchange": "amq.fanout"}
        channel.exchange_declare("workflow.events.x", "direct", durable=True, arguments=elsewhere)
        channel.queue_declare("anything")
        channel.queue_bind("anything", "amq.fanout")

        told = doctor()

    assert told.exit_code == 1
    assert "✗ subscribe     a probe message was not received within 5 s" in told.stdout
    assert "workflow.events.x may not be a topic exchange" in told.stdout


def test_unreadable_tls_files_are_told(monkeypatch: pytest.MonkeyPatch, refusing_port: int, tmp_path: Path) -> None:
    """
    The error comes before a connection is opened.
    """
    name_port(monkeypatch, refusing_port)
    monkeypatch.setenv("ISB_TLS_CA", str(tmp_path / "missing.pem"))

    status, detail = findings()["broker"]

    assert status == "wrong"
    assert detail.startswith(f"ISB_TLS_CA: found '{tmp_path / 'missing.pem'}', expected a PEM file that can be read")


# The outbox


def test_what_waits_for_a_broker_is_counted(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path, refusing_port: int
) -> None:
    """
    This includes the outbox of a broker that the settings no longer name.
    """
    (state_dir / "outbox-00000000.db").write_text("this is no outbox, and none of the doctor's business")
    name_port(monkeypatch, refusing_port)
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("A"), started("B"))

    before = findings()
    shown = doctor().stdout
    monkeypatch.setenv("ISB_VHOST", "another")
    after = findings()
    monkeypatch.delenv("MESH_CONFIG")
    advice = doctor().stdout

    assert before["outbox"][1].endswith("; pending: 2")
    assert shown.count("`dkist-core outbox drain` does so now") == 1
    assert after["outbox"][1].endswith("; pending: 0")
    assert after["other outbox"][1].endswith(" is for another broker than these settings name; pending: 2")
    assert after["other outbox"][0] == "skipped"
    # Without a broker in the settings, `outbox retarget` has no target.
    assert "if that broker has moved, name its new address in MESH_CONFIG and run `dkist-core outbox retarget" in advice


def test_what_the_broker_refused_is_told(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    """
    An operator must handle a message that was set aside.
    """
    name_port(monkeypatch, refusing_port)
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(started("A"))
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        journal.record_refusal(journal.last(), "no such exchange", max_tries=1)

    status, detail = findings()["outbox"]

    assert status == "wrong"
    assert detail.endswith("; pending: 0, set aside: 1")


# The collectors


def test_collectors_are_knocked_at_and_told_with_their_variables(
    monkeypatch: pytest.MonkeyPatch, otlp: OtlpReceiver, refusing_port: int
) -> None:
    """
    One signal has its own variable, one that of all signals, one the mesh.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", otlp.grpc_endpoint)
    monkeypatch.setenv("MESH_CONFIG", json.dumps({"otlp-logs-endpoint": mesh_of(refusing_port)}))

    told, found = doctor(), findings()

    assert told.exit_code == 1
    assert found["traces"][0] == "ok"
    assert found["traces"][1].endswith("(grpc, named by OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)")
    assert found["metrics"] == ("skipped", "nothing is exported")
    assert found["logs"][0] == "wrong"
    assert f"127.0.0.1:{refusing_port} (grpc, named by otlp-logs-endpoint in MESH_CONFIG)" in found["logs"][1]
    assert "start the collector there, or correct otlp-logs-endpoint in MESH_CONFIG" in told.stdout


def test_one_variable_may_name_the_collector_of_all_signals(
    monkeypatch: pytest.MonkeyPatch, otlp: OtlpReceiver
) -> None:
    """
    The finding contains the protocol that is used there.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.http_endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")

    found = findings()

    assert [found[signal][0] for signal in ("traces", "metrics", "logs")] == ["ok"] * 3
    assert "(http/protobuf, named by OTEL_EXPORTER_OTLP_ENDPOINT)" in found["metrics"][1]


def test_what_is_turned_off_is_not_knocked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is not an error either.
    """
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    partly = findings()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    wholly = findings()

    assert partly["traces"] == ("skipped", "written to the console: OTEL_TRACES_EXPORTER is console")
    assert partly["logs"] == ("skipped", "not exported: OTEL_LOGS_EXPORTER is none")
    assert wholly["telemetry"] == ("skipped", "turned off by OTEL_SDK_DISABLED")


def test_an_exporter_without_an_endpoint_goes_to_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The specification has a default, which is reported with the variable that led to it.
    """
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")

    detail = findings()["traces"][1]

    assert "localhost:4317 (grpc, named by OTEL_TRACES_EXPORTER alone)" in detail


def mesh_of(port: int) -> dict[str, str | int]:
    """
    Return how the mesh names a service on this host.
    """
    return {"mesh_address": "127.0.0.1", "mesh_port": port}


# The archive


@pytest.mark.parametrize(
    "is_remote",
    [
        pytest.param(True, marks=[pytest.mark.rabbitmq, pytest.mark.versions, pytest.mark.processes], id="rabbitmq"),
        pytest.param(False, id="embedded"),
    ],
)
def test_the_span_of_the_archive_is_told(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    local_zone: Callable[[str], None],
    *,
    is_remote: bool,
) -> None:
    """
    The oldest and the newest event that can still be replayed, and the number of messages; probes are no events.
    """
    if is_remote:
        name_broker(monkeypatch, request.getfixturevalue("broker"))
        assert findings()["archive"] == ("ok", "it holds no event yet")
    local_zone("UTC")
    old, new = datetime(2026, 11, 22, 12, tzinfo=UTC), datetime(2026, 11, 24, 12, tzinfo=UTC)
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(*(started(f"T{number}", time=old) for number in range(300)), started("A", time=new))
        assert publisher.flush(SECONDS)

    (status, detail) = findings()["archive"]

    assert status == "ok"
    if is_remote:
        # Two probes of each examination.
        assert detail == "305 messages; oldest event 2026-11-22 12:00:00, newest 2026-11-24 12:00:00 (2 d 0 h)"
    else:
        assert detail.startswith(f"301 messages; oldest event {datetime.now(UTC):%Y-%m-%d} ")


def test_the_queue_of_a_consumer_that_nothing_reads_is_told(
    monkeypatch: pytest.MonkeyPatch, broker: Broker, tmp_path: Path
) -> None:
    """
    The queue of a former name fills until it expires. A consumer that has read everything is no finding.
    """
    name_broker(monkeypatch, broker)
    inboxes = {"former": None, "elsewhere": f"sqlite:///{tmp_path}/other.db", "present": None}
    for name, inbox in inboxes.items():
        consumer = Consumer(name, inbox=inbox)
        consumer.on("task.failed")(lambda _: None)
        consumer.run(until_idle=True)
    before = findings()
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(failed("A"), failed("B"))
        assert publisher.flush(SECONDS)
    consumer.run(until_idle=True)
    ended = doctor("--json", "--inbox", str(inboxes["elsewhere"]))
    check, other = (each for each in json.loads(ended.stdout)["checks"] if each["name"] == "consumers")

    assert "consumers" not in before
    assert check["status"] == "skipped"
    assert check["detail"] == "the queue of the consumer 'former' holds 2 events, and nothing reads it"
    assert other["detail"] == "the queue of the consumer 'elsewhere' holds 2 events, and nothing reads it"
    assert f"`rabbitmqctl --vhost {broker.vhost} delete_queue former` removes its queue" in check["advice"]


def test_each_inbox_is_checked_and_an_unusable_one_is_told(state_dir: Path, tmp_path: Path) -> None:
    """
    The one of the settings if there is one, and those that are named. None is made or migrated.
    """
    before = findings()
    other, missing, earlier = (f"sqlite:///{tmp_path}/{name}.db" for name in ("other", "missing", "earlier"))
    for url in (None, other):
        consumer = Consumer("actor", inbox=url, max_tries=1)
        consumer.on("task.failed")(lambda _: 1 / 0)
        with InMemoryBus() as bus:
            bus.publish(failed("A"))
            consumer.run(since="first", until_idle=True)
    with closing(sqlite3.connect(tmp_path / "earlier.db")) as connection:
        connection.execute("CREATE TABLE dkist_core_version (version_num TEXT)")
        connection.execute("INSERT INTO dkist_core_version VALUES ('0001')")
        connection.commit()
    urls = (other, missing, earlier, f"sqlite:///{tmp_path}")
    ended = doctor("--json", *(word for url in urls for word in ("--inbox", url)))
    found = [each for each in json.loads(ended.stdout)["checks"] if each["name"] == "inbox"]

    unusable = (
        f"the inbox sqlite:///{tmp_path} cannot be used: found a folder; expected a file that this user may read and "
        f"write, or a new one in such a folder: {tmp_path.parent}"
    )
    assert "inbox" not in before
    assert [(each["status"], each["detail"].partition(": nothing was changed")[0]) for each in found] == [
        ("ok", f"sqlite:///{state_dir}/inbox.db can be read; dead letters: 1"),
        ("ok", f"{other} can be read; dead letters: 1"),
        ("skipped", f"there is no inbox {tmp_path}/missing.db"),
        ("skipped", f"the tables of the inbox {earlier} have the version 0001, expected {HEAD}"),
        ("wrong", unusable),
    ]
    assert found[0]["advice"] == "`dkist-core dead-letters list` shows them"
    assert ended.exit_code == 1
    assert not (tmp_path / "missing.db").exists()


def test_a_name_that_was_not_used_for_a_day_is_told() -> None:
    """
    The embedded journal keeps events for it. A name that is in use, or has read everything, is no finding.
    """
    for name in ("former", "present"):
        subscribe("task.failed", name=name).close()
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(failed("A"))
        assert publisher.flush(SECONDS)
    before = findings()
    with closing(sqlite3.connect(open_bus(DKISTProcessingCoreConfiguration.read()).journal_path)) as connection:
        connection.execute("UPDATE subscription SET used = used - 2 * 86400 WHERE name = 'former'")
        connection.commit()

    assert "consumers" not in before
    assert findings()["consumers"] == (
        "skipped",
        "the journal has events that 'former' has not read, and it was last used 2 d 0 h ago",
    )


def test_an_account_that_may_not_read_the_archive_is_told(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """
    A publisher does not need the permission.
    """
    name_broker(monkeypatch, broker)
    findings()
    name_broker(monkeypatch, broker.as_user(write=".*"))

    status, detail = findings()["archive"]

    assert status == "skipped"
    assert "access to queue 'workflow.events.archive.q'" in detail
