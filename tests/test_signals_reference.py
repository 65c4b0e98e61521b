"""
The reference page of spans and attributes: it is that of the tables, and the tables are true of a run.
"""

from pathlib import Path

import pytest

from dkist_processing_core.cli.signals_reference import reference
from dkist_processing_core.semconv import ATTRIBUTES
from dkist_processing_core.tracing.spans import SPANS
from tests.generated import generated_by

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "signals.md"


@generated_by(".venv/bin/python -m dkist_processing_core.cli.signals_reference > docs/reference/signals.md")
@pytest.mark.once
def test_the_page_of_signals_is_that_of_the_tables() -> None:
    """
    `docs/reference/signals.md` is generated, never written by hand.
    """
    assert PAGE.read_text(encoding="utf-8") == reference()


@pytest.mark.once
def test_each_span_has_attributes_that_the_table_of_attributes_defines() -> None:
    """
    Each name stands once, with its source and its meaning.
    """
    assert {name for span in SPANS for name in span.attributes} <= set(ATTRIBUTES)
    assert all(each.source and each.meaning.endswith(".") for each in ATTRIBUTES.values())
