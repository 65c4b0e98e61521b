"""
The telemetry of a task's process: it is in the journal of its collectors before the process ends, each item once.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dkist_processing_core import budget
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal.otlp import OtlpBooks, OtlpJournal, otlp_path
from dkist_processing_core.semconv import EXECUTED
from dkist_processing_core.text import internal_errors
from dkist_processing_core.tracing._batches import MOST_ITEMS, MOST_SECONDS
from dkist_processing_core.tracing._telemetry_journal import MOST_BYTES_IN_MEMORY, TelemetryJournal
from tests.journalled import (
    books_of,
    deliver,
    journal_of,
    pending_log_records,
    pending_points,
    pending_records,
    pending_resource,
    pending_spans,
)
from tests.running import ROOT, run_python
from tests.services.otlp import OtlpReceiver
from tests.waiting import wait_until

TASK = """
import logging
from dkist_processing_core import TaskBase

class Short(TaskBase):
    def run(self):
        self.meter.create_counter("author.frames").add(3)
        logging.getLogger("author").warning("of %s", self.recipe_run_id)
        with self.telemetry_span("step"):
            pass

def call(number):
    with Short(recipe_run_id=number, workflow_name="W", workflow_version="1") as task:
        task()
"""
SPANS_OF_A_TASK = ["Pre Run", "step", "Run", "Post Run", "Short"]


def dead(port: int) -> dict[str, str]:
    """
    Return the variables that name a collector which refuses connections.
    """
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}


def without_publications(spans: list[str]) -> list[str]:
    """
    Return the names of spans that are no publication of an event.
    """
    return [name for name in spans if not name.startswith("publish ")]


def assert_all_arrive_once(otlp: OtlpReceiver, folder: Path, tasks: int) -> None:
    """
    Deliver what waits, and assert that each span, record and counter point of so many tasks arrives once.
    """
    waiting = books_of(folder)
    assert waiting["traces"].delivered == waiting["traces"].dropped == waiting["logs"].dropped == 0

    deliver(folder, otlp.grpc_env)

    spans = [span for span in otlp.spans() if not span.name.startswith("publish ")]
    assert len({(span.trace_id, span.span_id) for span in otlp.spans()}) == len(otlp.spans())
    assert sorted(span.name for span in spans) == sorted(SPANS_OF_A_TASK * tasks)
    bodies = [record.body for record in otlp.logs() if str(record.body).startswith("of ")]
    assert sorted(bodies) == sorted(f"of {number}" for number in range(1, tasks + 1))
    points = {
        name: [(each.temporality, point.value) for each in otlp.metrics() if each.name == name for point in each.points]
        for name in ("author.frames", EXECUTED)
    }
    # The increments of so many tasks add up to their number.
    assert points == {"author.frames": [("DELTA", 3.0)] * tasks, EXECUTED: [("DELTA", 1.0)] * tasks}
    assert all(book.pending == book.dropped == book.refused == 0 for book in books_of(folder).values())


def test_a_collector_that_is_dead_during_many_short_tasks_gets_everything_afterwards(
    otlp: OtlpReceiver, state_dir: Path, refusing_port: int
) -> None:
    """
    Each span, log record and counter point arrives once.
    """
    for number in range(1, 6):
        program = f"{TASK}\nfor number in range({4 * number - 3}, {4 * number + 1}): call(number)"
        done = run_python(program, dead(refusing_port) | {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"})
        assert done.returncode == 0, done.stderr

    assert_all_arrive_once(otlp, state_dir, 20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_collector_that_is_dead_during_200_short_processes_gets_everything_afterwards(
    otlp: OtlpReceiver, state_dir: Path, refusing_port: int
) -> None:
    """
    Each task has its own process, as in a data centre.
    """
    for number in range(1, 201):
        done = run_python(f"{TASK}\ncall({number})", dead(refusing_port))
        assert done.returncode == 0, done.stderr

    assert_all_arrive_once(otlp, state_dir, 200)


MANY = """
import json, logging, resource
from dkist_processing_core import TaskBase

class Many(TaskBase):
    def run(self):
        log = logging.getLogger("author")
        log.addHandler(logging.NullHandler())
        log.propagate = False
        for phase in range(2):
            for number in range({records} // 2):
                log.warning("record %s of many", number)
            for number in range({spans} // 2):
                with self.telemetry_span("one of many"):
                    pass
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

with Many(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


@pytest.mark.parametrize(("spans", "records"), [(2_000, 4_000), pytest.param(10_000, 100_000, marks=pytest.mark.soak)])
def test_many_spans_and_log_records_of_one_task_are_all_kept_in_bounded_memory(
    state_dir: Path, refusing_port: int, spans: int, records: int
) -> None:
    """
    The task's own thread writes them, so their number does not matter to the memory.
    """
    done = run_python(MANY.format(spans=spans, records=records), dead(refusing_port))
    assert done.returncode == 0, done.stderr

    half, whole = (int(line) for line in done.stdout.splitlines())
    assert whole - half < 8 * 1024
    books = books_of(state_dir)
    assert books["logs"].pending >= records
    assert pending_spans(state_dir).count("one of many") == spans
    assert sum(text.endswith("of many") for text in pending_records(state_dir)) == records


KILLED = """
import os, signal, sys
from pathlib import Path
from dkist_processing_core import TaskBase

class Killed(TaskBase):
    def run(self):
        with self.telemetry_span("before the kill"):
            pass
        print("ended", flush=True)
        sys.stdin.readline()

with Killed(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


def test_a_span_that_ended_before_a_kill_is_kept(state_dir: Path, refusing_port: int) -> None:
    """
    It is in the journal a moment after its end, while the task goes on.
    """
    with subprocess.Popen(
        [sys.executable, "-c", KILLED],
        cwd=ROOT,
        env={**os.environ, **dead(refusing_port)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ended\n"
        wait_until(lambda: "before the kill" in pending_spans(state_dir))
        process.send_signal(signal.SIGKILL)
        process.communicate()

    assert pending_spans(state_dir).count("before the kill") == 1


FORKS = """
import multiprocessing, os
from dkist_processing_core import TaskBase

def work(task, number):
    with task.telemetry_span(f"worker {number}"):
        pass

class Forks(TaskBase):
    def run(self):
        with self.telemetry_span("before the forks"):
            pass
        workers = [multiprocessing.get_context("fork").Process(target=work, args=(self, n)) for n in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if not os.fork():
            with self.telemetry_span("plain fork"):
                pass
            raise SystemExit(0)
        os.wait()

with Forks(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


REVEALS = """
import os
from opentelemetry import trace
from dkist_processing_core import TaskBase

class Reveals(TaskBase):
    def run(self):
        secret = os.environ["MY_TOKEN"]
        self.meter.create_counter("requests").add(1, {"urls": [secret], "url": f"http://user:{secret}@host/x"})
        self.meter.create_histogram("seconds").record(1, {"url": secret})
        with trace.get_tracer("author").start_as_current_span("request") as span:
            span.update_name(f"request {secret}")
            span.add_event(f"retry {secret}")
            span.set_attribute("url.full", f"http://user:{secret}@host/x?api_key={secret}")
            trace.get_current_span().record_exception(ValueError(secret))
            raise OSError(f"no answer with {secret}")

with Reveals(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


def test_no_secret_of_a_span_or_a_metric_is_written_to_the_disk(state_dir: Path, refusing_port: int) -> None:
    """
    An author's tracer, meter and instrumentor record exceptions and addresses themselves.
    """
    done = run_python(REVEALS, {**dead(refusing_port), "MY_TOKEN": "supersecret12345"})

    assert done.returncode == 1
    assert "request [redacted]" in pending_spans(state_dir)
    content = b"".join(path.read_bytes() for path in state_dir.glob("otlp-*"))
    assert b"no answer with [redacted]" in content
    assert b"retry [redacted]" in content
    assert b"http://[redacted]@host/x" in content
    assert pending_points(state_dir, "requests") == [1]
    assert b"supersecret12345" not in content


MANY_FORKS = """
import logging, os
from dkist_processing_core import TaskBase

class Forks(TaskBase):
    def run(self):
        for number in range(40):
            with self.telemetry_span("parent"):
                pass
            if not os.fork():
                with self.telemetry_span(f"fork {number}"):
                    pass
                logging.getLogger("a").warning("fork %d", number)
                raise SystemExit(0)
        for number in range(40):
            os.wait()

with Forks(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


@pytest.mark.once
def test_forks_that_compete_for_the_journal_all_end(state_dir: Path, refusing_port: int) -> None:
    """
    The interpreter may stop the thread that appends while it holds a lock; what ends after that must not wait for it.
    """
    done = run_python(MANY_FORKS, dead(refusing_port))

    assert done.returncode == 0, done.stderr
    assert pending_spans(state_dir).count("parent") == 40


FORKS_AT_ONCE = """
import multiprocessing
from dkist_processing_core import TaskBase

def work(task, number, barrier):
    barrier.wait()
    for each in range(5):
        with task.telemetry_span(f"fork {number} {each}", attributes={"long": "x" * 100_000}):
            pass

class Forks(TaskBase):
    def run(self):
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(40)
        workers = [context.Process(target=work, args=(self, number, barrier)) for number in range(40)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

with Forks(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


@pytest.mark.once
@pytest.mark.quiet  # the last fork waits for 39 others, and there is a limit on that
def test_forks_that_end_at_once_all_keep_their_spans(state_dir: Path, refusing_port: int) -> None:
    """
    Each waits for its turn as long as the others append.
    """
    done = run_python(FORKS_AT_ONCE, dead(refusing_port))

    assert done.returncode == 0, done.stderr
    assert len([name for name in pending_spans(state_dir) if name.startswith("fork ")]) == 200


def test_what_is_dropped_in_memory_is_counted_by_the_next_append(state_dir: Path) -> None:
    """
    While another process holds the journal, the memory keeps a limited part.
    """
    path = otlp_path(state_dir, "")
    state_dir.mkdir(parents=True, exist_ok=True)
    journal = TelemetryJournal(lambda patience: OtlpJournal.open(path, destination="", patience=patience))
    journal.open(1.0)

    with OtlpJournal.open(path, destination="") as held:
        held.connection.execute("BEGIN IMMEDIATE")
        for _ in range(20):
            journal.keep("traces", 10, bytes(MOST_BYTES_IN_MEMORY // 16))
            journal.append_pending()
        waited = journal.begin_waits()
        held.connection.execute("ROLLBACK")
        journal.append_pending(is_last=True)
        journal.keep("logs", 1, b"a")
        journal.append_pending(is_last=True)
        books = held.books()

    assert books["traces"] == OtlpBooks(pending=160, delivered=0, refused=0, dropped=40)
    assert books["logs"] == OtlpBooks(pending=1, delivered=0, refused=0, dropped=0)
    assert 0 < waited <= budget.TELEMETRY_JOURNAL_SECONDS + 0.01


def test_each_fork_keeps_its_own_spans_and_none_of_its_parent_s(state_dir: Path, refusing_port: int) -> None:
    """
    A worker of `multiprocessing` ends without the functions that are registered for the exit.
    """
    done = run_python(FORKS, dead(refusing_port))
    assert done.returncode == 0, done.stderr

    names = pending_spans(state_dir)
    assert names.count("before the forks") == 1
    assert [name for name in sorted(names) if name.startswith(("worker", "plain"))] == [
        "plain fork",
        "worker 0",
        "worker 1",
    ]


AT_EXIT = """
import atexit
from opentelemetry import trace

def last():
    with trace.get_tracer("author").start_as_current_span("at the exit"):
        pass

atexit.register(last)
"""


def test_what_is_recorded_after_the_last_task_is_kept(state_dir: Path, refusing_port: int) -> None:
    """
    An author's function at the exit may end spans.
    """
    # Registered before the task, so that it runs after this package's own.
    done = run_python(f"{TASK}\ncall(1)\n{AT_EXIT}", dead(refusing_port))
    assert done.returncode == 0, done.stderr

    assert pending_spans(state_dir)[-1] == "at the exit"


NO_THREADS = """
import threading
threading.stack_size(1 << 46)
"""


def test_a_process_without_threads_keeps_its_telemetry(state_dir: Path, refusing_port: int) -> None:
    """
    It appends in the thread that records, and collects the metrics at the end. The SDK itself has no log records then.
    """
    done = run_python(f"{NO_THREADS}{TASK}\ncall(1)", dead(refusing_port))
    assert done.returncode == 0, done.stderr

    assert without_publications(pending_spans(state_dir)) == SPANS_OF_A_TASK
    assert pending_points(state_dir, "author.frames") == [3.0]


ODD = """
import logging
from opentelemetry import trace
from dkist_processing_core import TaskBase

class Odd(TaskBase):
    def run(self):
        log = logging.getLogger("author")
        log.addHandler(logging.NullHandler())
        log.propagate = False
        log.warning("a lone surrogate: \\ud800")
        for end in (-1, None):
            trace.get_tracer("author").start_span(f"until {end}").end(end)

with Odd(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


def test_an_item_that_cannot_be_encoded_costs_no_other(state_dir: Path, refusing_port: int) -> None:
    """
    Protobuf has no times before 1970, so the span is counted as dropped; lone surrogates are replaced.
    """
    done = run_python(ODD, dead(refusing_port))
    assert done.returncode == 0, done.stderr

    assert [name for name in pending_spans(state_dir) if name.startswith("until ")] == ["until None"]
    assert books_of(state_dir)["traces"].dropped == 1
    assert "a lone surrogate: \N{REPLACEMENT CHARACTER}" in pending_records(state_dir)


LIMITED = """
import logging
from dkist_processing_core import TaskBase

class Limited(TaskBase):
    def run(self):
        logging.getLogger("author.of.the.task").warning("limited")

with Limited(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


@pytest.mark.parametrize("prefix", ["", "LOGRECORD_"])
def test_the_limits_of_the_sdk_s_variables_apply_to_log_records(
    state_dir: Path, refusing_port: int, prefix: str
) -> None:
    """
    The last attributes are kept, and the others are counted.
    """
    limits = {f"OTEL_{prefix}ATTRIBUTE_COUNT_LIMIT": "2", f"OTEL_{prefix}ATTRIBUTE_VALUE_LENGTH_LIMIT": "6"}
    done = run_python(LIMITED, dead(refusing_port) | limits)
    assert done.returncode == 0, done.stderr

    (record,) = [record for record in pending_log_records(state_dir) if record.body.string_value == "limited"]
    found = {pair.key: pair.value.string_value for pair in record.attributes}
    assert len(found) == 2
    assert found["logger.name"] == "author"
    assert record.dropped_attributes_count > 0


def test_while_another_process_holds_the_journal_telemetry_is_kept_in_memory(
    state_dir: Path, refusing_port: int
) -> None:
    """
    A stopped process may hold it for long. One warning states what is lost, and the task has not waited.
    """
    assert run_python(f"{TASK}\ncall(1)", dead(refusing_port)).returncode == 0
    path = journal_of(state_dir)

    with OtlpJournal.open(path, destination="") as held:
        held.connection.execute("BEGIN IMMEDIATE")
        done = run_python(f"{TASK}\ncall(2)", dead(refusing_port))
        held.connection.execute("ROLLBACK")

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("telemetry is not in its journal") == 1
    assert f"): the journal {path} cannot be used: database is locked" in done.stderr
    assert "of 2" not in pending_records(state_dir)


def test_beyond_its_bound_of_memory_the_oldest_is_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Each request has one MiB. The warning also comes if the journal can be written to in the end.
    """
    is_broken = True

    def open_journal(patience: float) -> OtlpJournal:
        if is_broken:
            raise JournalError("the disk fails")
        return OtlpJournal.open(tmp_path / "otlp.db", destination="", patience=patience)

    journal, requests = TelemetryJournal(open_journal), MOST_BYTES_IN_MEMORY // 2**20 + 4
    for number in range(requests):
        journal.keep("logs", 10, bytes([number]) * 2**20)
        journal.append_pending()
    is_broken = False
    journal.append_pending(is_last=True)

    with OtlpJournal.open(tmp_path / "otlp.db", destination="") as written:
        kept = [chunk.body[0] for chunk in written.pending("logs", most_bytes=2**30, most_items=10**6)]
    assert kept == list(range(4, requests))
    assert "telemetry is not in its journal (40 of logs): the disk fails" in caplog.text


THREADS = """
import sqlite3, sys, threading, time
from dkist_processing_core import TaskBase
from dkist_processing_core.tracing import _setup
from opentelemetry import trace

class Threads(TaskBase):
    def run(self):
        (path,) = _setup._batches
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        tracer, until = trace.get_tracer("author"), time.monotonic() + 1

        def work():
            while time.monotonic() < until:
                tracer.start_span("of a thread").end()

        # Threads change places as often as on many processors.
        sys.setswitchinterval(1e-6)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.execute("ROLLBACK")

with Threads(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


@pytest.mark.once
def test_threads_may_end_spans_while_the_journal_cannot_be_written_to(state_dir: Path, refusing_port: int) -> None:
    """
    Each adds requests while another weighs, appends and drops them: no exception reaches the author's code.
    """
    done = run_python(THREADS, dead(refusing_port) | {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"})

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "of a thread" in pending_spans(state_dir)


def test_the_cost_of_a_request_beyond_the_bound_of_memory_does_not_grow_with_their_number() -> None:
    """
    The small requests of a long outage are weighed once each: the thread that adds one is that of the author.
    """

    def open_journal(_: float) -> OtlpJournal:
        raise JournalError("the disk fails")

    journal, body = TelemetryJournal(open_journal), bytes(400)
    calls = 0

    def count(_: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "c_call" and argument is len

    for _ in range(MOST_BYTES_IN_MEMORY // len(body)):
        journal.keep("traces", 1, body)
    journal.append_pending()
    for _ in range(1_000):
        journal.keep("traces", 1, body)
    sys.setprofile(count)
    journal.append_pending()
    sys.setprofile(None)

    assert 0 < calls < 10_000


def test_an_error_of_this_package_does_not_reach_the_code_that_ends_a_span(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It is logged once, and the telemetry stays in memory.
    """

    def open_journal(_: float) -> OtlpJournal:
        raise JournalError("the disk fails")

    monkeypatch.setattr(internal_errors, "_logged", set())
    journal = TelemetryJournal(open_journal)
    journal.keep("traces", 1, None)  # type: ignore[arg-type] # in place of an error

    journal.append_pending()
    journal.append_pending()

    assert journal.is_pending
    assert caplog.text.count("telemetry stays in memory: an error of this package") == 1


def test_the_documentation_states_the_bounds_of_the_memory() -> None:
    """
    The page on outages has the numbers of the code.
    """
    page = " ".join((ROOT / "docs" / "how-to" / "outages.md").read_text(encoding="utf-8").split())

    assert f"until there are {MOST_ITEMS} of either, or for {MOST_SECONDS} seconds" in page
    assert f"up to {MOST_BYTES_IN_MEMORY // 2**20} MiB wait in memory" in page
    assert f"waits up to {budget.TELEMETRY_JOURNAL_SECONDS} seconds in all for a journal that is held" in page


def test_without_a_usable_journal_the_process_exports_itself(otlp: OtlpReceiver, state_dir: Path) -> None:
    """
    A file of something else stands at the journal's path: it is left as it is, and one warning states it.
    """
    assert run_python(f"{TASK}\ncall(1)", otlp.http_env).returncode == 0
    path = journal_of(state_dir)
    path.unlink()
    path.with_name(f"{path.name}-wal").unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE chunk (mine)")
    path.chmod(0o600)

    done = run_python(f"{TASK}\ncall(2)", otlp.http_env | {"EVENT_FLUSH_TIMEOUT": "20"})

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is an SQLite file of something else, not a journal") == 1
    assert otlp.wait_for(lambda receiver: [record for record in receiver.logs() if record.body == "of 2"])
    assert otlp.wait_for(lambda receiver: len([span for span in receiver.spans() if span.name == "Short"]) == 2)


def test_a_launched_task_imports_neither_a_transport_nor_protobuf(
    state_dir: Path, refusing_port: int, tmp_path: Path
) -> None:
    """
    The import of any of these modules takes longer than the work of a short task.
    """
    environment = dead(refusing_port) | {"LOADED_FILE": str(tmp_path / "loaded")}
    done = run_python("from tests.pipelines import loaded; loaded.run(recipe_run_id=1)", environment)
    assert done.returncode == 0, done.stderr

    loaded = set(json.loads((tmp_path / "loaded").read_text()))
    assert "opentelemetry.sdk.trace" in loaded
    assert not loaded & {"grpc", "requests", "urllib3", "http.client"}
    assert not loaded & {"google.protobuf", "psutil", "opentelemetry.sdk.metrics", "opentelemetry.sdk._logs"}
    assert "Loaded" in pending_spans(state_dir)


DETECTED = """
import getpass, sys
from dkist_processing_core import TaskBase

class Detected(TaskBase):
    def run(self):
        early = "psutil" in sys.modules
        import psutil
        print(early, psutil.Process().username() == getpass.getuser())

with Detected(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


@pytest.mark.parametrize("detects", [False, True])
def test_psutil_is_imported_for_those_who_use_it(state_dir: Path, refusing_port: int, *, detects: bool) -> None:
    """
    The SDK imports it for the owner of the process, one attribute of a detector that a variable must name.
    """
    detectors = {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process"} if detects else {}
    done = run_python(DETECTED, dead(refusing_port) | detectors)
    assert done.returncode == 0, done.stderr

    assert done.stdout.split() == [str(detects), "True"]
    assert ("process.owner" in pending_resource(state_dir)) is detects
