"""
Live pages: what a viewer is sent, and when.
"""

from contextlib import ExitStack

import pytest

from dkist_processing_core.dashboard.addresses.links import address
from dkist_processing_core.dashboard.app import PAGES
from dkist_processing_core.dashboard.asked import Asked, Page
from dkist_processing_core.dashboard.html import live
from dkist_processing_core.errors import InboxLostError
from tests.dashboard.serving import running
from tests.stored import RUNNING, running_run


def test_a_viewer_gets_all_parts_at_first_and_then_each_change() -> None:
    """A report that the bus gets while somebody looks at the page changes the page."""
    with running() as site, site.viewer("/") as viewer:
        first = viewer.parts()
        site.publish(*running_run())
        changed = viewer.parts()
        while "Invert" not in "".join(changed.values()):
            changed = viewer.parts()

    assert first
    assert "Invert" not in "".join(first.values())
    assert set(changed) <= set(first)


def test_viewers_of_a_page_that_does_not_exist_get_the_reason() -> None:
    """The stream ends after it."""
    with running() as site, site.viewer("/nothing") as viewer:
        found, end = viewer.next(), viewer.next()

    assert found is not None
    assert found[0] == "gone"
    assert "there is no page '/nothing'" in found[1]
    assert end is None


def test_a_page_about_the_past_is_not_live() -> None:
    """Neither does its address name a stream, nor is one sent."""
    with running() as site:
        page = site.get("/", at="2026-11-29T12:00:00Z")
        with site.viewer("/?at=2026-11-29T12:00:00Z") as viewer:
            found = viewer.next()

    assert page.status == 200
    assert "data-live" not in page.text
    assert found is not None
    assert found[0] == "gone"


def test_viewers_are_released_when_the_dashboard_ends() -> None:
    """It does not wait for them, and they get the end of the stream."""
    with ExitStack() as stack:
        with running() as site:
            viewer = stack.enter_context(site.viewer("/"))
            first = viewer.parts()

        assert first
        assert {name for name, _ in viewer.rest()} <= {"parts"}


def test_a_stream_that_ends_by_its_plan_asks_for_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its viewer need not take the end for a loss."""
    monkeypatch.setattr(live, "STREAM_SECONDS", 0.5)
    with running() as site, site.viewer("/") as viewer:
        events = [name for name, _ in viewer.rest()]

    assert events[-1] == "again"
    assert "again" not in events[:-1]


def test_a_run_that_the_store_does_not_have_yet_is_followed() -> None:
    """As when the store is built again meanwhile."""
    of = address("/run", workflow="l1_to_l2_dlnirsp", version="dev", id=RUNNING)
    with running() as site, site.viewer(of) as viewer:
        before = viewer.next()
        site.publish(*running_run())
        after = viewer.parts()

    assert before is not None
    assert before[0] == "away"
    assert "the store has no run" in before[1]
    assert after


@pytest.mark.parametrize("elsewhere", ["//[", "https://elsewhere/"])
def test_an_address_elsewhere_is_not_followed(elsewhere: str) -> None:
    """Its stream ends after the reason."""
    with running() as site, site.viewer(elsewhere) as viewer:
        found, end = viewer.next(), viewer.next()

    assert found is not None
    assert found[0] == "gone"
    assert repr(elsewhere) in found[1]
    assert end is None


def test_a_store_that_cannot_be_used_is_no_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page explains what is wrong with it, and is requested again by the browser."""

    def page(_: Asked) -> Page:
        raise InboxLostError("the database was replaced by another one")

    monkeypatch.setitem(PAGES, "/runs", page)
    with running() as site:
        answer = site.get("/runs")

    assert (answer.status, answer.headers["Refresh"]) == (503, "5")
    assert "the database was replaced by another one" in answer.text
