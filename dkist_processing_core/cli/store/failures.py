"""
`dkist-core failures`: families of failures as a table or as JSON.

Not here: one family (store.family), the grouping (collect.folding.rows) and the choice (collect.questions), and the
table (draw.failure_table).
"""

from rich.text import Text

from dkist_processing_core.cli.draw.failure_table import draw_failures
from dkist_processing_core.cli.draw.words import restriction
from dkist_processing_core.cli.store.reading import store_to_read
from dkist_processing_core.collect.questions.answers import Choice, Family
from dkist_processing_core.collect.questions.as_json import family_json
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json


def show_failures(choice: Choice, *, limit: int | None, as_json: bool) -> None:
    """Print the families of the chosen failures, at most `limit` of them."""
    with store_to_read() as questions:
        families = questions.families(choice, limit)
        if as_json:
            write_json({"failures": [family_json(family) for family in families]})
        else:
            _print(families, choice, questions.short_ids(family.last.run.run_id for family in families))


def _print(families: list[Family], choice: Choice, short_ids: ShortIds) -> None:
    console = Terminal(highlight=False)
    if not families:
        nothing = f"no failure{restriction(choice.since, is_of_some=choice.is_of_some)}"
        console.print(Text(nothing, "dim"), soft_wrap=True)
        return
    for line in draw_failures(
        families, short_id=short_ids.of, width=console.columns, ascii_only=console.options.ascii_only
    ):
        console.print(line, soft_wrap=True)
