"""
The page about the inbox states what the code does.
"""

import re
from pathlib import Path

import pytest

from dkist_processing_core.inbox import Rules
from dkist_processing_core.inbox.migrating import VERSION_TABLE
from dkist_processing_core.inbox.tables import State, metadata

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "inbox.md").read_text()


def test_the_page_lists_the_tables_and_the_states() -> None:
    """
    An operator who looks into the database finds each of them explained.
    """
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)

    assert sorted(listed) == sorted([*metadata.tables, VERSION_TABLE, *State])


@pytest.mark.parametrize(
    ("words", "value", "expected"),
    [
        ("After ten tries", Rules("a").max_tries, 10),
        ("have died five times", Rules("a").max_starts, 5),
        ("after a pause: one second", Rules("a").first_pause, 1.0),
        ("at most 15 minutes", Rules("a").longest_pause, 900.0),
        ("due 60 seconds after its arrival", Rules("a").provisional_after, 60.0),
        ("deletion after seven days", Rules("a").kept_seconds, 7 * 86400.0),
    ],
)
def test_the_page_states_the_numbers_of_the_rules(words: str, value: float, expected: float) -> None:
    """
    A changed default changes the page.
    """
    assert words in " ".join(PAGE.split())
    assert value == expected
