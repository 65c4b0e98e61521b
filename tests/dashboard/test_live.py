"""
Live pages: what a viewer is sent, and when.
"""

from contextlib import ExitStack

from tests.dashboard.serving import running
from tests.stored import running_run


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
