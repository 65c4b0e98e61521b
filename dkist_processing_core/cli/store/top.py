"""
`dkist-core top`: the attempts that run now, once or live until Ctrl-C.

Not here: the choice of the attempts (collect.questions), and the table (draw.attempt_table).
"""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group
from rich.live import Live
from rich.text import Text

from dkist_processing_core.cli.draw.attempt_table import draw_attempts
from dkist_processing_core.cli.draw.words import local_time, restriction
from dkist_processing_core.cli.store.reading import store_to_read
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.as_json import attempt_json, listed_run_json
from dkist_processing_core.errors import BusError
from dkist_processing_core.text import counted
from dkist_processing_core.text.console import Terminal, folded
from dkist_processing_core.text.terminal import interrupt_ends, write_json

_INTERVAL_SECONDS = 2.0


def show_top(choice: Choice, *, silent_since: datetime | None, once: bool, as_json: bool) -> None:
    """Print the open attempts; on a terminal again and again, unless `once` is requested."""
    if as_json:
        with store_to_read() as questions:
            attempts = questions.open_attempts(choice, silent_since=silent_since)
            idle = questions.idle_runs(choice, silent_since=silent_since, most_failures=None)
            write_json(
                {
                    "attempts": [attempt_json(attempt, with_run=True) for attempt in attempts],
                    "idleRuns": [listed_run_json(run) for run in idle],
                }
            )
        return
    console = Terminal(highlight=False)
    if once or not sys.stdout.isatty():
        for line in _lines(choice, silent_since, console, remarks=True):
            console.print(line, soft_wrap=True)
        return
    # The limit of the silence moves with the time.
    silence = None if silent_since is None else datetime.now(UTC) - silent_since
    with interrupt_ends(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            since = None if silence is None else datetime.now(UTC) - silence
            live.update(Group(*_within(list(_lines_or_error(choice, since, console)), console.height)), refresh=True)
            time.sleep(_INTERVAL_SECONDS)


def _nothing(choice: Choice, silent_since: datetime | None) -> str:
    """Return that there is nothing to show: not that nothing runs, if only what is silent was requested."""
    nothing = "no attempt runs" if silent_since is None else "no attempt has been silent"
    return nothing + restriction(silent_since, is_of_some=choice.is_of_some)


def _within(lines: list[Text], height: int) -> list[Text]:
    """Return the lines that a terminal has room for, with the number of the others."""
    if len(lines) <= height:
        return lines
    shown = max(1, height - 1)
    return [*lines[:shown], Text(f"and {counted(len(lines) - shown, 'more line')}", "dim")]


def _lines_or_error(choice: Choice, silent_since: datetime | None, console: Terminal) -> Iterator[Text]:
    """Yield the lines, and an error of the broker below them: it may be restarted meanwhile."""
    try:
        yield from _lines(choice, silent_since, console, remarks=False)
    except BusError as error:
        yield from folded(Text(str(error), "red"), console.width, 2)


def _lines(choice: Choice, silent_since: datetime | None, console: Terminal, *, remarks: bool) -> Iterator[Text]:
    with store_to_read(remarks=remarks) as questions:
        attempts = questions.open_attempts(choice, silent_since=silent_since)
        idle = questions.idle_runs(choice, silent_since=silent_since)
        now, running = datetime.now(UTC), {attempt.run for attempt in attempts}
        texts = [f"{counted(len(attempts), 'attempt')} of {counted(len(running), 'run')}"] if attempts else []
        texts += [f"{counted(len(idle), 'run')} without an attempt"] if idle else []
        text = ", ".join(texts) or _nothing(choice, silent_since)
        yield Text.assemble((text, "bold"), (f"  {local_time(now, '%H:%M:%S', None)}", "dim"))
        if attempts or idle:
            yield from draw_attempts(
                attempts,
                idle,
                short_id=questions.short_ids({each.run_id for each in (*running, *(run.run for run in idle))}).of,
                now=now,
                width=console.columns,
                ascii_only=console.options.ascii_only,
            )
