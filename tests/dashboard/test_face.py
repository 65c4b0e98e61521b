"""
The dashboard in a browser.
"""

from tests.dashboard.ground import Served, Visit
from tests.facts import started


def test_a_page_shows_what_was_published(served: Served, visit: Visit) -> None:
    """
    An attempt that runs is on the first page.
    """
    served.publish(started("Calibrate"))

    page = visit.open()

    assert page.locator("#live_running").get_by_text("Calibrate").is_visible()
