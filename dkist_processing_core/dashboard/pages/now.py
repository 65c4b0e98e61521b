"""
The page about the present: what runs, what is late, what failed in the last hours, and the health of the bus.
"""

from dkist_processing_core.collect.answers import Choice
from dkist_processing_core.dashboard.asked import Asked, Page


def page(asked: Asked) -> Page:
    """Return the page."""
    return Page("Now", "now.html", {"attempts": asked.questions.open_attempts(Choice())})
