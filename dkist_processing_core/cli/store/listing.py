"""
`dkist-core runs list`: runs as a table or as JSON.

Not here: the choice of the runs (collect.questions), and the table (draw.run_table).
"""

from datetime import UTC, datetime

from rich.text import Text

from dkist_processing_core.cli.draw.run_table import draw_runs, summary
from dkist_processing_core.cli.store.reading import store_to_read
from dkist_processing_core.collect.questions.answers import Choice, StoredRun
from dkist_processing_core.collect.questions.as_json import listed_run_json
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.runs import State
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json


def show_runs(choice: Choice, *, limit: int | None, as_json: bool) -> None:
    """Print the chosen runs, at most `limit` of them, and the numbers of all."""
    with store_to_read() as questions:
        runs, states = questions.runs(choice, limit, most_failures=None), questions.states(choice)
        if as_json:
            counts = {state.value: count for state, count in states.items()}
            write_json({"runs": [listed_run_json(run) for run in runs], "states": counts})
        else:
            _print(runs, states, choice, questions.short_ids(run.run.run_id for run in runs))


def _print(runs: list[StoredRun], states: dict[State, int], choice: Choice, short_ids: ShortIds) -> None:
    console = Terminal(highlight=False)
    lines = draw_runs(
        runs,
        short_id=short_ids.of,
        now=datetime.now(UTC),
        width=console.columns,
        ascii_only=console.options.ascii_only,
    )
    for line in lines if runs else ():
        console.print(line, soft_wrap=True)
    counts = summary(states, len(runs), since=choice.since, is_of_some=choice.is_of_some)
    console.print(Text(counts, "dim"), soft_wrap=True)
