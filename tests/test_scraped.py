"""
A real Prometheus scrapes real processes with the deployed jobs, rules and alerts, and answers the dashboards' queries.

Not here: the files by themselves (test_deployed_files), and the processes (site).
"""

import math
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from dkist_processing_core.events import Event, TaskDispatched, WorkflowFinished, WorkflowStarted
from tests.deployed import DASHBOARDS, alerts, metrics_in, queries
from tests.facts import failed, finished, make, progressed, started
from tests.otlp_requests import request_of
from tests.services.broker import open_broker
from tests.services.otlp import Answer
from tests.services.prometheus import PrometheusServer
from tests.services.rabbitmq import RabbitMQNode
from tests.site import EXCHANGE, SECONDS, Site, open_site

# On a loaded machine the example takes minutes.
pytestmark = [pytest.mark.prometheus, pytest.mark.rabbitmq]
WORKFLOW = "raw_to_l1_solar_calibration"
TASKS = 8
# For a minute after an outage of the broker, which another test may have made, absence does not count.
SETTLED_SECONDS = 60 + SECONDS


def earlier_run(number: int) -> list[Event]:
    """
    Return the reports on an earlier run of the example, whose environment was prepared and whose last task failed.

    A graph of increments shows nothing of a series that only has its first value.
    """
    now = datetime.now(UTC)
    facts: dict[str, Any] = {"workflow_name": WORKFLOW, "workflow_version": "dev", "run_id": f"earlier-{number}"}
    environment = {"environment": "reused", "environment_seconds": 0.2}
    events: list[Event] = [make(WorkflowStarted, time=now, **facts)]
    for task in ("ParseFrames", "FitLimb"):
        at = {"time": now, **facts}
        ended = {"time": now + timedelta(seconds=2), "duration_seconds": 2.0, "peak_memory_bytes": 200_000_000, **facts}
        events += [
            make(TaskDispatched, task, queued_seconds=0.3, **at),
            started(task, **environment, **at),
            failed(task, **ended) if task == "FitLimb" else finished(task, **ended),
        ]
    end = now + timedelta(seconds=3)
    return [*events, make(WorkflowFinished, time=end, ended_at=end, duration_seconds=3.0, **facts)]


@pytest.fixture(scope="module")
def site(rabbitmq: RabbitMQNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """
    A site on which the example ran, after two reported runs of it, one of them while no process sent events.
    """
    with open_broker(rabbitmq) as broker, open_site(broker, tmp_path_factory.mktemp("site")) as site:
        site.prometheus.wait_for(lambda server: set(server.targets().values()) == {"up"}, 4 * SECONDS)
        with site.journal_of_telemetry():
            pass  # the books of a host are served before its first span
        for number in range(2):
            site.report(*earlier_run(number))
            _wait_for_ends(site, 2 * (number + 1))
        example = site.run("run", "solar_calibration:workflow", "--recipe-run-id", "3")
        assert example.returncode == 0, example.stdout + example.stderr
        _wait_for_ends(site, 2 * 2 + TASKS)
        yield site


def _wait_for_ends(site: Site, number: int) -> None:
    """
    Wait until that many attempts are counted.
    """
    # Each process that serves the store has all of them.
    total = "sum(max without (instance) (dkist_core_attempt_ended_total))"
    site.prometheus.wait_for(
        lambda server: [each["value"][1] for each in server.query(total)] == [str(number)], SECONDS
    )


def test_every_process_is_scraped(site: Site) -> None:
    """
    The deployed jobs find the metrics of each process, and of the broker.
    """
    jobs = dict.fromkeys(("dkist-core-collect", "dkist-core-relay", "dkist-core-consume", "rabbitmq"), "up")

    site.prometheus.wait_for(lambda server: server.targets() == jobs, SECONDS)


@pytest.mark.parametrize(
    ("name", "title", "query"),
    [
        pytest.param(name, title, query, id=f"{name}-{title}-{number}")
        for name, dashboard in DASHBOARDS.items()
        for number, (title, query) in enumerate(queries(dashboard, workflow=WORKFLOW))
    ],
)
def test_each_query_of_a_dashboard_has_data(site: Site, name: str, title: str, query: str) -> None:
    """
    The answer has a series with a number.
    """
    del name, title

    site.prometheus.wait_for(
        lambda server: any(math.isfinite(float(each["value"][1])) for each in server.query(query)), SECONDS
    )


def test_a_mark_in_a_panel_leads_to_a_trace_that_the_receiver_got(site: Site) -> None:
    """
    The trace ids of exemplars are those of exported spans, of attempts that have the labels of the series.
    """
    marks = site.prometheus.wait_for(
        lambda server: server.exemplars("dkist_core_attempt_duration_seconds_bucket"), SECONDS
    )

    found = {(mark["labels"]["trace_id"], mark["labels"]["span_id"]) for mark in marks}

    site.otlp.wait_for(lambda otlp: found <= {(span.trace_id, span.span_id) for span in otlp.spans()}, SECONDS)


class TestAlerts:
    """
    Alerts of attempts, of delivery and of services fire for a real cause, and end when it is mended.
    """

    def test_failed_attempts(self, site: Site) -> None:
        """Three attempts of a workflow fail; afterwards, none does."""
        at = datetime.now(UTC)
        for number in range(3):
            facts = {"workflow_name": "site_failing", "run_id": f"failing-{at:%H%M%S}-{number}"}
            site.report(started("Gather", time=at, **facts), failed("Gather", time=at, **facts))
        site.fires("DkistCoreAttemptsFail")

        site.ends("DkistCoreAttemptsFail")

    def test_a_silent_workflow(self, site: Site) -> None:
        """An attempt begins and reports nothing more; then its end arrives."""
        at = datetime.now(UTC)
        facts = {"workflow_name": "site_silent", "run_id": f"silent-{at:%H%M%S}"}
        site.report(started("Gather", time=at, **facts))
        silent = ("DkistCoreWorkflowSilent", 'cicd_pipeline_name="site_silent"')
        site.fires(*silent)

        site.report(finished("Gather", time=at + timedelta(seconds=3), **facts))

        site.ends(*silent)

    def test_an_attempt_without_a_sign_of_life(self, site: Site) -> None:
        """An attempt announces samples, and sends none; then its end arrives."""
        at = datetime.now(UTC)
        facts = {"workflow_name": "site_dead", "run_id": f"dead-{at:%H%M%S}"}
        site.report(started("Gather", time=at, sample_seconds=1.0, reported_by="launcher", **facts))
        overdue = ("DkistCoreNoSignOfLife", 'cicd_pipeline_name="site_dead"')
        site.fires(*overdue, SETTLED_SECONDS)

        site.report(finished("Gather", time=datetime.now(UTC), reported_by="launcher", **facts))

        site.ends(*overdue)

    def test_a_run_that_was_expected(self, site: Site) -> None:
        """No run has begun when the minute is over; then one begins."""
        site.fires("DkistCoreStartMissed", seconds=SETTLED_SECONDS)

        now = datetime.now(UTC)
        site.report(make(WorkflowStarted, workflow_name="site_expected", run_id=f"late-{now:%H%M%S}", time=now))

        site.ends("DkistCoreStartMissed")

    def test_a_watcher_that_does_not_know_what_happens(self, site: Site) -> None:
        """The process that keeps the store stands still, so that the watcher cannot judge, until it goes on."""
        site.processes["collect"].send_signal(signal.SIGSTOP)
        try:
            site.fires("DkistCoreNotJudged")
        finally:
            site.processes["collect"].send_signal(signal.SIGCONT)

        site.ends("DkistCoreNotJudged", seconds=SETTLED_SECONDS)

    def test_an_airflow_that_does_not_answer(self, site: Site) -> None:
        """A proxy answers for it, so that ends cannot be compared; then it answers again."""
        site.airflow.misbehaves = lambda *_: (503, b"")
        try:
            site.fires("DkistCoreEndsNotCompared", seconds=SETTLED_SECONDS)
        finally:
            site.airflow.misbehaves = lambda *_: None

        site.ends("DkistCoreEndsNotCompared")

    def test_a_broker_that_cannot_be_reached(self, site: Site) -> None:
        """Events wait and become more, and consumers have no connection, until the network is back."""
        site.proxy.refuse()
        site.proxy.cut()
        try:
            site.fires("DkistCoreDisconnected")
            site.report(*[progressed("Gather", number, run_id="waiting") for number in range(20)])
            site.fires("DkistCoreEventsGrow")
            site.fires("DkistCoreEventsLate")
        finally:
            site.proxy.accept()

        for alert in ("DkistCoreDisconnected", "DkistCoreEventsGrow", "DkistCoreEventsLate"):
            site.ends(alert)

    def test_events_that_the_broker_refuses(self, site: Site) -> None:
        """A queue that is full refuses a message, until it is gone and the message is tried again."""
        site.prometheus.wait_for(lambda server: server.query("dkist_core_outbox_pending"), SECONDS)
        with site.broker.connect() as connection:
            channel = connection.channel()
            channel.queue_declare("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
            channel.queue_bind("full", EXCHANGE, "task.progressed.site_refused.#")
            site.report(*[progressed("Gather", number, workflow_name="site_refused") for number in range(3)])
            site.fires("DkistCoreEventsSetAside")
            channel.queue_delete("full")

        site.run("outbox", "retry", "--all")

        site.ends("DkistCoreEventsSetAside")

    def test_dead_letters(self, site: Site) -> None:
        """A handler fails for good, until an operator discards the event."""
        with site.flag("give_up"):
            site.report(failed("Gather", time=datetime.now(UTC), run_id=f"dead-{datetime.now(UTC):%H%M%S}"))
            site.fires("DkistCoreDeadLetters")

        site.run("dead-letters", "discard", "--all", "--yes")

        site.ends("DkistCoreDeadLetters")

    def test_a_consumer_that_is_behind(self, site: Site) -> None:
        """A handler takes long, and later events wait for it."""
        with site.flag("hold"):
            at = datetime.now(UTC)
            site.report(*[progressed("Gather", number, time=at, run_id=f"slow-{at:%H%M%S}") for number in range(10)])
            site.fires("DkistCoreConsumerLags")

        site.ends("DkistCoreConsumerLags")

    def test_a_queue_that_grows(self, site: Site) -> None:
        """A consumer stands still while events are published, until it has received them."""
        consume = site.processes["consume"]
        consume.send_signal(signal.SIGSTOP)
        try:
            at = datetime.now(UTC)
            site.report(*[progressed("Gather", number, time=at, run_id=f"many-{at:%H%M%S}") for number in range(1500)])
            # It measures its queue every ten seconds.
            silent = 'max_over_time(up{job="dkist-core-consume"}[11s]) == 0'
            site.prometheus.wait_for(lambda server: server.query(silent), SECONDS)
        finally:
            consume.send_signal(signal.SIGCONT)
        site.fires("DkistCoreBacklogGrows")

        site.ends("DkistCoreBacklogGrows")

    def test_telemetry_that_the_collector_refuses(self, site: Site) -> None:
        """The collector refuses a request for good; afterwards, it accepts all."""
        site.otlp.answer("logs", Answer(status=400, code="INVALID_ARGUMENT", message="no"))
        with site.journal_of_telemetry() as journal:
            journal.append("logs", 1, ExportLogsServiceRequest().SerializeToString())
        site.fires("DkistCoreTelemetryRefused")

        site.ends("DkistCoreTelemetryRefused")

    def test_a_collector_that_is_overloaded(self, site: Site) -> None:
        """It takes nothing for a while, and spans become more; then it takes all."""
        site.otlp.answer("traces", *[Answer(code="UNAVAILABLE", retry_after="0.5")] * 1000)
        with site.journal_of_telemetry() as journal:
            journal.append("traces", 20, request_of("traces", [f"waiting {number}" for number in range(20)]))
        site.fires("DkistCoreTelemetryGrows")

        site.otlp.answer("traces")

        site.ends("DkistCoreTelemetryGrows")

    def test_telemetry_beyond_the_bound_of_its_journal(self, site: Site) -> None:
        """A journal is at its bound, so that spans are dropped; afterwards, none are."""
        with site.journal_of_telemetry(most_bytes=1) as journal:
            journal.append("traces", 500, b"x")
        site.fires("DkistCoreTelemetryDropped")

        site.ends("DkistCoreTelemetryDropped")

    def test_a_process_that_does_not_answer(self, site: Site) -> None:
        """A stopped process has no metrics; it has them again when it goes on."""
        site.processes["consume"].send_signal(signal.SIGSTOP)
        try:
            site.fires("DkistCoreTargetDown")
        finally:
            site.processes["consume"].send_signal(signal.SIGCONT)

        site.ends("DkistCoreTargetDown")

    def test_a_broker_that_blocks(self, site: Site) -> None:
        """The node has a memory alarm, until there is memory."""
        site.broker.node.memory_alarm(on=True)
        try:
            site.fires("DkistCoreBrokerBlocks")
        finally:
            site.broker.node.memory_alarm(on=False)

        site.ends("DkistCoreBrokerBlocks")


def test_each_metric_of_a_rule_is_one_that_is_scraped(site: Site) -> None:
    """
    A rule that reads a name which no process serves would never fire.
    """
    read = set().union(*(metrics_in(alert["expr"]) for alert in alerts()))
    # They are absent as long as nothing waits, and before the first alarm.
    deployed = {name for name in read if ":" not in name}
    deployed -= {"dkist_core_outbox_oldest_time_seconds", "dkist_core_alarm_active"}

    def unknown(server: PrometheusServer) -> set[str]:
        # A process that was stopped a moment ago may not have measured all of them again.
        return deployed - {each["metric"]["__name__"] for each in server.query('last_over_time({__name__!=""}[1h])')}

    # A watcher judges for the first time when its store has been complete for a minute.
    site.prometheus.wait_for(lambda server: not unknown(server), SETTLED_SECONDS)
