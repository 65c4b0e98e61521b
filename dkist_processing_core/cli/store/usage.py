"""
`dkist-core usage`: what tasks and queues have used beside what was planned, as a table or as JSON.

Not here: the sums (collect.questions.usage), and the table (draw.usage_table).
"""

from rich.text import Text

from dkist_processing_core.cli.draw.usage_table import draw_usage
from dkist_processing_core.cli.draw.words import restriction
from dkist_processing_core.cli.store.reading import store_to_read
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.as_json import usage_json
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json


def show_usage(choice: Choice, *, as_json: bool) -> None:
    """Print what the chosen tasks and their queues have used."""
    with store_to_read() as questions:
        tasks, queues = questions.usages(choice)
        if as_json:
            write_json({"tasks": list(map(usage_json, tasks)), "queues": list(map(usage_json, queues))})
            return
    console = Terminal(highlight=False)
    if not tasks:
        nothing = f"no attempt{restriction(choice.since, is_of_some=choice.is_of_some)}"
        console.print(Text(nothing, "dim"), soft_wrap=True)
    for line in draw_usage(tasks, queues, width=console.columns, ascii_only=console.options.ascii_only):
        console.print(line, soft_wrap=True)
