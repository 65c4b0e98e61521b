"""
The pages about all runs in a browser: what they show, whom they suit, and what happens while they are live.

Not here: the page of one run, and comparisons.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, TaskOverdue, WorkflowFailed, WorkflowOverdue
from dkist_processing_core.settings.reading import read_settings
from tests.dashboard.ground import WIDTHS, Served, Visit, check_on_screens, dashboard, overflow
from tests.facts import failed, finished, make, progressed, started
from tests.stored import ended_run, running_run

NOW = datetime.now(UTC)
_FAMILY = "5f0ac1d2e3b4a596"
_THEN = (NOW - timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%S")
PATHS = ("/", f"/?at={_THEN}", "/runs", "/runs?q=nothing", "/failures", f"/failures?family={_FAMILY}", "/bus")
_HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">\u202etxt.exe\x1b[31m'
_LONG = "x" * 10_000


@pytest.fixture(scope="module", autouse=True)
def _published(served_module: Served) -> None:
    """
    Runs of the last day on the dashboard of the module.
    """
    events: list[Event] = []
    for number in range(12):
        version = "1.2.2" if number > 5 else "1.2.3"
        begin = NOW - timedelta(hours=1.5 * number, minutes=20)
        events += ended_run(f"scheduled__{number}__{1000 + number}abcd", begin=begin, version=version)
    served_module.publish(*events, *running_run(now=NOW))


@pytest.mark.parametrize("path", PATHS)
def test_a_page_fits_each_screen_and_is_accessible_in_both_themes(look: Visit, path: str) -> None:
    """
    No page is wider than its window, and axe-core finds no serious violation.
    """
    check_on_screens(look.open(path))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "l1_to_l2_dlnirsp"),
        (f"/?at={_THEN}", "As it was at"),
        ("/runs", "1000abcd"),
        ("/failures", "no limb in frame 3"),
        (f"/failures?family={_FAMILY}", "raise LimbError"),
        ("/bus", "dkist-core.collect"),
    ],
)
def test_a_page_works_without_javascript(look: Visit, path: str, text: str) -> None:
    """
    The content is there, and no control that needs a program.
    """
    page = look.open(path, java_script_enabled=False)

    expect(page.locator("main")).to_contain_text(text)
    expect(page.locator("#theme")).to_be_hidden()
    expect(page.locator("button[data-copy]:visible")).to_have_count(0)


def test_runs_are_filtered_and_sorted_by_the_address(look: Visit) -> None:
    """
    A form makes the address, links of outcomes and columns change it, and each address shows the same again.
    """
    page = look.open("/runs")
    expect(page.locator("#live_list h2")).to_have_text("13 runs")

    page.get_by_label("Version").fill("1.2.2")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#live_list h2")).to_have_text("6 runs of this filter")
    page.get_by_role("link", name="6 failed").click()
    expect(page.get_by_role("columnheader", name="Began")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("columnheader", name="Began").get_by_role("link").click()

    expect(page.get_by_role("columnheader", name="Began")).to_have_attribute("aria-sort", "ascending")
    assert "version=1.2.2" in page.url
    assert "state=failed" in page.url
    shown = page.locator("#live_list tbody th a.run").all_inner_texts()
    assert shown == [f"{1000 + number}abcd" for number in range(11, 5, -1)]


def test_a_run_is_found_from_each_page_by_the_keyboard(look: Visit) -> None:
    """
    A slash leads to the search, whose answer is the list of runs.
    """
    page = look.open("/failures")

    page.keyboard.press("/")
    page.keyboard.type("1004AB")
    page.keyboard.press("Enter")

    expect(page.locator("#live_list tbody tr")).to_have_count(1)
    expect(page.locator("#live_list tbody")).to_contain_text("1004abcd")


def test_the_theme_is_remembered(look: Visit) -> None:
    """
    A chosen theme is that of the next page too, whatever the system prefers.
    """
    page = look.open("/", theme="light")
    light = _ground(page)

    page.get_by_role("button", name="dark").click()
    page.goto(page.url + "runs")

    assert _ground(page) != light
    expect(page.get_by_role("button", name="dark")).to_have_attribute("aria-pressed", "true")


def _ground(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return colour


def test_times_are_those_of_the_viewers_zone_with_utc_as_the_title(look: Visit) -> None:
    """
    A browser in Hawaii shows the time there.
    """
    page = look.open("/runs", timezone_id="Pacific/Honolulu")
    began = page.locator("#live_list tbody time:not([data-ago])").first

    shown, title = began.inner_text(), began.get_attribute("title") or ""
    utc = datetime.strptime(title, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert shown == (utc - timedelta(hours=10)).strftime("%Y-%m-%d %H:%M:%S")
    titles = page.locator("#live_activity svg title").all_text_contents()
    assert titles
    assert not [title for title in titles if "UTC" in title]


def test_a_wrong_address_is_explained(look: Visit) -> None:
    """
    The page names what was found and what was expected.
    """
    page = look.open("/runs?state=%3Cb%3E")

    expect(page.locator("main")).to_contain_text("found state='<b>', expected one of")
    look.complaints.clear()  # the browser reports the status


def test_a_run_is_followed_live_to_its_end(served: Served, visit: Visit) -> None:
    """
    Progress and end appear without another request for the page; the focus stays on its link.
    """
    now = datetime.now(UTC)
    served.publish(started("Calibrate", time=now), started("Polcal", time=now))
    page = visit.open("/")
    page.evaluate("window.isSame = true")
    link = page.locator("#live_running").get_by_role("link", name="Calibrate")
    link.focus()

    served.publish(progressed("Calibrate", 3, total=12, unit="frame", time=now))
    expect(page.locator("#live_running")).to_contain_text("3/12 frame")
    expect(link).to_be_focused()

    served.publish(finished("Calibrate", time=datetime.now(UTC)))
    expect(link).to_have_count(0)
    expect(page.locator("#live_running")).to_contain_text("1 of 2 tasks")
    end = datetime.now(UTC)
    served.publish(
        failed("Polcal", time=end, error_type="solar.LimbError", message="no limb"),
        make(WorkflowFailed, None, time=end, ended_at=end, reported_by="engine"),
    )

    expect(page.locator("#live_running")).to_contain_text("Nothing runs")
    expect(page.locator("#live_failed")).to_contain_text("LimbError: no limb")
    assert page.evaluate("window.isSame")


def test_a_text_that_is_being_selected_is_not_replaced(served: Served, visit: Visit) -> None:
    """
    The part waits until nothing in it is selected.
    """
    served.publish(started("Calibrate", time=datetime.now(UTC)))
    page = visit.open("/")
    page.locator("#live_running h2").select_text()

    served.publish(started("Polcal", time=datetime.now(UTC)))
    expect(page.locator("#live_numbers")).to_contain_text("2 attempts")
    assert "Polcal" not in page.locator("#live_running").inner_text()
    page.evaluate("getSelection().removeAllRanges()")

    expect(page.locator("#live_running")).to_contain_text("Polcal")


def test_a_lost_connection_is_shown_until_there_is_another_one(served: Served, visit: Visit) -> None:
    """
    The page stays, and names the time of what it shows.
    """
    served.publish(started("Calibrate", time=datetime.now(UTC)))
    with dashboard() as second:
        port = int(second.address.rstrip("/").rpartition(":")[2])
        page = Visit(visit.browser, second.address).open("/")
        expect(page.locator("#connection")).to_have_text("live")

    expect(page.locator("#lost")).to_contain_text("This page is as it was at")
    expect(page.locator("#live_running")).to_contain_text("Calibrate")
    with dashboard(port=port):
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.locator("#lost")).to_be_hidden()
        page.context.close()


def test_hostile_texts_are_shown_as_text(served: Served, visit: Visit) -> None:
    """
    Names and messages from events are neither markup nor longer than their place, and hide nothing.
    """
    now = datetime.now(UTC)
    run = {"workflow_name": f"flow {_HOSTILE}", "workflow_version": _HOSTILE, "run_id": f"run {_HOSTILE}", "time": now}
    long = {"workflow_name": _LONG[:250], "workflow_version": "1", "run_id": _LONG[:250], "time": now}
    wrong = {"error_type": _HOSTILE, "message": f"{_HOSTILE}\n{_LONG}", "stack": f"{_HOSTILE}\n{_LONG}"}
    served.publish(
        started(f"task {_HOSTILE}", host=_HOSTILE, **run),
        progressed(f"task {_HOSTILE}", 1, unit=_HOSTILE, note=_LONG, **run),
        failed(f"wrong {_HOSTILE}", **run, **wrong),
        started(_LONG[:250], **long),
        failed(_LONG[:249], **long, **wrong),
    )

    for path in ("/", "/runs", "/failures", "/bus"):
        for width in WIDTHS[:2]:
            page = visit.open(path, width=width)
            assert page.evaluate("window.hacked") is None
            assert (path, overflow(page)) == (path, 0)
            assert not {"\u202e", "\x1b"} & set(page.locator("body").inner_text())
            assert page.locator("main img, main script").count() == 0
    family = visit.open("/failures").locator("#live_families tbody th a").first
    family.click()
    expect(family.page.locator("h1")).to_contain_text("<script>")


def test_a_new_dashboard_shows_the_next_step(visit: Visit) -> None:
    """
    Without a run, the first page and the list have a command to copy.
    """
    for path in ("/", "/runs"):
        expect(visit.open(path).locator("main .empty")).to_contain_text("dkist-core run")


def test_what_is_late_is_first_beside_what_runs(served: Served, visit: Visit) -> None:
    """
    An attempt beyond its limit and a start that was missed are counted, and each is described.
    """
    now = datetime.now(UTC)
    alarm = {"reported_by": "watcher", "time": now, "sequence": 2 * int((now - timedelta(hours=1)).timestamp() * 1000)}
    served.publish(
        started("Calibrate", time=now - timedelta(hours=1)),
        make(TaskOverdue, "Calibrate", exceeded="duration", limit_seconds=600.0, **alarm),
        make(
            WorkflowOverdue, None, run_id="", workflow_name="nightly", time=now, reported_by="watcher", expected_at=now
        ),
    )

    page = visit.open("/")

    expect(page.locator("#live_numbers")).to_contain_text("2 late")
    expect(page.locator("#live_late")).to_contain_text("Calibrate")
    expect(page.locator("#live_late")).to_contain_text("limit 10 min 00 s")
    expect(page.locator("#live_late")).to_contain_text("nightly")


@pytest.mark.soak
@pytest.mark.quiet
def test_a_publication_is_on_the_screen_within_a_second(
    served: Served, visit: Visit, print_line: Callable[[str], None]
) -> None:
    """
    From the call of `publish` to the text in the page: 95 of 100 publications take less than a second.
    """
    served.publish(started("Calibrate", time=datetime.now(UTC)))
    page = visit.open("/")
    page.evaluate(
        """() => {
            const part = document.getElementById("live_running");
            window.shownAt = {};
            new MutationObserver(() => {
                const found = part.textContent.match(/(\\d+)\\/1000 frame/);
                if (found) window.shownAt[found[1]] ??= Date.now() / 1000;
            }).observe(part, { childList: true, characterData: true, subtree: true });
        }"""
    )
    seconds = []
    with Publisher.open(read_settings()) as publisher:
        for number in range(1, 101):
            began = time.time()
            publisher.publish(progressed("Calibrate", number, total=1000, unit="frame", time=datetime.now(UTC)))
            page.wait_for_function("number => window.shownAt[number]", arg=number)
            seconds.append(page.evaluate("number => window.shownAt[number]", number) - began)

    seconds.sort()
    print_line(f"publish to pixel: median {seconds[49]:.3f} s, p95 {seconds[94]:.3f} s, largest {seconds[-1]:.3f} s")
    assert seconds[94] < 1
