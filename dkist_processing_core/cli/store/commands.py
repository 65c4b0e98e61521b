"""
`dkist-core runs`, `top`, `failures`, `usage` and `collect`: the commands about the store of runs.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dkist_processing_core.cli.run_ids import (
    BY_RUN_ID,
    complete_family,
    complete_stored_run_id,
    complete_task_name,
    complete_workflow_name,
)
from dkist_processing_core.cli.serving import Health, Listen, check_one_address
from dkist_processing_core.cli.since import since_option

if TYPE_CHECKING:
    from dkist_processing_core.runs import State

runs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_ON_A_TERMINAL = 50


def _states(names: list[str]) -> list[str]:
    known = _run_states()
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"there is no state {name!r} of a run; expected one of {', '.join(known)}")
    return names


def _run_states() -> "dict[str, State]":
    from dkist_processing_core.runs import State

    return {state.value: state for state in (State.RUNNING, State.FINISHED, State.FAILED)}


def _complete_state(incomplete: str) -> list[str]:
    return [name for name in _run_states() if name.startswith(incomplete)]


def _cause(name: str | None) -> str | None:
    if name is not None and name not in (known := _complete_cause("")):
        raise typer.BadParameter(f"there is no cause {name!r} of failures; expected one of {', '.join(known)}")
    return name


def _complete_cause(incomplete: str) -> list[str]:
    from dkist_processing_core.events import Cause

    return [cause.value for cause in Cause if cause.value.startswith(incomplete)]


_FORMS = "30m, 2h or 7d ago, today, a time such as 2026-11-22T09:00, or first"
Since = Annotated[
    datetime | None,
    typer.Option(
        parser=since_option,
        metavar="SINCE",
        help=f"Only what was reported since then: {_FORMS}.",
        show_default=False,
    ),
]
OfWorkflow = Annotated[
    str | None,
    typer.Option(
        "--workflow",
        metavar="NAME",
        help="Only this workflow, or with * and ? those whose names match.",
        show_default=False,
        autocompletion=complete_workflow_name,
    ),
]
OfVersion = Annotated[
    str | None,
    typer.Option("--workflow-version", metavar="VERSION", help="Only this version of it.", show_default=False),
]
OfRecipeRun = Annotated[
    int | None, typer.Option("--recipe-run-id", metavar="N", help="Only this recipe run.", show_default=False)
]
OfStates = Annotated[
    list[str],
    typer.Option(
        "--state",
        metavar="STATE",
        help="Only runs in this state: running, finished or failed; may be given more than once.",
        callback=_states,
        autocompletion=_complete_state,
    ),
]
OfCause = Annotated[
    str | None,
    typer.Option(
        "--cause",
        metavar="CAUSE",
        help="Only failures with this cause, for example out_of_memory.",
        show_default=False,
        callback=_cause,
        autocompletion=_complete_cause,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help=f"Only the latest N; 0 shows all. The default is {_ON_A_TERMINAL} on a terminal, otherwise 0.",
        show_default=False,
    ),
]


@runs_app.command("list")
def runs_list(
    *,
    since: Since = None,
    workflow: OfWorkflow = None,
    workflow_version: OfVersion = None,
    states: OfStates = [],  # noqa: B006 - typer copies it
    cause: OfCause = None,
    recipe_run_id: OfRecipeRun = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """
    List runs, the one with the latest report first.

    Below a failed run are its failures, and in the last line the numbers of runs in each state. The store keeps a run
    for 400 days after its last report.
    """
    from dkist_processing_core.cli.store.listing import show_runs
    from dkist_processing_core.collect.questions.answers import Choice

    chosen = tuple(_run_states()[name] for name in states)
    choice = Choice(since, workflow, workflow_version, chosen, cause, recipe_run_id)
    show_runs(choice, limit=_limit(limit, as_json=as_json), as_json=as_json)


@runs_app.command("show")
def runs_show(
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID",
            help=f"The run, {BY_RUN_ID}.",
            show_default=False,
            autocompletion=complete_stored_run_id,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK",
            help="Only this task, with all that is known about each attempt.",
            show_default=False,
            autocompletion=complete_task_name,
        ),
    ] = None,
    *,
    workflow: OfWorkflow = None,
    as_json: AsJson = False,
) -> None:
    """
    Show a run with all its attempts, or one task.

    Each attempt is shown with its times, its measurements and its host, and with the reason if it failed. With a task,
    it is also shown with its whole stack, with what a killed attempt was doing and logged last, with what it used and
    when, and a running one with its latest sample.
    """
    from dkist_processing_core.cli.store.show import show_run

    show_run(run_id, task, workflow=workflow, as_json=as_json)


def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Show the attempts once, as without a terminal, instead of until Ctrl-C.")
    ] = False,
    silent: Annotated[
        datetime | None,
        typer.Option(
            parser=since_option,
            metavar="SINCE",
            help="Only attempts without a report since then, for example 1h: what is stuck.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=since_option,
            metavar="SINCE",
            help=f"Only attempts with a report since then: {_FORMS}.",
        ),
    ] = "7d",  # type: ignore[assignment] # the parser reads it
    workflow: OfWorkflow = None,
    workflow_version: OfVersion = None,
    recipe_run_id: OfRecipeRun = None,
    as_json: AsJson = False,
) -> None:
    """
    Show the attempts that run now.

    Each is shown with its progress, its age, and the time since its last report. Below them are the runs of which no
    attempt runs, for example since a task waits for its next attempt or in a queue.
    """
    from dkist_processing_core.cli.store.top import show_top
    from dkist_processing_core.collect.questions.answers import Choice

    choice = Choice(since, workflow, workflow_version, recipe_run_id=recipe_run_id)
    show_top(choice, silent_since=silent, once=once, as_json=as_json)


def failures(
    family: Annotated[
        str | None,
        typer.Argument(
            metavar="FAMILY",
            help="Only this family, by 4 or more characters of the beginning of its id: its occurrences, stack, and "
            "next steps.",
            show_default=False,
            autocompletion=complete_family,
        ),
    ] = None,
    *,
    since: Since = None,
    workflow: OfWorkflow = None,
    workflow_version: OfVersion = None,
    cause: OfCause = None,
    recipe_run_id: OfRecipeRun = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """
    List failed attempts, equal failures together.

    The family that occurred last is first. A family has one exception, raised in the same functions, or without an
    exception one cause in one task. The counts: failed attempts, and those that were the last of their tasks.
    The first time is the first one ever, also with --since.
    """
    from dkist_processing_core.cli.store.failures import show_failures
    from dkist_processing_core.collect.questions.answers import Choice

    choice = Choice(since, workflow, workflow_version, (), cause, recipe_run_id)
    if family is not None:
        from dkist_processing_core.cli.store.family import show_family

        show_family(family, choice, limit=_limit(limit, as_json=as_json), as_json=as_json)
        return
    show_failures(choice, limit=_limit(limit, as_json=as_json), as_json=as_json)


def usage(*, since: Since = None, workflow: OfWorkflow = None, as_json: AsJson = False) -> None:
    """
    Compare what tasks have used with what was planned.

    Each task has a row for each queue in which it ran, with all its attempts, also those that died, which is: ended
    without a report of the task. It has their median and largest memory, and the mean of the processors in use, each
    beside the limit of the control group of its latest attempt, and the bytes from and to storage. Below is by how much
    the memory of each queue could shrink: to the largest memory of its attempts of all workflows plus 20 %, unless one
    of them ran out of memory. An attempt that died may have needed more than was measured.
    """
    from dkist_processing_core.cli.store.usage import show_usage
    from dkist_processing_core.collect.questions.answers import Choice

    show_usage(Choice(since, workflow), as_json=as_json)


def collect(
    *,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when all reports on the bus are in the store.")
    ] = False,
    health: Health = None,
    listen: Listen = None,
    dump: Annotated[
        bool, typer.Option("--dump", help="Write the store as JSON: equal stores give equal bytes.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build the store again from the events that the bus still has.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="With --rebuild: also if runs that only the store has are lost.")
    ] = False,
) -> None:
    """
    Keep the store of runs up to date.

    The command ends at SIGTERM or Ctrl-C. While it runs, `runs`, `top`, `failures` and `usage` read the store at once.
    Without it, each of them first takes in what has happened since the last call.
    """
    from dkist_processing_core.cli.store.collect import collect_until_ended, dump_store, rebuild_store

    if forget and not rebuild:
        raise typer.BadParameter("found --forget without --rebuild; use it only together with --rebuild")
    if sum((until_idle, dump, rebuild)) > 1:
        raise typer.BadParameter("found several of --until-idle, --dump and --rebuild; use one of them")
    check_one_address(health, listen)
    if dump:
        dump_store()
    elif rebuild:
        rebuild_store(forget=forget)
    else:
        collect_until_ended(until_idle=until_idle, health=health, listen=listen)


def _limit(limit: int | None, *, as_json: bool) -> int | None:
    """Return the number of rows to show; None for all."""
    import sys

    if limit is None:
        return None if as_json or not sys.stdout.isatty() else _ON_A_TERMINAL
    return limit or None
