"""
The services for other tests behave as those tests expect.
"""

import http.client
import json
import os
import shlex
import signal
import socket
import socketserver
import ssl
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode

from tests.services import processes
from tests.services.broker import Broker, open_broker
from tests.services.otlp import OtlpReceiver
from tests.services.postgres import PostgresError, PostgresServer
from tests.services.processes import (
    SESSION_VARIABLE,
    Listener,
    SessionWatch,
    descendants,
    is_alive,
    listeners,
    marked,
    wait_for_end,
)
from tests.services.prometheus import PrometheusError, PrometheusServer, promtool
from tests.services.proxy import Proxy
from tests.services.rabbitmq import NodeError, RabbitMQNode
from tests.services.redis import RedisError, RedisServer
from tests.services.sockets import BlackHole, closed_port, free_ports
from tests.services.storage import disk_folder, file_system
from tests.services.tls import CertificateAuthority, TlsFiles

ROOT = Path(__file__).parents[1]
INSTALL = Path(__file__).with_name("services") / "install_packages.sh"
RABBITMQ, POSTGRESQL = "/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/lib/postgresql/*/bin/initdb"
FETCH = INSTALL.with_name("fetch_rabbitmq.sh")
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


def _publish(broker: Broker, queue: str, body: bytes) -> None:
    """
    Put one persistent message in a durable queue and wait for the node's confirmation.
    """
    with broker.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True)
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def _take(broker: Broker, queue: str) -> bytes | None:
    """
    Take one message from a queue.
    """
    with broker.connect() as connection:
        body: bytes | None = connection.channel().basic_get(queue, auto_ack=True)[2]
        return body


class TestNode:
    """
    The private RabbitMQ node.
    """

    def test_broker_takes_and_gives_messages(self, broker: Broker) -> None:
        """
        A message published on the shared node comes out again.
        """
        _publish(broker, "q", b"one")

        assert _take(broker, "q") == b"one"

    def test_env_names_the_broker(self, broker: Broker) -> None:
        """
        A process that only reads the variables reaches the same virtual host.
        """
        _publish(broker, "q", b"one")
        env = broker.env

        address = json.loads(env["MESH_CONFIG"])["interservice-bus"]
        credentials = pika.PlainCredentials(env["ISB_USERNAME"], env["ISB_PASSWORD"])
        parameters = pika.ConnectionParameters(
            address["mesh_address"], address["mesh_port"], env["ISB_VHOST"], credentials
        )
        with pika.BlockingConnection(parameters) as connection:
            waiting = connection.channel().queue_declare("q", passive=True).method.message_count

        assert waiting == 1

    def test_tests_do_not_see_each_other(self, rabbitmq: RabbitMQNode) -> None:
        """
        A queue of one test does not exist in the next test, even with the same name.
        """
        with open_broker(rabbitmq) as first, open_broker(rabbitmq) as second:
            _publish(first, "q", b"one")

            with (
                second.connect() as connection,
                pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"),
            ):
                connection.channel().queue_declare("q", passive=True)

    def test_virtual_host_is_deleted_after_the_test(self, rabbitmq: RabbitMQNode) -> None:
        """
        Exchanges and queues that a test has declared are deleted after it.
        """
        with open_broker(rabbitmq) as broker:
            assert broker.vhost in rabbitmq.ctl("list_vhosts").split()

        assert broker.vhost not in rabbitmq.ctl("list_vhosts").split()

    def test_password_is_not_in_the_repr(self, broker: Broker) -> None:
        """
        The representation of a broker does not contain its password.
        """
        assert broker.password not in repr(broker)

    def test_user_has_only_the_rights_given(self, broker: Broker) -> None:
        """
        A user without the configure permission cannot declare, but can write.
        """
        _publish(broker, "q", b"one")
        writer = broker.as_user(write=".*")

        with (
            writer.connect() as connection,
            pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"),
        ):
            connection.channel().queue_declare("other")
        with writer.connect() as connection:
            connection.channel().basic_publish("", "q", b"two")

        assert [_take(broker, "q"), _take(broker, "q")] == [b"one", b"two"]

    def test_killed_node_comes_back_with_its_data(self, broker: Broker) -> None:
        """
        After SIGKILL the port refuses connections. Started again, the node has the same port and the confirmed message.
        """
        _publish(broker, "q", b"one")

        broker.node.kill()

        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((broker.host, broker.port))
        broker.node.start()
        assert _take(broker, "q") == b"one"

    def test_stopped_node_comes_back_with_its_data(self, broker: Broker) -> None:
        """
        After an orderly stop, data and ports are the same.
        """
        _publish(broker, "q", b"one")

        broker.node.stop()
        broker.node.start()

        assert _take(broker, "q") == b"one"

    def test_next_test_finds_the_node_healthy(self, rabbitmq: RabbitMQNode) -> None:
        """
        A node that was left dead, or blocked by its alarm, is repaired for the next test.
        """
        with open_broker(rabbitmq) as first:
            first.node.memory_alarm(on=True)
        with open_broker(rabbitmq) as second:
            _publish(second, "q", b"one")
            second.node.kill()
        with open_broker(rabbitmq) as third:
            _publish(third, "q", b"two")

            assert _take(third, "q") == b"two"

    def test_kill_leaves_no_process(self, broker: Broker) -> None:
        """
        After `kill`, the virtual machine and all its helper processes are gone.
        """
        pids = {broker.node.pid, *descendants(broker.node.pid)}

        broker.node.kill()

        assert len(pids) > 1
        assert not any(is_alive(pid) for pid in pids)

    def test_node_listens_on_loopback_only(self, broker: Broker) -> None:
        """
        Only the AMQP port and the distribution port are open, even if the node has a stream.
        """
        with broker.connect() as connection:
            stream = {"x-queue-type": "stream"}
            connection.channel().queue_declare("s", durable=True, arguments=stream)
        node = broker.node

        found = listeners({node.pid, *descendants(node.pid)})

        assert node.port in {listener.port for listener in found}
        assert len(found) == 2
        assert all(listener.is_loopback for listener in found)

    def test_program_that_the_node_starts_listens_on_loopback_only(self, broker: Broker) -> None:
        """
        The node starts an epmd every minute if none answers. A program that is started like that is bound to loopback,
        too.
        """
        # Unlike the node's epmd it stays, and needs no epmd.
        arguments = '["-boot", "no_dot_erlang", "-sname", "starter", "-noinput", "-start_epmd", "false", '
        arguments += '"-erl_epmd_port", "0", "-eval", "io:format(\\"started\\")."]'
        started = broker.node.eval(
            f"Port = open_port({{spawn_executable, rabbit_runtime:get_erl_path()}}, [{{args, {arguments}}}, "
            "exit_status, stderr_to_stdout, use_stdio]), {os_pid, Pid} = erlang:port_info(Port, os_pid), "
            'receive {Port, {data, "started"}} -> Pid; {Port, Other} -> Other after 20000 -> late end.'
        )
        pid = int(started)
        try:
            found = listeners({pid})
        finally:
            os.kill(pid, signal.SIGKILL)

        assert [listener.address for listener in found] == [broker.host]

    def test_memory_alarm_blocks_publishers_until_cleared(self, broker: Broker) -> None:
        """
        The alarm is real: a publisher is notified that it is blocked, and later that it is not.
        """
        states: list[str] = []
        with broker.connect() as connection:
            connection.add_on_connection_blocked_callback(lambda *_: states.append("blocked"))
            connection.add_on_connection_unblocked_callback(lambda *_: states.append("unblocked"))
            channel = connection.channel()

            broker.node.memory_alarm(on=True)
            channel.basic_publish("", "q", b"one")
            _process_until(connection, lambda: states == ["blocked"])
            broker.node.memory_alarm(on=False)
            _process_until(connection, lambda: states == ["blocked", "unblocked"])

        assert states == ["blocked", "unblocked"]

    def test_paused_node_is_silent_and_then_goes_on(self, broker: Broker) -> None:
        """
        A frozen node accepts a connection and sends nothing until it is resumed.
        """
        broker.node.pause()
        with socket.create_connection((broker.host, broker.port), timeout=0.2) as connection:
            connection.sendall(PROTOCOL_HEADER)

            with pytest.raises(TimeoutError):
                connection.recv(1)
            broker.node.resume()
            connection.settimeout(10)
            assert connection.recv(1) == b"\x01"

    def test_node_can_close_connections(self, broker: Broker) -> None:
        """
        The node closes the connections of this virtual host, with the reason.
        """
        with broker.connect() as connection:
            broker.close_connections("a test")

            with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="a test"):
                _process_until(connection, lambda: False)

    @pytest.mark.rabbitmq
    def test_node_that_cannot_start_says_why(self, tmp_path: Path) -> None:
        """
        The error ends with the node's log, and no process is left.
        """
        node = RabbitMQNode(tmp_path / "node")
        with socket.create_server((node.host, node.port)), pytest.raises(NodeError, match="eaddrinuse"):
            node.start()

        assert not node.is_running

    @pytest.mark.rabbitmq
    def test_node_dies_with_the_process_that_started_it(self, tmp_path: Path) -> None:
        """
        The node of a killed test process ends, without any clean-up by that process.
        """
        script = (
            "import sys, pathlib\n"
            "from tests.services.rabbitmq import RabbitMQNode\n"
            "node = RabbitMQNode(pathlib.Path(sys.argv[1]))\n"
            "node.start()\n"
            "print(node.pid, flush=True)\n"
            "sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "node")]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            node = int(process.stdout.readline())
            pids = {node, *descendants(node)}

            process.kill()

            assert wait_for_end(pids, 10) == set()

    @pytest.mark.rabbitmq
    def test_tls_listener_wants_a_certificate(self, tmp_path: Path) -> None:
        """
        A client with a certificate of the authority is accepted, one without is refused.
        """
        authority = CertificateAuthority(tmp_path / "authority")
        client = authority.issue("client")
        with RabbitMQNode(tmp_path / "node", tls=authority.issue("server")) as node:
            answer = _speak_tls(node, client, with_certificate=True)

            assert answer == b"\x01"
            assert _speak_tls(node, client, with_certificate=False) == b""


def _process_until(connection: pika.BlockingConnection, condition: Callable[[], bool]) -> None:
    """
    Let pika work until the condition holds, for 20 s at most.
    """
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        connection.process_data_events(time_limit=0.1)


def _speak_tls(node: RabbitMQNode, files: TlsFiles, *, with_certificate: bool) -> bytes:
    """
    Return the first byte that the node answers over TLS, or nothing if it refuses the client.
    """
    context = ssl.create_default_context(cafile=files.ca)
    if with_certificate:
        context.load_cert_chain(files.certificate, files.key)
    assert node.tls_port is not None
    with (
        socket.create_connection((node.host, node.tls_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
        # With TLS 1.3 the refusal follows the handshake, as an alert or as the end of the connection.
        suppress(ssl.SSLError, ConnectionError),
    ):
        connection.sendall(PROTOCOL_HEADER)
        return connection.recv(1)
    return b""


class TestInstaller:
    """
    The script that installs the package.
    """

    def test_nothing_is_done_where_the_package_is_installed(self, broker: Broker) -> None:
        """
        If RabbitMQ is installed, as the running node proves, the script succeeds without output.
        """
        assert broker.node.is_running

        done = subprocess.run([INSTALL], capture_output=True, text=True, check=False)

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize("arguments", [["--check"], []], ids=["check", "install"])
    def test_missing_package_is_one_sentence(self, tmp_path: Path, arguments: list[str]) -> None:
        """
        If the package is missing and cannot be installed, one sentence names it.
        """
        script = tmp_path / "install.sh"
        script.write_text(
            INSTALL.read_text().replace("/usr/lib/rabbitmq/bin/rabbitmq-server", "/nowhere/rabbitmq-server")
        )

        # With an empty PATH, apt-get is not found.
        done = subprocess.run(
            ["/bin/sh", script, *arguments], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False
        )

        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("RabbitMQ is missing: install the package rabbitmq-server")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("is_check", [True, False], ids=["check", "install"])
    @pytest.mark.parametrize(
        ("argument", "present", "missing", "sentence"),
        [
            (
                "postgresql",
                [],
                ("/usr/lib/postgresql/", "/nowhere/"),
                "PostgreSQL is missing: install the package postgresql ",
            ),
            (
                "redis",
                [POSTGRESQL],
                ("/usr/bin/redis-server", "/nowhere/redis-server"),
                "Redis is missing: install the package redis-server ",
            ),
            (
                "prometheus",
                [POSTGRESQL, "/usr/bin/redis-server"],
                ("/usr/bin/prometheus", "/nowhere/prometheus"),
                "Prometheus is missing: install the package prometheus ",
            ),
            (
                "strace",
                [POSTGRESQL, "/usr/bin/redis-server", "/usr/bin/prometheus"],
                ("/bin/sh", "/bin/sh"),
                "strace is missing: install the package strace",
            ),
        ],
        ids=["postgresql", "redis", "prometheus", "strace"],
    )
    def test_the_only_missing_program_is_one_sentence(
        self,
        tmp_path: Path,
        argument: str,
        present: list[str],
        missing: tuple[str, str],
        sentence: str,
        *,
        is_check: bool,
    ) -> None:
        """
        If only one is missing, the sentence names its package. strace is missing by the empty search path.
        """
        text = INSTALL.read_text()
        for program in (RABBITMQ, *present):
            text = text.replace(program, "/bin/sh")
        script = tmp_path / "install.sh"
        script.write_text(text.replace(*missing))
        arguments = ["--check", argument] if is_check else []

        done = subprocess.run(
            ["/bin/sh", script, *arguments], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(sentence)
        assert done.stderr.count("\n") == 1

    def test_broker_is_not_missed_for_want_of_strace(self, tmp_path: Path) -> None:
        """
        Tests that only need RabbitMQ run without strace.
        """
        script = tmp_path / "install.sh"
        script.write_text(INSTALL.read_text().replace("/usr/lib/rabbitmq/bin/rabbitmq-server", "/bin/sh"))

        done = subprocess.run(
            ["/bin/sh", script, "--check"], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class TestFetch:
    """
    The script that fetches the RabbitMQ of another Debian suite.
    """

    @pytest.mark.parametrize(
        "machine", ["ID=ubuntu\nPRETTY_NAME='Ubuntu 24.04'\n", "ID=debian\n"], ids=["Ubuntu", "user"]
    )
    def test_a_machine_that_cannot_run_it_is_one_sentence(self, tmp_path: Path, machine: str) -> None:
        """
        Without root, or on another system, the suite uses the system's RabbitMQ.
        """
        (tmp_path / "os-release").write_text(machine)
        script = tmp_path / "tests" / "services" / "fetch_rabbitmq.sh"
        script.parent.mkdir(parents=True)
        text = FETCH.read_text().replace("/etc/os-release", shlex.quote(str(tmp_path / "os-release")))
        script.write_text(text.replace("EUID == 0", "1 == 0"))

        done = subprocess.run(["bash", script, "trixie"], capture_output=True, text=True, check=False)

        assert (done.returncode, done.stdout.strip()) == (0, "")
        assert done.stderr.startswith("Only the system's RabbitMQ is tested: ")
        assert done.stderr.count("\n") == 1

    def test_a_suite_that_is_missing_is_one_sentence(self) -> None:
        """
        The sentence names the script that downloads it.
        """
        done = subprocess.run([FETCH, "--check", "nosuch"], capture_output=True, text=True, check=False)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == ("RabbitMQ of nosuch is missing: fetch it by tests/services/fetch_rabbitmq.sh nosuch.\n")


class TestPostgres:
    """
    The private PostgreSQL server.
    """

    @pytest.mark.airflow
    def test_database_is_copied_from_a_template(self) -> None:
        """
        A new database has the content of its template, and its address names it.
        """
        with PostgresServer() as server:
            server.create_database("first")
            server.execute("CREATE TABLE facts AS SELECT 7 AS number, 'seven' AS name", database="first")

            url = server.create_database("second", template="first")

            assert url == f"postgresql+psycopg2://core:{server.password}@127.0.0.1:{server.port}/second"
            assert server.execute("SELECT * FROM facts", database="second") == "7|seven"

    @pytest.mark.airflow
    @pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill], ids=["stopped", "killed"])
    def test_ended_server_comes_back_with_its_data(self, end: Callable[[PostgresServer], None]) -> None:
        """
        After an orderly stop or a kill, the server has the committed data and the same port.
        """
        with PostgresServer() as server:
            server.execute("CREATE TABLE facts AS SELECT 7 AS number")
            pids = {server.pid, *descendants(server.pid)}

            end(server)

            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((server.host, server.port))
            assert not any(is_alive(pid) for pid in pids)
            server.start()
            assert server.execute("SELECT number FROM facts") == "7"

    @pytest.mark.airflow
    def test_server_listens_on_loopback_only_and_asks_for_the_password(self) -> None:
        """
        One port is open, with the password only, and no socket is in the file system.
        """
        with PostgresServer() as server:
            found = listeners({server.pid, *descendants(server.pid)})
            server.password = "wrong"

            with pytest.raises(PostgresError, match="password authentication failed"):
                server.execute("SELECT 1")
            assert [(listener.address, listener.port) for listener in found] == [(server.host, server.port)]
            assert not [path for path in server.folder.rglob("*") if path.is_socket()]

    @pytest.mark.airflow
    def test_nothing_is_left(self) -> None:
        """
        After it is closed, the server leaves no process, no file and no shared memory.
        """
        with PostgresServer() as server:
            pids = {server.pid, *descendants(server.pid)}
            folder = server.folder
            segments = _segments_of(pids)

        assert segments
        assert not any(is_alive(pid) for pid in pids)
        assert not folder.exists()
        assert _segments_of(pids) == set()

    @pytest.mark.airflow
    def test_server_that_cannot_start_says_why(self) -> None:
        """
        The error ends with the server's log, and no file or process is left.
        """
        server = PostgresServer()
        with socket.create_server((server.host, server.port)), pytest.raises(PostgresError, match="Address already in"):
            server.start()

        assert not server.is_running

    @pytest.mark.airflow
    def test_server_dies_with_the_process_that_started_it(self, tmp_path: Path) -> None:
        """
        The server of a killed test process ends, and its shared memory is removed.
        """
        script = (
            "import sys\n"
            "from tests.services.postgres import PostgresServer\n"
            "server = PostgresServer()\n"
            "server.start()\n"
            "print(server.pid, server.folder, flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            server, folder = process.stdout.readline().split()
            pids = {int(server), *descendants(int(server))}

            process.kill()

            assert wait_for_end(pids, 10) == set()
        Path(folder).rename(tmp_path / "left")  # removed with the folder of the test
        assert _segments_of(pids) == set()


def _segments_of(pids: set[int]) -> set[str]:
    """
    Return the ids of the System V shared memory that these processes created.
    """
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    creator = lines[0].split().index("cpid")
    return {line.split()[1] for line in lines[1:] if int(line.split()[creator]) in pids}


class TestRedis:
    """
    The private Redis server.
    """

    @pytest.mark.clients
    def test_server_listens_on_loopback_only_and_writes_nothing_but_its_log(self, tmp_path: Path) -> None:
        """
        It answers at the address of its variable, and writes its data to no file.
        """
        with RedisServer(tmp_path / "redis") as server:
            address = json.loads(server.env["MESH_CONFIG"])["automated-processing-scratch-inventory"]
            answers = [server.ask("SET", "key", "value"), server.ask("PING")]
            found = listeners({server.pid})

        assert (address["mesh_address"], address["mesh_port"]) == ("127.0.0.1", server.port)
        assert answers == ["+OK", "+PONG"]
        assert [(listener.address, listener.port) for listener in found] == [(server.host, server.port)]
        assert [path.name for path in server.folder.iterdir()] == ["output.log"]

    @pytest.mark.clients
    def test_server_is_ended_and_begins_anew(self, tmp_path: Path) -> None:
        """
        It leaves no process, and is empty after the next start.
        """
        server = RedisServer(tmp_path / "redis")
        with server:
            server.ask("SET", "key", "value")
            pid = server.pid

        assert not is_alive(pid)
        assert not server.is_running
        with server:
            assert server.ask("EXISTS", "key") == ":0"

    @pytest.mark.clients
    def test_redis_that_cannot_start_says_why(self, tmp_path: Path) -> None:
        """
        If another process has the port, the error ends with the server's log, and no process is left.
        """
        server = RedisServer(tmp_path / "redis")
        with socket.create_server((server.host, server.port)), pytest.raises(RedisError, match="Address already in"):
            server.start()

        assert not server.is_running

    @pytest.mark.clients
    def test_redis_dies_with_the_process_that_started_it(self, tmp_path: Path) -> None:
        """
        The server of a killed test process ends.
        """
        script = (
            "import sys\n"
            "from pathlib import Path\n"
            "from tests.services.redis import RedisServer\n"
            "server = RedisServer(Path(sys.argv[1]))\n"
            "server.start()\n"
            "print(server.pid, flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "redis"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            server = int(process.stdout.readline())
            assert is_alive(server)

            process.kill()

            assert wait_for_end({server}, 10) == set()


class TestPrometheus:
    """
    The private Prometheus server.
    """

    pytestmark = pytest.mark.prometheus

    def test_it_scrapes_queries_and_fires_on_loopback_only(self, tmp_path: Path) -> None:
        """
        A server that scrapes itself has its target's health, a series for a query, and an alert that fires.
        """
        server = PrometheusServer(tmp_path / "prometheus", {})
        rule = {"alert": "Always", "expr": "up == 1"}
        (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "group", "rules": [rule]}]}))
        scrape = {"job_name": "itself", "static_configs": [{"targets": [f"{server.host}:{server.port}"]}]}
        server.settings = {
            "global": {"scrape_interval": "100ms", "scrape_timeout": "100ms", "evaluation_interval": "100ms"},
            "rule_files": [str(tmp_path / "rules.yaml")],
            "scrape_configs": [scrape],
        }
        with server:
            fired = server.wait_for(PrometheusServer.firing)
            series = server.query("up")
            found = listeners({server.pid})

            with pytest.raises(PrometheusError, match="parse error"):
                server.query("up{")
            with pytest.raises(TimeoutError, match=r"targets: \{'itself': 'up'\}, firing: \{'Always'\}"):
                server.wait_for(lambda _: False, timeout=0)
            assert server.targets() == {"itself": "up"}
            assert server.exemplars("up") == []

        assert fired == {"Always"}
        assert [each["metric"]["job"] for each in series] == ["itself"]
        assert [(listener.address, listener.port) for listener in found] == [(server.host, server.port)]
        assert not server.is_running

    def test_prometheus_that_cannot_start_says_why(self, tmp_path: Path) -> None:
        """
        If its settings are wrong, the error ends with the server's log, and no process is left.
        """
        server = PrometheusServer(tmp_path / "prometheus", {"misspelt": 1})
        with pytest.raises(PrometheusError, match="field misspelt not found"):
            server.start()

        assert not server.is_running

    def test_promtool_answers(self, tmp_path: Path) -> None:
        """
        Its exit status and output are those of the check.
        """
        (tmp_path / "rules.yaml").write_text("groups: [{name: group, rules: [{record: a, expr: '1 +'}]}]")

        checked = promtool("check", "rules", tmp_path / "rules.yaml")

        assert checked.returncode == 1
        assert "parse error" in checked.stderr

    def test_prometheus_dies_with_the_process_that_started_it(self, tmp_path: Path) -> None:
        """
        The server of a killed test process ends.
        """
        script = (
            "import sys\n"
            "from pathlib import Path\n"
            "from tests.services.prometheus import PrometheusServer\n"
            "server = PrometheusServer(Path(sys.argv[1]), {})\n"
            "server.start()\n"
            "print(server.pid, flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "prometheus"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())

            process.kill()

            assert wait_for_end([pid], 10) == set()


def _exporters(receiver: OtlpReceiver, protocol: str) -> tuple[Any, Any, Any]:
    """
    Create the SDK's exporters of spans, metrics and logs that send to the receiver.
    """
    if protocol == "grpc":
        endpoint = receiver.grpc_endpoint
        return (
            GrpcSpanExporter(endpoint, insecure=True),
            GrpcMetricExporter(endpoint, insecure=True),
            GrpcLogExporter(endpoint, insecure=True),
        )
    endpoint = receiver.http_endpoint
    return (
        # One of them is compressed: the receiver reads both forms.
        HttpSpanExporter(f"{endpoint}/v1/traces", compression=Compression.Gzip),
        HttpMetricExporter(f"{endpoint}/v1/metrics"),
        HttpLogExporter(f"{endpoint}/v1/logs"),
    )


@pytest.mark.parametrize("protocol", ["grpc", "http"])
class TestOtlpReceiver:
    """
    The OTLP receiver, fed by the real SDK.
    """

    def test_spans_arrive_whole(self, otlp: OtlpReceiver, protocol: str) -> None:
        """
        Name, ids, kind, status, attributes, resource, scope, event and link of a span arrive unchanged.
        """
        provider = TracerProvider(resource=Resource.create({"service.name": "tests"}), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(_exporters(otlp, protocol)[0]))
        tracer = provider.get_tracer("a scope")
        with tracer.start_as_current_span("parent", kind=SpanKind.SERVER) as parent:
            link = Link(parent.get_span_context(), {"why": "test"})
            with tracer.start_as_current_span("child", links=[link], attributes={"n": 1, "list": ["a", "b"]}) as child:
                child.add_event("happened", {"ok": True})
                child.set_status(StatusCode.ERROR, "broken")
        provider.shutdown()

        inner, outer = otlp.wait_for(lambda receiver: len(receiver.spans()) == 2 and receiver.spans()) or []

        assert (outer.name, outer.kind, outer.status_code, outer.parent_id) == ("parent", "SERVER", "UNSET", "")
        assert (inner.name, inner.kind, inner.status_code) == ("child", "INTERNAL", "ERROR")
        assert inner.status_message == "broken"
        assert outer.trace_id == inner.trace_id == f"{parent.get_span_context().trace_id:032x}"
        assert inner.parent_id == outer.span_id == f"{parent.get_span_context().span_id:016x}"
        assert inner.attributes == {"n": 1, "list": ["a", "b"]}
        assert inner.resource["service.name"] == "tests"
        assert inner.scope == "a scope"
        assert outer.start <= inner.start <= inner.end <= outer.end
        assert [(event.name, event.attributes) for event in inner.events] == [("happened", {"ok": True})]
        assert [(found.span_id, found.attributes) for found in inner.links] == [(outer.span_id, {"why": "test"})]

    def test_metrics_arrive_whole(self, otlp: OtlpReceiver, protocol: str) -> None:
        """
        A counter and a histogram arrive with values, attributes, unit and buckets.
        """
        reader = PeriodicExportingMetricReader(_exporters(otlp, protocol)[1], export_interval_millis=60_000)
        provider = MeterProvider([reader], shutdown_on_exit=False)
        meter = provider.get_meter("a scope")
        meter.create_counter("counted", unit="{thing}", description="things").add(3, {"kind": "a"})
        meter.create_histogram("measured", unit="s").record(0.5)
        provider.shutdown()

        metrics = otlp.wait_for(OtlpReceiver.metrics)

        counted, measured = (
            next(metric for metric in metrics if metric.name == name) for name in ("counted", "measured")
        )
        assert (counted.kind, counted.unit, counted.description, counted.scope) == (
            "sum",
            "{thing}",
            "things",
            "a scope",
        )
        assert [(point.value, point.attributes) for point in counted.points] == [(3, {"kind": "a"})]
        assert measured.kind == "histogram"
        assert (measured.points[0].count, measured.points[0].value) == (1, 0.5)
        assert sum(measured.points[0].buckets) == 1
        assert len(measured.points[0].buckets) == len(measured.points[0].bounds) + 1

    def test_logs_arrive_whole(self, otlp: OtlpReceiver, protocol: str) -> None:
        """
        A log record arrives with body, severity and attributes.
        """
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(_exporters(otlp, protocol)[2]))
        record = LogRecord(
            body="said", severity_text="WARN", severity_number=SeverityNumber.WARN, attributes={"run": "r1"}
        )
        provider.get_logger("a scope").emit(record)
        provider.shutdown()

        (log,) = otlp.wait_for(OtlpReceiver.logs)

        assert (log.body, log.severity, log.attributes, log.scope) == ("said", "WARN", {"run": "r1"}, "a scope")


def test_receiver_says_what_it_was_waiting_for(otlp: OtlpReceiver) -> None:
    """
    A wait without success ends with an error that lists the received data.
    """
    with pytest.raises(TimeoutError, match=r"received: \{'spans': \[\], 'metrics': \[\], 'logs': \[\]\}"):
        otlp.wait_for(OtlpReceiver.spans, timeout=0.01)


@pytest.mark.parametrize(("path", "status"), [("/v1/traces", 400), ("/v1/other", 404)])
def test_receiver_refuses_what_is_not_otlp(otlp: OtlpReceiver, path: str, status: int) -> None:
    """
    A body that is not protobuf and a path that is not a signal's are errors.
    """
    connection = http.client.HTTPConnection("127.0.0.1", otlp.http_port, timeout=10)
    try:
        connection.request("POST", path, body=b"\xff not protobuf")
        assert connection.getresponse().status == status
    finally:
        connection.close()


class TestSockets:
    """
    Ports that refuse connections or do not answer.
    """

    def test_black_hole_accepts_and_is_silent(self, black_hole: BlackHole) -> None:
        """
        A client connects and sends, and receives nothing.
        """
        with socket.create_connection((black_hole.host, black_hole.port), timeout=0.2) as client:
            client.sendall(PROTOCOL_HEADER)
            black_hole.wait_for_connection()

            with pytest.raises(TimeoutError):
                client.recv(1)

    def test_black_hole_knows_when_nobody_came(self, black_hole: BlackHole) -> None:
        """
        The wait for a client ends after a timeout.
        """
        with pytest.raises(TimeoutError, match="nobody connected"):
            black_hole.wait_for_connection(timeout=0.01)

    def test_refusing_port_refuses(self, refusing_port: int) -> None:
        """
        A connection is refused at once, and no other process can bind the port.
        """
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", refusing_port))
        with pytest.raises(OSError, match="Address already in use"):
            socket.create_server(("127.0.0.1", refusing_port))

    def test_closed_port_is_released(self) -> None:
        """
        After the ``with`` any process may listen there.
        """
        with closed_port() as port:
            pass

        socket.create_server(("127.0.0.1", port)).close()

    def test_free_ports_are_never_a_clients_own(self) -> None:
        """
        The ports are distinct and, if enough are free, outside the range of outgoing connections.
        """
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

        ports = free_ports(50)

        assert len(set(ports)) == 50
        if low > 20_000:
            assert not any(low <= port <= high for port in ports)


class TestProxy:
    """
    A proxy by which a test interrupts the network.
    """

    def test_proxy_passes_bytes_and_counts_them(self, echo: int) -> None:
        """
        Both directions work, and the end of one connection is passed on to the other.
        """
        with Proxy(echo) as proxy, socket.create_connection((proxy.host, proxy.port), timeout=10) as client:
            client.sendall(b"x" * 1_000_000)
            client.shutdown(socket.SHUT_WR)
            answered = sum(len(data) for data in iter(lambda: client.recv(65_536), b""))

        assert answered == 1_000_000
        assert (proxy.accepted, proxy.bytes_sent, proxy.bytes_answered) == (1, 1_000_000, 1_000_000)

    def test_cut_resets_and_new_connections_are_welcome(self, echo: int) -> None:
        """
        Existing connections are reset, and new ones are served.
        """
        with Proxy(echo) as proxy, _client_of(proxy) as client:
            assert _asked(client) == b"?"

            proxy.cut()

            with pytest.raises(ConnectionResetError):
                client.recv(1)
            with _client_of(proxy) as other:
                assert _asked(other) == b"?"

    def test_refused_port_is_the_same_when_it_is_open_again(self, echo: int) -> None:
        """
        While the port refuses, nobody can connect, and existing connections stay.
        """
        with Proxy(echo) as proxy, _client_of(proxy) as client:
            assert _asked(client) == b"?"

            proxy.refuse()

            with pytest.raises(ConnectionRefusedError):
                _client_of(proxy)
            assert _asked(client) == b"?"
            proxy.accept()
            with _client_of(proxy) as other:
                assert _asked(other) == b"?"

    def test_frozen_network_is_silent_and_then_goes_on(self, echo: int) -> None:
        """
        A connection is accepted, and data that is sent on it arrives after the thaw.
        """
        with Proxy(echo) as proxy:
            proxy.freeze()
            with _client_of(proxy) as client:
                client.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    _asked(client)
                proxy.thaw()
                client.settimeout(10)

                assert client.recv(1) == b"?"

    def test_swallowed_answers_are_lost(self, echo: int) -> None:
        """
        Data from the client arrives, answers do not. The thaw ends a connection with missing data.
        """
        with Proxy(echo) as proxy, _client_of(proxy) as client:
            proxy.swallow_answers()
            client.sendall(b"?")
            proxy.wait_for(lambda proxy: proxy.bytes_answered == 1)
            proxy.thaw()

            with pytest.raises(ConnectionResetError):
                client.recv(1)

    def test_proxy_without_a_broker_resets(self, refusing_port: int) -> None:
        """
        A client is reset if no broker is behind the proxy.
        """
        with Proxy(refusing_port) as proxy, pytest.raises(ConnectionResetError), _client_of(proxy) as client:
            client.recv(1)

    def test_waiting_for_what_does_not_move_ends(self, echo: int) -> None:
        """
        The error states the number of bytes that have moved.
        """
        with Proxy(echo) as proxy, pytest.raises(TimeoutError, match="accepted: 0, sent: 0, answered: 0"):
            proxy.wait_for(lambda proxy: proxy.accepted > 0, timeout=0.01)

    def test_proxy_leaves_no_thread(self, echo: int) -> None:
        """
        Its thread has ended at the end of the ``with``.
        """
        with Proxy(echo) as proxy, _client_of(proxy) as client:
            assert _asked(client) == b"?"

        assert "proxy" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def echo() -> Iterator[int]:
    """
    Yield a port that sends back what it receives.
    """

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                for data in iter(lambda: self.request.recv(65_536), b""):
                    self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="echo")
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _client_of(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=10)


def _asked(client: socket.socket) -> bytes:
    client.sendall(b"?")
    return client.recv(1)


class TestProcesses:
    """
    The checks of processes and listeners.
    """

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("127.0.0.1", True),
            ("127.8.0.1", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("0.0.0.0", False),
            ("::", False),
            ("192.0.2.1", False),
            ("::ffff:192.0.2.1", False),
        ],
    )
    def test_loopback_is_told_from_the_rest(self, address: str, expected: bool) -> None:  # noqa: FBT001
        """
        All of 127/8 and the mapped IPv6 addresses are loopback; the wildcard is not.
        """
        assert Listener(address, 1, 1).is_loopback is expected

    @pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
    def test_own_listener_is_found(self, family: socket.AddressFamily, address: str) -> None:
        """
        A listener of this process is found with its address and port, in both families.
        """
        with socket.create_server((address, 0), family=family) as server:
            port = server.getsockname()[1]

            assert (address, port) in {(found.address, found.port) for found in listeners({os.getpid()})}

        assert port not in {found.port for found in listeners({os.getpid()})}

    def test_listener_off_loopback_is_refused(self) -> None:
        """
        The check names the process and the address of a wildcard listener.
        """
        watch = SessionWatch("a session")
        with socket.socket() as server:
            # Bound to every address and yet unreachable: only the loopback device may deliver to it.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            server.bind(("0.0.0.0", 0))
            server.listen()

            with pytest.raises(AssertionError, match=rf"process {os.getpid()} .* listens on 0\.0\.0\.0:"):
                watch.assert_loopback_only()

        watch.assert_loopback_only()

    def test_the_kernel_names_the_listeners_of_its_table(self) -> None:
        """
        The answer of the kernel equals the listeners of its table, which is read if it cannot be asked.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            expected = Listener("127.0.0.1", server.getsockname()[1], os.fstat(server.fileno()).st_ino)

            assert expected in listeners()
            assert expected in list(processes._read_listeners(Path("/proc/net/tcp")))

    def test_orphan_is_found_and_ended(self) -> None:
        """
        A process that its parent left behind is found by the mark of the session, named, and ended.
        """
        session = str(uuid.uuid4())
        watch = SessionWatch(session)
        command = ["/bin/sh", "-c", "sleep 300 >/dev/null 2>&1 &"]
        subprocess.run(command, env={SESSION_VARIABLE: session, "PATH": os.defpath}, check=True)

        with pytest.raises(AssertionError, match=r"left processes behind.*sleep 300"):
            watch.assert_nothing_left(timeout=0)

        assert wait_for_end(marked(session), 5) == set()

    def test_process_that_ends_in_time_is_not_left_behind(self) -> None:
        """
        If a process is still ending at the end of the session, the check waits for it.
        """
        watch = SessionWatch("a session")
        with subprocess.Popen(["/bin/sh", "-c", "read word"], stdin=subprocess.PIPE) as process:
            assert process.pid in descendants(os.getpid())
            process.send_signal(signal.SIGTERM)

            watch.assert_nothing_left(timeout=5)

            assert not is_alive(process.pid)


class TestEnvironment:
    """
    The environment of every test.
    """

    def test_environment_is_clean(self, state_dir: Path) -> None:
        """
        The only setting of the library in the environment is a state folder for this test.
        """
        library = {name for name in os.environ if name.startswith(("DKIST_CORE_", "ISB_", "OTEL_")) or "MESH" in name}

        assert library == {"DKIST_CORE_STATE_DIR", SESSION_VARIABLE}
        assert os.environ["DKIST_CORE_STATE_DIR"] == str(state_dir)
        assert list(state_dir.iterdir()) == []
        assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700

    def test_machines_own_settings_do_not_reach_the_tests(self) -> None:
        """
        The test above passes if the variables are set outside of the suite.
        """
        outside = {"MESH_CONFIG": "{}", "ISB_USERNAME": "u", "OTEL_SDK_DISABLED": "true", "DKIST_CORE_STATE_DIR": "/x"}
        test = f"{Path(__file__).relative_to(ROOT)}::TestEnvironment::test_environment_is_clean"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]

        done = subprocess.run(command, cwd=ROOT, env=os.environ | outside, capture_output=True, text=True, check=False)

        assert "1 passed" in done.stdout

    def test_what_a_test_starts_ignores_no_signal(self) -> None:
        """
        A signal that a test sends to a process has its default effect.
        """
        status = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout

        ignored = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))

        standard = (1 << signal.SIGRTMIN - 3) - 1  # glibc reserves the two signals below SIGRTMIN
        assert int(ignored, 16) & standard == 0

    def test_signals_that_the_suite_ignores_reach_what_a_test_starts(self) -> None:
        """
        The test above passes under nohup and in a shell's background job.
        """
        test = f"{Path(__file__).relative_to(ROOT)}::TestEnvironment::test_what_a_test_starts_ignores_no_signal"
        background = ["/bin/sh", "-c", 'trap "" HUP INT QUIT TERM CHLD; exec "$@"', "sh"]
        command = [*background, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]

        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

        assert "1 passed" in done.stdout, done.stdout

    def test_state_is_kept_on_a_disk(self, tmp_path: Path) -> None:
        """
        A folder in memory is replaced; any other one is used.
        """
        assert file_system(Path("/proc/self")) == "proc"
        with disk_folder(Path("/dev/shm")) as folder:
            assert folder.parent == Path("/var/tmp")
        assert not folder.exists()
        if file_system(tmp_path) != "tmpfs":
            with disk_folder(tmp_path) as folder:
                assert folder == tmp_path
