"""
What a round of reconciliation found, as a table, and one line about all runs.

Runs that go on in Airflow are in the line alone. Not here: the round (reconcile.rounds), and the widths of the table
(draw.table).
"""

from collections.abc import Callable, Iterator
from datetime import tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE
from dkist_processing_core.cli.draw.table import Cell, Column, Line, draw_table
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.reconcile.judgement import Outcome
from dkist_processing_core.reconcile.rounds import Finding, Round
from dkist_processing_core.runs import State
from dkist_processing_core.text import counted

_FORM = "%m-%d %H:%M:%S"
_WORDS = {
    Outcome.RUNNING: "still running in Airflow",
    Outcome.RECENT: "over for less than a minute: the callback may still report it",
    Outcome.SENT: "published before, and not in the store yet",
    Outcome.REPORTED: "not published: the bus has the end that Airflow knows, and later reports",
    Outcome.ALIVE: "not published: Airflow does not know the run, but an attempt of it may still work",
    Outcome.FOREIGN: "left alone: Airflow does not know the run, and no callback has ever reported it",
    Outcome.UNPROVEN: "not published: Airflow does not know the run, and may be the wrong Airflow; correct "
    "DKIST_CORE_AIRFLOW_URL, or use --all-gone",
}
_COUNTED = {
    Outcome.ENDED: "ended",
    Outcome.RUNNING: "running",
    Outcome.RECENT: "just ended",
    Outcome.SENT: "published before",
    Outcome.REPORTED: "already reported",
    Outcome.ALIVE: "not known to Airflow, but perhaps alive",
    Outcome.FOREIGN: "of other publishers",
    Outcome.UNPROVEN: "not known to Airflow",
    Outcome.REFUSED: "without an answer",
}


def draw_findings(
    found: Round,
    *,
    short_id: Callable[[str], str],
    width: int | None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> Iterator[Text]:
    """
    Yield the lines of a table of the runs that do not go on, each with what follows below it.

    Args:
        found: The result of the round.
        short_id: Returns the short id of a run's id.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
        zone: The time zone of the times, by default the local one.
    """
    shown = [each for each in found.findings if each.outcome is not Outcome.RUNNING]
    if not shown:
        return
    glyphs = ASCII if ascii_only else UNICODE
    columns = [
        Column("run"),
        Column("workflow", least=10),
        Column("version", least=5),
        Column("recipe", is_number=True),
        Column("last report"),
        Column("ended"),
    ]
    lines = []
    for each in shown:
        state = State.RUNNING if each.end is None else each.end.state
        cells: list[Cell] = [
            (short_id(each.run.run_id), "bold"),
            (each.run.workflow_name, ""),
            (each.run.workflow_version, "dim"),
            ("" if each.run.recipe_run_id is None else str(each.run.recipe_run_id), ""),
            ("" if each.last_sign_at is None else local_time(each.last_sign_at, _FORM, zone), "dim"),
            ("" if each.end is None or each.end.over is None else local_time(each.end.over, _FORM, zone), ""),
        ]
        below = [(text, STYLES[state]) for text in _texts(each, is_dry=found.is_dry)]
        lines.append(Line((glyphs.marks[state], STYLES[state]), cells, below))
    yield from draw_table(columns, lines, width=width, glyphs=glyphs)


def _texts(finding: Finding, *, is_dry: bool) -> Iterator[str]:
    end = finding.end
    if finding.problem is not None:
        yield finding.problem
    elif end is None or finding.outcome is not Outcome.ENDED:
        yield _WORDS[finding.outcome]
    else:
        what = "would be published" if is_dry else "published"
        yield f"{end.state}, {what}" + (f": {end.reason}" if end.reason else "")
        announced = [name for name, _ in finding.failures.unannounced]
        if announced:
            yield f"failed, and {'would be announced' if is_dry else 'announced'}: {', '.join(announced)}"


def summary(found: Round) -> str:
    """Return one line about all runs of a round."""
    counts = [f"{number} {words}" for outcome, words in _COUNTED.items() if (number := found.count(outcome))]
    counts += [f"{found.left} not asked about"] if found.left else []
    total = len(found.findings) + found.left
    if not total:
        which = "an engine" if found.workflow is None else f"a workflow {found.workflow!r}"
        return f"no run of {which} is without an end"
    about = f"{counted(total, 'run')} without an end: {', '.join(counts)}"
    return f"{about}; nothing was published" if found.is_dry else about
