"""
Live pages in a browser: each shows what the same address shows when it is loaded.

Not here: what viewers are sent, and when (test_live), and a run that is followed to its end (test_run_in_browser).
"""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Page, Route, expect

from dkist_processing_core.dashboard.addresses.links import (
    address,
    attempt_address,
    compare_address,
    family_address,
    named_run,
    run_address,
    workflow_address,
)
from dkist_processing_core.dashboard.app import PAGES
from dkist_processing_core.events import Event, TaskOverdue, WorkflowFailed
from dkist_processing_core.testing import FixedClock, SampleRun
from tests.dashboard.ground import Served, Visit
from tests.facts import failed, make, started

_SECONDS = 60.0
# Durations that go on, charts whose last column ends now, and figures of the bus as it was read last.
_OF_NOW = "[data-seconds], [data-ago], .spark title, .chart title, #live_state .grid"
_SHOWN = f"""() => {{
    const found = [document.title];
    const take = (node) => {{
        if (node.nodeType === Node.TEXT_NODE) found.push(node.nodeValue.trim().replace(/\\s+/g, " "));
        if (node.nodeType !== Node.ELEMENT_NODE || node.matches("{_OF_NOW}")) return;
        if (node.href) found.push(String(node.href.baseVal ?? node.href));
        if (node.matches("datalist option")) found.push(node.value);
        if (node.hidden) found.push("hidden");
        node.childNodes.forEach(take);
    }};
    take(document.querySelector("main"));
    return found.filter(Boolean);
}}"""
_REPEATED_KEYS = """() => [...document.querySelectorAll("main *")].flatMap((parent) => {
    const keys = [...parent.children].map((child) => child.dataset.key).filter(Boolean);
    return keys.filter((key, place) => keys.indexOf(key) !== place);
})"""


def settled(page: Page) -> tuple[list[str], list[str]]:
    """
    Return the texts and links of a live page, and those of its address loaded again, as soon as both are equal.
    """
    deadline = time.monotonic() + _SECONDS
    again = page.context.new_page()
    while True:
        again.goto(page.url)
        found = page.evaluate(_SHOWN), again.evaluate(_SHOWN)
        if found[0] == found[1] or time.monotonic() > deadline:
            again.close()
            return found


def _run(run_id: str, minutes_ago: float) -> SampleRun:
    begin = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    run = SampleRun(run_id=run_id, clock=FixedClock(begin), max_attempts=2)
    run.start()
    return run


def late_runs(run_id: str) -> Iterator[Event]:
    """
    Yield reports on late runs of two workflows that have one id.
    """
    now = datetime.now(UTC)
    alarm = {"reported_by": "watcher", "sequence": 2, "exceeded": "duration", "limit_seconds": 600.0}
    for name in ("nightly", "daily"):
        run = {"workflow_name": name, "run_id": run_id, "time": now - timedelta(hours=1)}
        yield started("Calibrate", **run)
        yield make(TaskOverdue, "Calibrate", **run, **alarm)


def test_a_live_page_shows_what_its_address_shows_when_it_is_loaded(served: Served, visit: Visit) -> None:
    """
    Of each kind of page, after reports that change it, also if it had nothing to show before.
    """
    other, run = _run("manual__1__5678abcd", 60), _run("manual__2__1234abcd", 20)
    # With this one, the short id of the run is longer.
    unknown = _run("manual__3__1234abcd", 10)
    other.fail("ParseL0")
    first = other.fail("ParseL0")
    other.end()
    run.succeed("ParseL0")
    # The first attempt has reached a worker, and its process has not begun.
    known = len(run.events) + 1
    run.fail("Calibrate")
    run.kill("Calibrate")
    run.end()
    unknown.fail("ParseL0")
    unknown.succeed("ParseL0")
    unknown.end()
    alike = {"time": datetime.now(UTC), "fingerprint": first.fingerprint, "error_type": "OtherError", "stack": "other"}
    of_another_workflow = failed("A", **alike), make(WorkflowFailed, ended_at=alike["time"], time=alike["time"])
    served.publish(*other.events, *run.events[:known], *late_runs("scheduled__1"))
    assert first.fingerprint is not None
    pages = {
        path: visit.open(path)
        for path in (
            *("/", "/runs", address("/runs", state="failed"), "/failures", family_address(first.fingerprint), "/bus"),
            *(run_address(run.run), attempt_address(run.run, "Calibrate", 1)),
            attempt_address(run.run, "Calibrate", None),
            *(run_address(unknown.run), attempt_address(unknown.run, "ParseL0", 1)),
            workflow_address(run.run.workflow_name),
            *(compare_address(other.run, run.run), address("/compare", workflow=run.run.workflow_name)),
        )
    }
    before = {path: page.evaluate(_SHOWN) for path, page in pages.items()}
    served.publish(*run.events[known:], *unknown.events, *of_another_workflow)
    after = {path: settled(page) for path, page in pages.items()}

    assert {path.partition("?")[0] for path in pages} == set(PAGES)
    assert {path: live for path, (live, _) in after.items()} == {path: loaded for path, (_, loaded) in after.items()}
    # Reports on runs need not change what is known of the bus.
    assert [path for path, (live, _) in after.items() if live == before[path] and path != "/bus"] == []
    assert {path: page.evaluate(_REPEATED_KEYS) for path, page in pages.items()} == {path: [] for path in pages}
    visit.complaints.clear()  # the browser reports the status of pages that are not there yet


def test_late_runs_of_two_workflows_with_one_id_stay_two(served: Served, visit: Visit) -> None:
    """
    Airflow gives the runs of all daily workflows the same ids.
    """
    served.publish(*late_runs("scheduled__1"))
    page = visit.open("/")
    rows = page.locator("#live_late li")
    expect(rows).to_have_count(2)

    served.publish(*late_runs("scheduled__2"))
    expect(rows).to_have_count(4)
    served.publish(*late_runs("scheduled__3"))
    expect(rows).to_have_count(6)


def test_runs_that_are_being_chosen_stay_chosen(served: Served, visit: Visit) -> None:
    """
    A run that begins meanwhile is offered as well, and is not chosen instead.
    """
    runs = [_run(f"manual__{number}", 30 - number) for number in range(3)]
    served.publish(*runs[0].events, *runs[1].events)
    page = visit.open(address("/compare", workflow=runs[0].run.workflow_name))
    first, second = page.get_by_label("First run"), page.get_by_label("Second run")
    second.select_option(named_run(runs[0].run))

    served.publish(*runs[2].events)
    expect(second.locator("option")).to_have_count(3)

    expect(second).to_have_value(named_run(runs[0].run))
    expect(first).to_have_value(named_run(runs[1].run))


def test_each_row_is_kept_though_two_have_one_key(visit: Visit) -> None:
    """
    A page that repeats a key by mistake shows all of its rows after each change.
    """
    lists = (["one", "two"], ["one", "2", "three"], ["1", "2"])

    def answer(route: Route) -> None:
        rows = ["".join(f'<li data-key="same">{text}</li>' for text in texts) for texts in lists]
        parts = [json.dumps({"live_numbers": f'<ul id="live_numbers">{each}</ul>'}) for each in rows]
        events = "".join(f"event: parts\ndata: {each}\n\n" for each in parts)
        route.fulfill(content_type="text/event-stream", body=events)

    page = visit.open("/bus")
    page.context.route("**/live?*", answer)
    page.goto(page.url.removesuffix("bus"))

    expect(page.locator("#live_numbers li")).to_have_text(["1", "2"])
