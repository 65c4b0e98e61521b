"""
The page that compares two runs of a workflow, and what explains the difference of their durations.

Not here: the comparison (analysis.comparison).
"""

from collections.abc import Sequence

from dkist_processing_core.collect.questions.answers import StoredRun
from dkist_processing_core.collect.questions.overview import RunDuration
from dkist_processing_core.dashboard.addresses.links import named_run, version_and_id
from dkist_processing_core.dashboard.analysis.comparison import Side, compare
from dkist_processing_core.dashboard.analysis.versions import in_order
from dkist_processing_core.dashboard.asked import Asked, Page, PageError, no_runs_of
from dkist_processing_core.dashboard.drawing.change_bars import change_bars
from dkist_processing_core.identity import Run

MOST_OFFERED = 100
"""How many of the latest runs of the workflow the form offers."""
MOST_TASKS, MOST_CONTRASTS = 200, 200
"""How many tasks, those with the largest changes, and how many other differences are listed."""


def page(asked: Asked) -> Page:
    """
    Return the page.

    The address names a workflow, and the runs `a` and `b` by their ids, with `a_version` and `b_version` where an id is
    in several versions; or by `a_run` and `b_run`, as the form does, with the version and the id in one text. Without
    `b` it is the latest run, and without `a` the last one before it, of those that finished if there is one.

    Raises:
        PageError: There is no such workflow or run.
    """
    name = asked.text("workflow")
    if name is None:
        raise PageError("the address names no workflow; expected /compare?workflow=NAME with the runs a and b")
    latest = in_order(asked.questions.run_durations(name, MOST_OFFERED))[::-1]
    if not latest:
        raise no_runs_of(name)
    b = named_in(asked, name, "b") or asked.questions.run(latest[0].run)
    assert b is not None  # the store is read in one state, and has the latest run
    a = named_in(asked, name, "a") or asked.questions.run_before(b.number)
    side_a, side_b = None if a is None else side(asked, a.run), side(asked, b.run)
    ids = [each.run.run_id for each in (*latest, a, b) if each is not None]
    values: dict[str, object] = {
        "workflow": name,
        "choices": [("a", "First run", _options(latest, a), a), ("b", "Second run", _options(latest, b), b)],
        "short_ids": asked.questions.short_ids(ids),
        "named_run": named_run,
        "a": None if side_a is None else side_a.view,
        "b": side_b.view,
    }
    return Page(f"Compare runs of {name}", "compare.html", values | _compared(side_a, side_b))


def _options(latest: Sequence[RunDuration], chosen: StoredRun | None) -> list[RunDuration | StoredRun]:
    """Return the runs that the form offers: the latest ones, and the chosen one if it is older."""
    if chosen is None or any(_is(each.run, chosen.run) for each in latest):
        return [*latest]
    return [*latest, chosen]


def _compared(a: Side | None, b: Side) -> dict[str, object]:
    """Return the values of the comparison; without a first run there is none."""
    if a is None:
        return {"comparison": None}
    found = compare(a, b)
    explaining = () if found.explanation is None else found.explanation.tasks[:MOST_TASKS]
    by_change = sorted(found.tasks, key=lambda task: -abs(task.whole.change))
    listed = {task.name for task in by_change[:MOST_TASKS]}
    tasks = [task for task in found.tasks if task.name in listed]
    return {
        "comparison": found,
        "explaining": explaining,
        "tasks": tasks,
        "contrasts": found.contrasts[:MOST_CONTRASTS],
        "bars_of_path": change_bars([task.whole.change_seconds for task in explaining]),
        "bars_of_tasks": change_bars([task.whole.change_seconds for task in tasks]),
    }


def named_in(asked: Asked, workflow: str, which: str) -> StoredRun | None:
    """
    Return the run that a parameter names, without its version the last one of that id; None if it is missing.

    Raises:
        PageError: There is no such run.
    """
    version: str | None
    if (chosen := asked.text(f"{which}_run")) is not None:
        named = version_and_id(chosen)
        if named is None:
            msg = f"found {which}_run={chosen!r}, expected the version and the id of a run, as 1.0.0/recipe_1"
            raise PageError(msg)
        version, run_id = named
    elif (text := asked.text(which)) is not None:
        version, run_id = asked.text(f"{which}_version"), text
    else:
        return None
    questions = asked.questions
    run = None if version is None else Run(workflow, version, run_id, None)
    found = questions.last_run(workflow, run_id) if run is None else questions.run(run)
    if found is None:
        raise _unknown(workflow, run_id, version)
    return found


def _is(run: Run, other: Run) -> bool:
    """Return True for two names of one run, of which one may not know the recipe run."""
    return (run.workflow_version, run.run_id) == (other.workflow_version, other.run_id)


def side(asked: Asked, run: Run) -> Side:
    """
    Return one of the runs to compare.

    Raises:
        PageError: The store has no report on the run that this release can read.
    """
    whole = asked.questions.whole_run(run)
    if whole is None:
        raise _unknown(run.workflow_name, run.run_id, run.workflow_version)
    return Side(whole.view, asked.now, whole.hosts, whole.queues, whole.environments)


def _unknown(workflow: str, run_id: str, version: str | None) -> PageError:
    of_version = "" if version is None else f" of version {version}"
    return PageError(f"the store has no run {run_id}{of_version} of the workflow {workflow}; expected one of it", 404)
