"""
The pages about many runs: a workflow over its versions, and two of its runs compared.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.dashboard.addresses.links import address, named_run, version_and_id
from dkist_processing_core.dashboard.pages import compare, now
from dkist_processing_core.events import Event
from dkist_processing_core.identity import Run
from dkist_processing_core.testing import FixedClock, SampleRun
from tests.dashboard.ground import Served, Visit, grave_violations, overflow
from tests.dashboard.histories import SLOWER, VERSIONS, WORKFLOW, history, run_id_of
from tests.dashboard.one_store import one_store
from tests.dashboard.serving import running
from tests.facts import NOON, finished, started
from tests.stored import ended_run, running_run

HOSTILE = "<script>alert(1)</script>\u202eevil\x1b[31m" + "x" * 10_000


def test_the_version_that_made_runs_slower_is_named_and_explained(served: Served, visit: Visit) -> None:
    """From the workflow to the comparison, and to that of other runs, also without JavaScript."""
    served.publish(*history())
    page = visit.open(address("/workflow", name=WORKFLOW), java_script_enabled=False)
    named = page.locator(".changes li").all_inner_texts()
    tasks = page.locator("#live_tasks tbody tr").first.inner_text()

    page.get_by_text("Compare a run of it with one before").click()
    summary = page.locator(".summary").inner_text()
    page.get_by_label("First run").select_option(named_run(Run(WORKFLOW, VERSIONS[0], run_id_of(0), None)))
    page.get_by_label("Second run").select_option(named_run(Run(WORKFLOW, VERSIONS[0], run_id_of(4), None)))
    page.get_by_role("button", name="Compare", exact=True).click()
    other = page.locator(".summary").inner_text()
    contrasts = page.locator("section", has_text="What else differs").inner_text()

    assert len(named) == 1
    assert named[0].startswith(f"Worse since version {SLOWER}: the median duration rose from 1 min")
    assert tasks.split()[0] == "Calibrate"
    assert "+1 min 30 s" in tasks
    assert "Calibrate has the largest share, +1 min 30 s (run +1 min 30 s)" in " ".join(summary.split())
    assert "earlier attempts +" in other
    assert contrasts.split()[-4:] == ["Calibrate", "attempts", "1", "2"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_are_accessible_and_fit_a_phone(served: Served, visit: Visit, theme: str) -> None:
    """Wide tables scroll in their boxes, which the keyboard reaches."""
    served.publish(*ended_run("r1", version="1"), *ended_run("r2", version="2"))

    for path in (address("/workflow", name=WORKFLOW), address("/compare", workflow=WORKFLOW)):
        page = visit.open(path, width=360, theme=theme)
        assert grave_violations(page) == []
        assert overflow(page) <= 0


def test_of_many_open_attempts_the_page_has_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The further ones are counted."""
    monkeypatch.setattr(now, "MOST_OPEN", 2)
    with running() as site:
        site.publish(*running_run())
        text = site.get("/").text

    assert "3 attempts" in text
    assert "and 1 more" in text


def test_what_an_address_names_must_exist() -> None:
    """One sentence states what was expected."""
    with running() as site:
        site.publish(*ended_run("r1", version="1"))
        wrong = {
            "/workflow": (400, "names no workflow"),
            "/workflow?name=other": (404, "has no run of the workflow &#39;other&#39;"),
            "/compare": (400, "names no workflow"),
            "/compare?workflow=other": (404, "has no run of the workflow &#39;other&#39;"),
            f"/compare?workflow={WORKFLOW}&a=none": (404, "has no run none of the workflow"),
            f"/compare?workflow={WORKFLOW}&b=r1&b_version=2": (404, "has no run r1 of version 2"),
            f"/compare?workflow={WORKFLOW}&b_run=2/r1": (404, "has no run r1 of version 2"),
            f"/compare?workflow={WORKFLOW}&b_run=r1": (400, "expected the version and the id of a run"),
        }
        found = {path: site.get(path) for path in wrong}
        alone = site.get(f"/compare?workflow={WORKFLOW}&b=r1")

    for path, (status, text) in wrong.items():
        assert found[path].status == status, path
        assert text in found[path].text, path
    assert alone.status == 200
    assert "has no earlier run to compare with" in alone.text


@given(st.text(), st.text(min_size=1))
def test_the_form_names_any_version_and_id(version: str, run_id: str) -> None:
    """Whatever characters they have: they are those of events."""
    version, run_id = (text.encode(errors="replace").decode() for text in (version, run_id))

    assert version_and_id(named_run(Run("W", version, run_id, None))) == (version, run_id)


def test_one_id_in_two_versions_is_two_runs_to_choose() -> None:
    """Of an id without its version, the run that was reported last is meant."""
    reports = [*ended_run("r/1", version="1/0"), *ended_run("r/1", version="2", begin=NOON + timedelta(minutes=1))]
    with one_store(reports) as store:
        html = store.html(f"/compare?workflow={WORKFLOW}")
        offered = re.findall(r'<option data-key="[^"]*" value="([^"]*)"', html)
        pairs = [(a, b) for a in set(offered) for b in set(offered)]
        chosen: list[Any] = [
            store.page(f"/compare?{urlencode({'workflow': WORKFLOW, 'a_run': a, 'b_run': b})}").values for a, b in pairs
        ]
        last: Any = store.page(f"/compare?workflow={WORKFLOW}&b=r/1").values["b"]

    assert len(offered) == 4
    assert {(each["a"].run.workflow_version, each["b"].run.workflow_version) for each in chosen} == {
        (a, b) for a in ("1/0", "2") for b in ("1/0", "2")
    }
    assert last.run.workflow_version == "2"


def test_a_run_is_found_by_its_whole_id() -> None:
    """Whatever number of later runs have ids that contain it."""
    reports = [
        started("A", run_id=f"recipe_{number}", time=NOON + timedelta(seconds=number)) for number in range(1, 200)
    ]
    with one_store(reports) as store:
        values: Any = store.page("/compare?workflow=W&a=recipe_1").values
        other = store.questions.last_run("W", "recipe_"), store.questions.last_run("V", "recipe_1")

    assert (values["a"].run.run_id, values["b"].run.run_id) == ("recipe_1", "recipe_199")
    assert other == (None, None)


def test_the_previous_run_is_the_last_that_finished_before() -> None:
    """A run that failed is compared with one that did not, if there is one."""
    names = {"workflow_name": "W"}
    with running() as site:
        site.publish(
            *(started("A", run_id="first", **names), finished("A", run_id="first", **names)),
            *ended_run("failed", version="1"),
            *ended_run("last", version="1"),
        )
        found = site.get(f"/compare?workflow={WORKFLOW}")
        of_first = site.get("/compare?workflow=W")

    assert "failed" in found.text
    assert "The second run took" in found.text
    assert "has no earlier run" in of_first.text


def test_the_run_before_is_found_among_all_runs() -> None:
    """It may be none of those that the form offers, which are the ones with the latest reports."""
    reports = [
        report
        for number in range(compare.MOST_OFFERED + 3)
        for report in ended_run(
            f"r{number:03}",
            version="1",
            begin=NOON + timedelta(hours=number),
        )
    ]
    with one_store(reports, now=NOON + timedelta(hours=200)) as store:
        addresses = [f"/compare?workflow={WORKFLOW}&b=r{number:03}" for number in (0, 1, 2, 50)]
        before: list[Any] = [store.page(each).values["a"] for each in addresses]

    assert [None if view is None else view.run.run_id for view in before] == [None, "r000", "r001", "r049"]


def runs_of(version: str, first: int, *, finished_runs: int, failed_runs: int, seconds: float) -> Iterator[Event]:
    """Yield the reports of runs of a version, one in an hour since the hour of the first, those that failed first."""
    for place in range(failed_runs + finished_runs):
        clock = FixedClock(NOON + timedelta(hours=first + place))
        run = SampleRun(WORKFLOW, workflow_version=version, tasks="A", run_id=f"{version}-{place}", clock=clock)
        run.start()
        run.begin("A")
        run.clock.advance(seconds + place)
        if place < failed_runs:
            run.fail("A")
        else:
            run.succeed("A")
        run.end()
        yield from run.events


def test_each_change_of_a_version_has_its_mark() -> None:
    """One that fails less often can be slower."""
    reports = [
        *runs_of("1", 0, finished_runs=10, failed_runs=12, seconds=60),
        *runs_of("2", 100, finished_runs=20, failed_runs=0, seconds=600),
    ]
    with one_store(reports, now=NOON + timedelta(hours=200)) as store:
        html = store.html(f"/workflow?name={WORKFLOW}")

    in_chart = re.findall(r'<text class="(worse|better)"[^>]* y="(\d+)"[^>]*>(.*?)</text>', html)
    in_table = re.findall(r'<span class="(worse|better)">(.*?)</span>', html)
    assert in_chart == [("worse", "14", "▲ duration"), ("better", "28", "▼ failures")]
    assert in_table == [("worse", "▲ duration"), ("better", "▼ failures")]


def test_hostile_names_are_text() -> None:
    """In each place in which a name from an event is shown."""
    facts = {"workflow_name": HOSTILE, "workflow_version": HOSTILE[:200]}
    events = [
        event
        for run_id in ("r1", HOSTILE[:500])
        for event in (started(HOSTILE[:300], run_id=run_id, **facts), finished(HOSTILE[:300], run_id=run_id, **facts))
    ]
    # An event has no control characters.
    name = events[0].workflow_name
    with running() as site:
        site.publish(*events)
        shown = [site.get("/workflow", name=name), site.get("/compare", workflow=name)]

    for answer in shown:
        texts = re.findall(r">([^<]*)<", answer.text)
        assert answer.status == 200
        assert "<script>alert" not in answer.text
        assert any("&lt;script&gt;alert(1)" in text for text in texts)
        assert [text for text in texts if "\u202e" in text] == []
