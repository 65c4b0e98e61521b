"""
Fixtures of every test: a clean environment, services on loopback, and a check that the session leaves no process.

Not here: the services themselves, which are in ``tests.services``.
"""

import operator
import os
import signal
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import hypothesis
import pytest

from dkist_processing_core.delivery import outbox_warnings
from dkist_processing_core.otlp import warnings as telemetry_warnings
from dkist_processing_core.text.redaction import secrets_of
from tests.claims import claimed
from tests.parts import is_in_part
from tests.services.broker import Broker, open_broker
from tests.services.otlp import OtlpReceiver
from tests.services.postgres import MissingPostgresError, PostgresServer
from tests.services.processes import SESSION_VARIABLE, SessionWatch
from tests.services.proxy import Proxy
from tests.services.rabbitmq import MissingRabbitMQError, RabbitMQNode, installed_version
from tests.services.sockets import BlackHole, closed_port
from tests.services.storage import disk_folder
from tests.starting import EVENTS, starts_process

# Variables of this machine that must not reach the code under test.
CLEANED_PREFIXES = ("ISB_", "OTEL_", "DKIST_CORE_", "NOMAD_")
CLEANED_NAMES = frozenset(
    {
        "BAGGAGE",
        "BUILD_VERSION",
        "EVENT_FLUSH_TIMEOUT",
        "MESH_CONFIG",
        "RETRY_CONFIG",
        "TRACEPARENT",
        "TRACESTATE",
    }
)

# These tests do not depend on the interpreter: documents, files, drawings, command lines, settings, the fold of events
# and the store, journal and broker and their faults, telemetry on its way, installations by pip and uv. Other tests run
# tasks, processes, threads, signals, log records and environments on each Python.
SAME_ON_EVERY_PYTHON = frozenset(
    {
        "test_airflow_config",
        "test_architecture",
        "test_asyncapi",
        "test_benchmarks",
        "test_bounded_exit",
        "test_broker_restart",
        "test_cli",
        "test_cli_workflows",
        "test_config",
        "test_config_file",
        "test_consumer",
        "test_cut_off",
        "test_dead_letters",
        "test_degradation",
        "test_delivery",
        "test_deployed_files",
        "test_display",
        "test_distribution",
        "test_docs",
        "test_doctor",
        "test_document_names",
        "test_door",
        "test_drawings",
        "test_environments",
        "test_example",
        "test_export",
        "test_flow",
        "test_foreign_publisher",
        "test_golden",
        "test_grpc_connection",
        "test_house",
        "test_kill_points",
        "test_kills",
        "test_listening",
        "test_lost_runs",
        "test_message",
        "test_metrics",
        "test_metrics_served",
        "test_mounts",
        "test_network_faults",
        "test_new_event",
        "test_notebook_image",
        "test_origin",
        "test_other_languages",
        "test_otlp_delivery",
        "test_otlp_encoding",
        "test_otlp_journal",
        "test_outages",
        "test_outbox",
        "test_outbox_telemetry",
        "test_own_errors",
        "test_ownership",
        "test_past_events",
        "test_pipeline_file",
        "test_poison",
        "test_reconcile",
        "test_replaced_defects",
        "test_run_ids",
        "test_run_memory",
        "test_runs",
        "test_scraped",
        "test_service_units",
        "test_services",
        "test_short_ids",
        "test_signals_reference",
        "test_starting",
        "test_store",
        "test_store_commands",
        "test_store_drawings",
        "test_storm",
        "test_task_sheet",
        "test_telemetry_files",
        "test_terminal",
        "test_text",
        "test_timeline",
        "test_tls",
        "test_topology",
        "test_totals",
        "test_trusted_files",
        "test_usage",
        "test_verdict",
        "test_watched",
        "test_widths",
        "test_workflow_drawing",
    }
)

# The same for the tests in these folders. Those of `testing` run consumers on each Python.
FOLDERS_SAME_ON_EVERY_PYTHON = frozenset({"bus", "consumer", "dashboard", "inbox", "notify", "watch"})

# Behaviour that a version of RabbitMQ can change: queues and their counts, permissions, refusals and their messages,
# the topology. Other tests with a broker are about processes, files and networks; `make soak` runs them on newer
# versions.
OF_THE_BROKER = frozenset(
    {
        "test_amqp",
        "test_dead_letters",
        "test_delivery",
        "test_doctor",
        "test_lost_events",
        "test_other_languages",
        "test_poison",
        "test_topology",
        "test_versions",
    }
)

# The suite's own action on a signal that it was started to ignore. Under nohup it still outlives its terminal.
_TERMINAL_SIGNALS: dict[int, Callable[..., object] | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: lambda *_: None,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGCHLD: signal.SIG_DFL,
}

# A deadline per example measures the machine's load, and pytest-timeout already bounds the test.
hypothesis.settings.register_profile("default", deadline=None, max_examples=50, derandomize=False)
hypothesis.settings.register_profile("fast", deadline=None, max_examples=10, derandomize=False)
hypothesis.settings.load_profile("default")


def pytest_report_header() -> str:
    """
    Name the RabbitMQ that the tests run.
    """
    return f"rabbitmq: {installed_version()}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Add the options by which several processes divide the tests among them.
    """
    parser.addoption("--claims", type=Path, help="run only tests that no other process with this folder has claimed")
    parser.addoption("--part", help="run the selected tests whose marks satisfy an expression, as -m does, beside -m")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Mark the tests by the services they use, so that ``-m`` chooses among them.
    """
    for item in items:
        if item.path.stem in SAME_ON_EVERY_PYTHON or item.path.parent.name in FOLDERS_SAME_ON_EVERY_PYTHON:
            item.add_marker(pytest.mark.once)
        # Reading this takes seconds.
        if "processes" in config.option.markexpr and starts_process(item):
            item.add_marker(pytest.mark.processes)
        if not {"broker", "rabbitmq"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.rabbitmq)
            if item.path.stem in OF_THE_BROKER:
                item.add_marker(pytest.mark.versions)
        if "node_modules" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.node)
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.chromium)
            item.add_marker(pytest.mark.processes)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """
    Leave out the modules without a test of this process's part: to import all of them takes seconds.
    """
    part = config.getoption("part")
    is_module = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if part and is_module and not may_be_in_part(collection_path, part) else None


def may_be_in_part(module: Path, part: str) -> bool:
    """
    Return False if a part needs a mark that no test of a module has, or forbids one that all of them have.

    The place of the module and its text show the marks: only some of its tests may have one that its text names.
    """
    common = {"airflow": "airflow", "published": "clients"}.get(module.parent.name)
    of_all = {common} if common else set()
    if module.stem in SAME_ON_EVERY_PYTHON or module.parent.name in FOLDERS_SAME_ON_EVERY_PYTHON:
        of_all.add("once")
    text = module.read_text(encoding="utf-8")
    of_some = of_all | {mark for mark in ("airflow", "clients", "once", "quiet", "versions") if f"mark.{mark}" in text}
    if module.stem in OF_THE_BROKER:
        of_some.add("versions")
    needed = {mark for mark in ("airflow", "clients", "once", "quiet", "versions") if mark in part.split(" and ")}
    return needed <= of_some and not any(f"not {mark}" in part.split(" and ") for mark in of_all)


@pytest.hookimpl(specname="pytest_collection_modifyitems", trylast=True)  # after all marks are added
def pytest_keep_part(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Keep the tests of this process's part.
    """
    if part := config.getoption("part"):
        items[:] = [item for item in items if is_in_part(item, part)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """
    Run the tests that this process claims, if it is one of several that divide the selected tests among them.
    """
    claims = session.config.getoption("claims")
    if claims is None or session.testsfailed or session.config.option.collectonly:
        return None  # pytest continues
    tests = claimed(session.items, claims)
    test = next(tests, None)
    while test is not None:
        following = next(tests, None)  # decides which fixtures remain set up
        test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        test = following
    return True


_SECONDS_OF_MODULES: defaultdict[str, float] = defaultdict(float)
_MOST_EXPENSIVE, _LEAST_SECONDS = 10, 5.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """
    Add up the processor time for each module of tests.
    """
    began = sum(os.times()[:4])
    try:
        return (yield)
    finally:
        _SECONDS_OF_MODULES[item.nodeid.partition("::")[0]] += sum(os.times()[:4]) - began


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """
    Print the processor time of this process and of its children, which other processes of the machine change little.
    """
    by_seconds = sorted(_SECONDS_OF_MODULES.items(), key=operator.itemgetter(1), reverse=True)
    for module, seconds in by_seconds[:_MOST_EXPENSIVE]:
        if seconds >= _LEAST_SECONDS:
            terminalreporter.write_line(f"{module}: processor time {seconds:.0f} s")
    terminalreporter.write_line(f"processor time: {sum(os.times()[:4]):.0f} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """
    Add the sentence of the mark `on_failure` to the failure of a test.
    """
    try:
        yield
    except Exception as failure:
        for mark in item.iter_markers("on_failure"):
            failure.add_note(*mark.args)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    Name the folders and the broker's log of a test that failed.
    """
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {})
        found = [f"{name}: {used[name]}" for name in ("state_dir", "tmp_path") if name in used]
        found += [f"broker: {used['rabbitmq'].log}"] if "rabbitmq" in used else []
        report.sections.append(("files of this test", "\n".join(found)))
    return report


@pytest.fixture(scope="session", autouse=True)
def session_watch() -> Iterator[SessionWatch]:
    """
    Mark all processes that the session starts, and fail if one remains.

    Set up first and therefore torn down last, when every service has been stopped.
    """
    session = str(uuid.uuid4())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SESSION_VARIABLE, session)
        watch = SessionWatch(session)
        yield watch
        watch.assert_loopback_only()
        # Found by its name alone: the code of a fixture decides which tests count as starting a process.
        watch.assert_nothing_left(import_module("tests.pace").here(5.0))


def pytest_configure() -> None:
    """
    Give every process that the suite starts the signals of a terminal, however the suite itself was started.

    A shell has its background jobs ignore SIGINT and SIGQUIT, and nohup has its command ignore SIGHUP. Processes that
    these start inherit that. It does not inherit a handler: a new program begins with the default action in its place.
    """
    for number, action in _TERMINAL_SIGNALS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, action)


@pytest.fixture(autouse=True)
def _loopback_only(session_watch: SessionWatch) -> Iterator[None]:
    """
    Refuse a listener that other machines can reach, in the test that opened it.
    """
    yield
    session_watch.assert_loopback_only()


@pytest.fixture(autouse=True)
def _precedence(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Run a test that measures time, and the processes that it starts, before all other processes of this machine.

    Otherwise it would measure their work too. Only root, or a user with a limit on real-time priorities (setrlimit(2)),
    has the permission. A nice value has no effect on a process that leads a session (sched(7), "autogroup").
    """
    if request.node.get_closest_marker("quiet") is None:
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    yield
    os.sched_setscheduler(0, policy, priority)


@pytest.fixture(scope="session")
def _started(request: pytest.FixtureRequest) -> list[str]:
    """
    Process starts of this process, only recorded in runs that leave out the tests that start processes.
    """
    started: list[str] = []
    if "not processes" in request.config.option.markexpr:
        sys.addaudithook(lambda event, _: started.append(event) if event in EVENTS else None)
    return started


@pytest.fixture(autouse=True)
def _no_unmarked_process(_started: list[str]) -> Iterator[None]:
    """
    Fail if a test that was chosen as one without processes starts one.
    """
    _started.clear()
    yield
    assert not _started, f"this test starts a process ({_started[0]}), unseen in its code: mark it `processes`"


@pytest.fixture(scope="session")
def _state_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with disk_folder(tmp_path_factory.getbasetemp()) as folder:
        yield folder


@pytest.fixture
def state_dir(_state_root: Path) -> Path:
    """
    The empty folder that ``DKIST_CORE_STATE_DIR`` names in this test, on a disk.
    """
    folder = _state_root / f"state-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    """
    Remove every variable that the library reads or takes for a secret, and set a state folder for this test.
    """
    for name, value in list(os.environ.items()):
        is_read = name in CLEANED_NAMES or name.startswith(CLEANED_PREFIXES) or bool(secrets_of({name: value}))
        if is_read and name != SESSION_VARIABLE:
            monkeypatch.delenv(name)
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(state_dir))


@pytest.fixture
def local_zone() -> Iterator[Callable[[str], None]]:
    """
    A function that sets the time zone of this process, and of those that it starts.
    """
    with pytest.MonkeyPatch.context() as patch:

        def live_in(zone: str) -> None:
            patch.setenv("TZ", zone)
            time.tzset()

        yield live_in
    time.tzset()


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    """
    As in a new process, no outbox and no collector has been reported yet.
    """
    outbox_warnings._logged.clear()
    telemetry_warnings._outages.clear()
    telemetry_warnings._refusals.clear()


@pytest.fixture(scope="session")
def rabbitmq(session_watch: SessionWatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQNode]:
    """
    The node that the tests share, started when the first of them needs it.
    """
    node = RabbitMQNode(tmp_path_factory.mktemp("rabbitmq") / "node")
    try:
        node.start()
    except MissingRabbitMQError as missing:
        pytest.fail(str(missing), pytrace=False)
    session_watch.assert_loopback_only()
    yield node
    node.close()


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """
    The folder with the JavaScript packages of the tests, which `make test` installs.
    """
    folder = Path(__file__).parents[1] / ".node" / "node_modules"
    if not folder.is_dir():
        pytest.fail("The packages of requirements/package.json are missing: run `make .node/.stamp`.", pytrace=False)
    return folder


@pytest.fixture
def broker(rabbitmq: RabbitMQNode) -> Iterator[Broker]:
    """
    An empty virtual host on a healthy node; a test may stop, kill, pause or alarm ``broker.node`` and leave it so.
    """
    with open_broker(rabbitmq) as broker:
        yield broker


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Broker], None]:
    """
    A function that makes the settings name a broker, and a user there.
    """

    def name(broker: Broker) -> None:
        for variable, value in broker.env.items():
            monkeypatch.setenv(variable, value)

    return name


@pytest.fixture
def owned(broker: Broker, use: Callable[[Broker], None]) -> Broker:
    """
    A separate virtual host for the test, named by the settings, with a user who has all permissions there.
    """
    use(broker)
    return broker


@pytest.fixture
def proxied(broker: Broker) -> Iterator[tuple[Broker, Proxy]]:
    """
    The virtual host of `broker` behind a proxy, and the proxy, by which a test breaks the network in between.
    """
    with Proxy(broker.port) as proxy:
        yield replace(broker, host=proxy.host, port=proxy.port), proxy


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    """
    An OTLP receiver, over gRPC and HTTP.
    """
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def otlp_of_module() -> Iterator[OtlpReceiver]:
    """
    The OTLP receiver that the tests of a module share.
    """
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(otlp_of_module: OtlpReceiver) -> OtlpReceiver:
    """
    The OTLP receiver of the module, which has received nothing so far.
    """
    otlp_of_module.forget()
    return otlp_of_module


@pytest.fixture(scope="session")
def postgres(session_watch: SessionWatch) -> Iterator[PostgresServer]:
    """
    The database server that the tests share, started when the first of them needs it.
    """
    server = PostgresServer()
    try:
        server.start()
    except MissingPostgresError as missing:
        pytest.fail(str(missing), pytrace=False)
    session_watch.assert_loopback_only()
    yield server
    server.close()


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    """
    A port that accepts connections and never answers.
    """
    with BlackHole() as hole:
        yield hole


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """
    A port that refuses connections.
    """
    with closed_port() as port:
        yield port


@pytest.fixture
def print_line(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """
    A function that prints a line for the person who runs the suite.
    """

    def print_line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return print_line
