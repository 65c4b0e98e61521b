"""
What pages state in words beside their drawings, and the names of their tables.
"""

import re
from datetime import timedelta
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.dashboard.addresses.links import attempt_address, run_address, workflow_address
from dkist_processing_core.dashboard.html.words import age, duration
from dkist_processing_core.events import TaskDispatched
from dkist_processing_core.identity import Run
from tests.dashboard.one_store import one_store
from tests.facts import NOON, failed, finished, make, sampled, started
from tests.stored import ended_run, running_run

_RUN = Run("W", "1", "r", 1)


def test_a_bar_of_tasks_has_its_numbers_in_words() -> None:
    """Colours alone do not show how many tasks have failed."""
    events = [finished("A"), finished("B"), failed("C"), started("D")]
    words = "2 finished, 1 failed, 1 running"

    with one_store(events) as store:
        pages = [store.html("/runs"), store.html("/")]

    for page in pages:
        assert f'aria-label="{words}"' in page
        assert f'title="{words}"' in page
        assert '<span class="is-failed">1 failed</span>' in page


def test_a_cut_list_of_failures_has_a_link_to_the_others() -> None:
    """Which a list of all of them does not have."""
    few = [failed(f"task {number}", time=NOON, fingerprint=f"{number:016x}") for number in range(12)]

    with one_store(few) as store:
        before = store.page("/").values
        store.add(failed("another", time=NOON, fingerprint="f" * 16))
        after = store.page("/").values

    assert [before["has_more_families"], after["has_more_families"]] == [False, True]
    assert len(after["families"]) == 12  # type: ignore[arg-type]


def test_each_table_that_scrolls_has_a_name_and_can_be_reached_by_keyboard() -> None:
    """The name is that of an element which exists, and has no words left out."""
    events = [*ended_run(), *running_run(), make(TaskDispatched, "A"), finished("A")]
    addresses = ["/runs", "/failures?since=ever", workflow_address("l0_to_l1_visp"), attempt_address(_RUN, "A", 1)]

    with one_store(events) as store:
        pages = [store.html(address) for address in addresses]

    for page in pages:
        boxes = re.findall(r'<div class="box"([^>]*)>', page)
        assert boxes
        for attributes in boxes:
            assert 'tabindex="0" role="region"' in attributes
            name = re.search(r'aria-label(?:ledby="([^" ]+)"|="[^"]+")', attributes)
            assert name is not None
            assert "  " not in attributes
            assert name[1] is None or page.count(f'id="{name[1]}"') == 1


def test_the_form_of_the_filter_keeps_the_whole_address() -> None:
    """A viewer who changes one field does not lose the order or the end of the time."""
    query = {"q": "W", "since": "2000-01-01", "until": "2100-01-01", "sort": "duration", "direction": "up"}

    with one_store([started("A")]) as store:
        page = store.html(f"/runs?{urlencode(query)}")

    form = page[page.index('<form class="filters') :]
    fields = dict(re.findall(r'<input[^>]* name="([a-z]+)"[^>]* value="([^"]*)"', form[: form.index("</form>")]))
    assert {name: fields[name] for name in query} == query


@given(st.floats(min_value=0.0, allow_nan=False))
def test_any_duration_is_a_short_text(seconds: float) -> None:
    """A report can state any number of seconds. What grows has the same text, in whole seconds."""
    assert len(duration(seconds)) <= 13
    assert len(age(seconds)) <= 13
    assert duration(seconds) == age(seconds) or seconds < 60


def test_the_trend_of_a_filtered_list_has_the_failures_of_the_filter() -> None:
    """A family has the failures of several workflows."""
    events = [failed("A", fingerprint="a" * 16), failed("A", fingerprint="a" * 16, workflow_name="other")]

    with one_store(events) as store:
        pages = [store.page(address).values["rows"] for address in ("/failures", "/failures?workflow=other")]

    assert [[row.trend.largest for row in rows] for rows in pages] == [[2], [1]]  # type: ignore[attr-defined]


def test_a_sample_is_no_step_of_the_slider() -> None:
    """A page of the past leaves samples out, so that such a step would change nothing. It is the last report though."""
    later = NOON + timedelta(minutes=1)
    events = [started("A"), sampled("A", 1, time=later)]

    with one_store(events) as store:
        values = store.page(run_address(_RUN)).values

    assert [step.at for step in values["steps"].steps] == [NOON]  # type: ignore[attr-defined]
    assert values["last_report_at"] == later
