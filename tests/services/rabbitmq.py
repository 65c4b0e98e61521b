"""
A private RabbitMQ node: the system's package, or that of another Debian suite, run in a separate folder on free
loopback ports.

Not here: an AMQP client, and a test's declarations on the node.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.services.processes import SESSION_VARIABLE, descendants, wait_for_end, with_environment
from tests.services.server import Server
from tests.services.sockets import LOOPBACK, free_ports
from tests.services.tls import TlsFiles

_COMMANDS = Path("/usr/lib/rabbitmq/bin")
_PLUGINS = Path("/usr/lib/rabbitmq/lib")
_INSTALL = Path(__file__).with_name("install_packages.sh")
_FETCH = Path(__file__).with_name("fetch_rabbitmq.sh")
_FETCHED = Path(__file__).parents[2] / ".rabbitmq"

SUITE_VARIABLE = "RABBITMQ_SUITE"
"""Names the Debian suite whose RabbitMQ the tests run; without it, the system's own."""

_NODE_NAME = "rabbit@localhost"
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_POLL_SECONDS = 0.02
# Each call starts a virtual machine: seconds on a quiet machine, a minute on one with many other processes.
_CALL_SECONDS = 100
_WATERMARK = 0.4
# Any running node uses more than this share of the memory.
_WATERMARK_REACHED = 0.00001


class MissingRabbitMQError(RuntimeError):
    """
    The package is not installed; the message states the package to install.
    """


class NodeError(RuntimeError):
    """
    The node failed or did not answer; the message ends with its log.
    """


def installed_version() -> str:
    """
    Return the version of the RabbitMQ that a new node runs, and its suite.
    """
    suite = os.environ.get(SUITE_VARIABLE, "")
    folders = _programs(suite).glob("lib/rabbitmq/lib/rabbitmq_server-*")
    version = max((path.name.removeprefix("rabbitmq_server-") for path in folders), default="none")
    return f"{version} of Debian {suite}" if suite else version


def _programs(suite: str) -> Path:
    return _FETCHED / suite / "usr" if suite else Path("/usr")


def require_rabbitmq(suite: str = "") -> None:
    """
    Raise the installer's sentence if RabbitMQ is missing.
    """
    command: list[str | Path] = [_FETCH, "--check", suite] if suite else [_INSTALL, "--check"]
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    if check.returncode != 0:
        raise MissingRabbitMQError(check.stderr.strip())


class RabbitMQNode(Server):
    """
    A private broker, which a test may stop, kill, pause and start again with data and ports kept.

    It has no epmd: the port of the Erlang distribution is fixed when the node is created, so no look-up is needed.
    """

    _error = NodeError

    def __init__(self, folder: Path, *, tls: TlsFiles | None = None) -> None:
        """
        Choose the ports. With a server's ``tls`` files the node accepts TLS connections in addition, from clients with
        a certificate of the same authority.
        """
        super().__init__()
        self.host = LOOPBACK
        self.port, self._distribution_port, tls_port, self._unused_port = free_ports(4)
        self.tls_port: int | None = tls_port if tls else None
        self.vhost = "/"
        self.username = "core"
        self.password = secrets.token_hex(12)
        self.log = folder / "log" / f"{_NODE_NAME}.log"
        self._suite = os.environ.get(SUITE_VARIABLE, "")
        self._folder = folder
        self._tls = tls
        self._alarm = False
        self._paused = False

    @property
    def _logs(self) -> list[Path]:
        return [self._folder / "output.log", self.log]

    @property
    def has_mnesia(self) -> bool:
        """
        Whether the node keeps declarations in Mnesia, and not in Khepri as from RabbitMQ 4.2 on.
        """
        return self.eval("mnesia:system_info(is_running).") == "yes"

    def start(self, timeout: float = _CALL_SECONDS) -> None:
        """
        Start the node, or start it again with its data, and return when it takes connections.

        Raises:
            MissingRabbitMQError: the package is not installed.
            NodeError: the node ended or did not answer in time.
        """
        if self.is_running:
            return
        require_rabbitmq(self._suite)
        self.close()  # the rest of one that ended by itself
        self._write_files()
        deadline = time.monotonic() + timeout
        command = [*_ending_with_us(), *self._from_suite(), _COMMANDS / "rabbitmq-server"]
        with _one_processor() as processors:
            self._begin(command, self._folder, env=self._server_environment())
        self._alarm = self._paused = False
        self._wait_until(self._answers, deadline, "the AMQP port to answer")
        self._wait_until(self._has_started, deadline, "the end of its start")
        _allow(self.pid, processors)
        self._assert_loopback_only()

    def stop(self, timeout: float = 100.0) -> None:
        """
        Shut the node down in good order; its data stays.
        """
        if self._process is None:
            return
        children = descendants(self._process.pid)
        self.resume()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self._end(children)

    def kill(self) -> None:
        """
        End the node without warning (SIGKILL); confirmed messages and declarations stay.

        RabbitMQ's databases may write a declaration a moment after the client got its confirmation: half a second for a
        stream, which would be lost then. They are made to write first, because a test is about messages, not about a
        queue declared in the instant before the power cut.
        """
        if self.is_running and not self._paused:
            with suppress(NodeError):
                mnesia = "mnesia:sync_log(), " if self.has_mnesia else ""
                self.eval(f"{mnesia}[dets:sync(Table) || Table <- dets:all()], ok.")
        self.close()

    def close(self) -> None:
        """
        End the node at once (SIGKILL); declarations of the last moment may be lost.
        """
        if self._process is not None:
            self._end(descendants(self._process.pid))

    def pause(self) -> None:
        """
        Freeze the node: connections stay open and nothing is answered.
        """
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """
        Continue a frozen node; a running one is left unchanged.
        """
        if self._paused:
            os.kill(self.pid, signal.SIGCONT)
            self._paused = False

    def ctl(self, *arguments: str) -> str:
        """
        Run ``rabbitmqctl`` with the arguments and return its output (about half a second).

        Raises:
            NodeError: the command failed.
        """
        command = [*self._from_suite(), _COMMANDS / "rabbitmqctl", "--quiet", *arguments]
        return self._run(command, self._client_environment())

    def eval(self, expression: str) -> str:
        """
        Evaluate an Erlang expression on the node and return its value as Erlang prints it (about 5 ms).

        Raises:
            NodeError: the expression failed or the node does not answer.
        """
        erl_call = shutil.which("erl_call")
        if erl_call is None:
            return self.ctl("eval", expression).strip()
        # A C program, which saves the start of an Erlang virtual machine for each request. It has a new name each time:
        # the node refuses a name that it believes to be still connected.
        name = f"call-{secrets.token_hex(6)}"
        command = [erl_call, "-h", name, "-address", f"{self.host}:{self._distribution_port}", "-e"]
        answer = self._run(command, self._client_environment(), expression + "\n").strip()
        if not answer.startswith("{ok, "):
            raise NodeError(f"{expression} gave {answer}")
        return answer.removeprefix("{ok, ").removesuffix("}")

    def add_vhost(self, name: str) -> None:
        """
        Create a virtual host in which the node's own user has all permissions.
        """
        self._order(f'rabbit_vhost:add({_binary(name)}, <<"tests">>)')
        self.grant(self.username, name)

    def delete_vhost(self, name: str) -> None:
        """
        Delete a virtual host, its queues, and the connections in it.
        """
        self._order(f'rabbit_vhost:delete({_binary(name)}, <<"tests">>)')

    def add_user(
        self,
        name: str,
        password: str,
        *,
        vhost: str = "/",
        configure: str = ".*",
        write: str = ".*",
        read: str = ".*",
    ) -> None:
        """
        Create a user with these permissions (regular expressions; empty means none) in one virtual host.
        """
        self._order(f'rabbit_auth_backend_internal:add_user({_binary(name)}, {_binary(password)}, <<"tests">>)')
        self.grant(name, vhost, configure=configure, write=write, read=read)

    def grant(self, name: str, vhost: str, *, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """
        Set the permissions of a user in one virtual host.
        """
        rights = ", ".join(_binary(word) for word in (name, vhost, configure, write, read))
        self._order(f'rabbit_auth_backend_internal:set_permissions({rights}, <<"tests">>)')

    def grant_topic(self, name: str, vhost: str, exchange: str, *, write: str = ".*", read: str = ".*") -> None:
        """
        Set which routing keys of a topic exchange a user may publish and bind with.
        """
        rights = ", ".join(_binary(word) for word in (name, vhost, exchange, write, read))
        self._order(f'rabbit_auth_backend_internal:set_topic_permissions({rights}, <<"tests">>)')

    def delete_user(self, name: str) -> None:
        """
        Delete a user.
        """
        self._order(f'rabbit_auth_backend_internal:delete_user({_binary(name)}, <<"tests">>)')

    def memory_alarm(self, on: bool, timeout: float = 100.0) -> None:  # noqa: FBT001 - reads as a switch
        """
        Raise the real memory alarm, in which the node blocks every publisher, or clear it.
        """
        self._alarm = on
        watermark = _WATERMARK_REACHED if on else _WATERMARK
        self._order(f"vm_memory_monitor:set_vm_memory_high_watermark({watermark:f})")
        self._wait_until(
            lambda: ("memory" in self.eval("rabbit_alarm:get_alarms().")) is on,
            time.monotonic() + timeout,
            "the memory alarm to " + ("rise" if on else "clear"),
        )

    @contextmanager
    def metrics(self) -> Iterator[int]:
        """
        Have the node serve its metrics by its plugin for Prometheus, and yield the port.
        """
        (port,) = free_ports(1)
        settings = f'rabbitmq_prometheus, tcp_config, [{{ip, "{self.host}"}}, {{port, {port}}}]'
        self.eval(f"application:load(rabbitmq_prometheus), application:set_env({settings}).")
        self._enable("rabbitmq_prometheus")
        try:
            yield port
        finally:
            with suppress(NodeError):  # a test may leave the node dead
                self._enable()

    def limit_messages(self, size: int) -> int:
        """
        Make the node refuse messages of more bytes, from the next connection on; return the limit before.
        """
        # RabbitMQ 3.10 reads its settings each time, later versions read them once and keep them.
        kept, size_of = "persistent_term:get(max_message_size, none)", "application:get_env(rabbit, max_message_size)"
        before = self.eval(f"{{ok, Limit}} = {size_of}, Limit.")
        self.eval(f"application:set_env(rabbit, max_message_size, {size}).")
        self.eval(f"case {kept} of none -> ok; _ -> persistent_term:put(max_message_size, {size}) end.")
        return int(before)

    def recover(self) -> None:
        """
        Undo the effects of a test on the node, so that the next one finds it running, awake and without an alarm.
        """
        self.resume()
        self.start()
        if self._alarm:
            self.memory_alarm(on=False)

    def _enable(self, *plugins: str) -> None:
        """
        Start these plugins on the running node, and stop all others.
        """
        enabled = self._folder / "enabled_plugins"
        enabled.write_text(f"[{','.join(plugins)}].\n", encoding="ascii")
        self.eval(f"rabbit_plugins:ensure({_string(enabled)}).")

    def _from_suite(self) -> list[str | Path]:
        """
        Return the prefix that makes a command use the programs of the Debian suite instead of the machine's.

        The mount is in a private namespace of the command, and ends with it; the process id stays the same.
        """
        if not self._suite:
            return []
        mounted = 'mount --bind "$0" /usr && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, _programs(self._suite)]

    def _order(self, expression: str) -> None:
        answer = self.eval(expression + ".")
        if answer != "ok":
            raise NodeError(f"{expression} gave {answer}")

    def _run(self, command: Sequence[str | Path], environment: dict[str, str], text: str | None = None) -> str:
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=self._folder,
                input=text or "",
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
                timeout=_CALL_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise NodeError(f"{command[0]} did not end within {_CALL_SECONDS} s{self._log_tail()}") from error
        if done.returncode != 0:
            raise NodeError(f"{command[0]} exited with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(_PROTOCOL_HEADER)
                return connection.recv(1) == b"\x01"  # a method frame: connection.start
        except OSError:
            return False

    def _has_started(self) -> bool:
        try:
            return self.eval("rabbit:is_running().") == "true"
        except NodeError:
            return False

    def _wait_until(self, condition: Callable[[], bool], deadline: float, what: str) -> None:
        while not condition():
            if not wait_for_end([self.pid], _POLL_SECONDS):
                problem = "the node ended"
            elif time.monotonic() > deadline:
                problem = "time ran out"
            else:
                continue
            tail = self._log_tail()
            self.close()
            raise NodeError(f"{problem} while waiting for {what}{tail}")

    def _end(self, children: AbstractSet[int]) -> None:
        """
        End the virtual machine for certain, then its port programs, which end when their pipe closes.
        """
        if self._process is None:
            return
        self._kill()
        self._alarm = self._paused = False
        # If an epmd starts in spite of this, it is a daemon without a parent: it is identified by its port.
        strays = with_environment("ERL_EPMD_PORT", str(self._unused_port)) - {os.getpid()}
        for pid in strays | wait_for_end(children, 5.0):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _write_files(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        cookie = self._folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(20), encoding="ascii")
            cookie.chmod(0o400)
        (self._folder / "enabled_plugins").write_text("[].\n", encoding="ascii")
        # Names are only looked up here: no DNS, and no inet_gethost process for it.
        (self._folder / "inetrc").write_text(
            '{lookup, [file]}.\n{host, {127,0,0,1}, ["localhost"]}.\n', encoding="ascii"
        )
        configuration = self._folder / "advanced.config"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration(), encoding="utf-8")

    def _configuration(self) -> str:
        """
        Write the settings as Erlang terms: rabbitmq.conf would cost a second, spent on its schema.
        """
        rabbit = [
            f"{{default_user, {_binary(self.username)}}}",
            f"{{default_pass, {_binary(self.password)}}}",
            "{memory_monitor_interval, 250}",
        ]
        if self._tls:
            files = (
                f"{{cacertfile, {_string(self._tls.ca)}}}, {{certfile, {_string(self._tls.certificate)}}}, "
                f"{{keyfile, {_string(self._tls.key)}}}"
            )
            rabbit += [
                f"{{ssl_listeners, [{{{_string(self.host)}, {self.tls_port}}}]}}",
                f"{{ssl_options, [{files}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}]}}",
            ]
        return "[{rabbit, [\n  " + ",\n  ".join(rabbit) + "\n]}].\n"

    def _base_environment(self) -> dict[str, str]:
        """
        Return the environment in which every Erlang program of the node is started, without the machine's own RabbitMQ.
        """
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),
            "ERL_INETRC": str(self._folder / "inetrc"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": _NODE_NAME,
            # No epmd is wanted. If one starts in spite of this, as in a few of many starts, it is private.
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_EPMD_PORT": str(self._unused_port),
            # This also applies to the programs that the node and rabbitmqctl start to have an epmd. Unlike ERL_FLAGS,
            # the scripts of RabbitMQ 4 leave it unchanged.
            "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        if SESSION_VARIABLE in os.environ:
            environment[SESSION_VARIABLE] = os.environ[SESSION_VARIABLE]
        return environment

    def _server_environment(self) -> dict[str, str]:
        folder = self._folder
        plugins = _programs(self._suite) / _PLUGINS.relative_to("/usr")
        # Set here, because Erlang otherwise searches 90 folders for each of the 300 modules that it loads.
        modules = [
            str(_PLUGINS / path.relative_to(plugins))
            for name in ("rabbit_common", "rabbit")
            for path in plugins.glob(f"*/plugins/{name}-*/ebin")
        ]
        arguments = [
            f"-sname {_NODE_NAME} -start_epmd false -erl_epmd_port {self._distribution_port}",
            # Two schedulers that may move between processors: see _one_processor.
            "+S 2:2 +stbt u",
            *(["-pa", *modules] if modules else []),
        ]
        return self._base_environment() | {
            # Makes the start script replace itself by the virtual machine: one process, whose id is known.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(arguments),
            "RABBITMQ_NODE_IP_ADDRESS": self.host,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.log.parent),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }

    def _client_environment(self) -> dict[str, str]:
        environment = self._base_environment()
        environment["ERL_AFLAGS"] += f" -start_epmd false -erl_epmd_port {self._distribution_port} -dist_listen false"
        return environment


@contextmanager
def _one_processor() -> Iterator[AbstractSet[int]]:
    """
    Start a child on a single processor; yields the processors to give back to it later.

    The node's start is one chain of threads that wake each other (a module is loaded by one, its file read by another).
    Across processors each of these wake-ups costs so much that the start takes 5 s in place of 2 s.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(processors)})
    try:
        yield processors
    finally:
        os.sched_setaffinity(0, processors)


def _allow(pid: int, processors: AbstractSet[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), processors)


def _ending_with_us() -> list[str]:
    """
    Return the prefix that makes the kernel kill a command when its parent dies, in any way (PR_SET_PDEATHSIG).
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _string(value: str | Path) -> str:
    """
    Write an Erlang string; escapes keep it ASCII, because erl_call reads its input as Latin-1.
    """
    marks = (
        mark if mark.isascii() and mark.isprintable() and mark not in '"\\' else f"\\x{{{ord(mark):x}}}"
        for mark in str(value)
    )
    return '"' + "".join(marks) + '"'


def _binary(value: str) -> str:
    """
    Write an Erlang binary.
    """
    return f"<<{_string(value)}/utf8>>"
