"""
The pages of dead letters, with an event that a consumer could not handle.
"""

import re
from html import unescape
from urllib.parse import urlencode

from dkist_processing_core.consumer import Consumer
from dkist_processing_core.events import Event
from tests.dashboard.serving import Site, running
from tests.stored import ended_run
from tests.waiting import wait_until


def group_of_dead_letters(site: Site) -> str:
    """
    Let a consumer fail at each event of a run, and return the address of the first group of its dead letters.
    """
    site.publish(*ended_run())
    consumer = Consumer("announcer", max_tries=1)

    @consumer.on("task.finished")
    def announce(_: Event) -> None:
        raise ValueError("no such address")

    consumer.run(since="first", until_idle=True)
    found: list[str] = []

    def is_listed() -> bool:
        found[:] = re.findall(r'href="(/bus\?group=[^"&]+)"', site.get("/bus").text)
        return bool(found)

    wait_until(is_listed)
    return unescape(found[0])


def test_a_page_of_dead_letters_is_not_rendered_again_and_again() -> None:
    """
    Each time it would ask the broker for all of them.
    """
    with running() as site:
        group = group_of_dead_letters(site)
        pages = [site.get(f"{group}{more}") for more in ("", "&confirm=retry")]
        with site.viewer(group) as viewer:
            found = viewer.next()

    assert [page.status for page in pages] == [200, 200]
    assert not any("data-live" in page.text for page in pages)
    assert "no such address" in pages[0].text
    assert found is not None
    assert found[0] == "gone"


def test_a_dead_letter_is_discarded_after_a_question() -> None:
    """
    The form works without JavaScript, and the page about the bus names what was done.
    """
    with running() as site:
        group = group_of_dead_letters(site)
        question = site.get(f"{group}&confirm=discard").text
        (token,) = set(re.findall(r'name="form_token" value="([^"]+)"', question))
        (name,) = set(re.findall(r'name="name" value="([^"]+)"', question))
        fields = urlencode({"action": "discard", "name": unescape(name), "form_token": token})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = site.request("POST", "/bus/letters", fields, headers)
        after = site.request("GET", answer.headers["Location"]).text

    assert answer.status == 303
    assert re.search(r"\d+ dead letters? (was|were) discarded", after)
    assert group not in unescape(after)


def test_parameters_of_any_name_are_no_error() -> None:
    """
    Those of the functions that make addresses included.
    """
    with running() as site:
        assert [site.request("GET", f"/runs?{name}=x").status for name in ("path", "parameters", "self")] == [200] * 3
