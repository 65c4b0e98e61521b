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

from dkist_processing_core.events import Event, TaskDispatched, WorkflowFinished, WorkflowStarted
from tests.deployed import DASHBOARDS, queries
from tests.facts import failed, finished, make, started
from tests.services.broker import open_broker
from tests.services.rabbitmq import RabbitMQNode
from tests.site import SECONDS, Site, open_site

# On a loaded machine the example takes minutes.
pytestmark = [pytest.mark.prometheus, pytest.mark.rabbitmq, pytest.mark.timeout(400)]
WORKFLOW = "raw_to_l1_solar_calibration"
TASKS = 8


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
        end = {"time": now + timedelta(seconds=2), "duration_seconds": 2.0, "peak_memory_bytes": 200_000_000, **facts}
        events += [
            make(TaskDispatched, task, queued_seconds=0.3, **at),
            started(task, **environment, **at),
            failed(task, **end) if task == "FitLimb" else finished(task, **end),
        ]
    return [*events, make(WorkflowFinished, time=now + timedelta(seconds=3), duration_seconds=3.0, **facts)]


@pytest.fixture(scope="module")
def site(rabbitmq: RabbitMQNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """
    A site on which the example ran, after two reported runs of it, one of them while no process sent events.
    """
    with open_broker(rabbitmq) as broker, open_site(broker, tmp_path_factory.mktemp("site")) as site:
        site.prometheus.wait_for(lambda server: set(server.targets().values()) == {"up"}, 4 * SECONDS)
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
    total = "sum(dkist_core_attempt_ended_total)"
    site.prometheus.wait_for(
        lambda server: [each["value"][1] for each in server.query(total)] == [str(number)], SECONDS
    )


def test_every_process_is_scraped(site: Site) -> None:
    """
    The deployed jobs find the metrics of each process, and of the broker.
    """
    jobs = site.prometheus.targets()

    assert jobs == dict.fromkeys(("dkist-core-collect", "dkist-core-consume", "rabbitmq"), "up")


@pytest.mark.parametrize(
    ("name", "title", "query"),
    [
        pytest.param(name, title, query, id=f"{name}-{title}-{number}")
        for name, dashboard in DASHBOARDS.items()
        if name != "delivery"
        for number, (title, query) in enumerate(queries(dashboard, workflow=WORKFLOW))
    ],
)
def test_each_query_of_a_dashboard_has_data(site: Site, name: str, title: str, query: str) -> None:
    """
    The answer has a series with a number.
    """
    del name, title

    found = site.prometheus.wait_for(lambda server: server.query(query), SECONDS)

    assert any(math.isfinite(float(each["value"][1])) for each in found), found


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
    One alert of each kind fires for a real cause, and ends when it is mended.
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
        site.fires("DkistCoreWorkflowSilent")

        site.report(finished("Gather", time=at + timedelta(seconds=3), **facts))

        site.ends("DkistCoreWorkflowSilent")

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
