"""
`dkist-core runs show`: one run of the store with all its attempts, or one of its tasks with all that is known.

Not here: the drawings (draw.run_sheet, draw.task_sheet), and the content of the JSON (runs.as_json).
"""

from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.cli.draw.run_sheet import draw_run
from dkist_processing_core.cli.draw.task_sheet import draw_task
from dkist_processing_core.cli.store.reading import store_to_read
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import Event
from dkist_processing_core.identity.short_ids import too_short
from dkist_processing_core.runs import RunView, TaskView, kept_reports, run_view
from dkist_processing_core.runs.as_json import identity_json, run_json, task_json
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json

_LISTED = 5


def show_run(named: str, task_name: str | None, *, workflow: str | None, as_json: bool) -> None:
    """
    Print the run that a text names, or only one of its tasks.

    Raises:
        DKISTProcessingCoreError: There is no such run or task, or there are several such runs.
    """
    with store_to_read() as questions:
        number = questions.run_number(named, workflow=workflow)
        if number is None:
            latest = [run.run.run_id for run in questions.runs(Choice(workflow=workflow), _LISTED)]
            known = ", ".join(map(questions.short_ids(latest).of, latest)) or "none"
            why = too_short(named)
            of_workflow = "" if workflow is None else f" of workflow {workflow!r}"
            reason = "" if why is None else f", and {why}"
            msg = f"there is no run {named!r}{of_workflow} in the store{reason}; the latest runs there: {known}"
            raise DKISTProcessingCoreError(msg)
        reports = questions.reports(number)
        short_id = questions.short_ids([reports[0].run_id]).of(reports[0].run_id)
        received = [report.received_at for report in reports if report.received_at is not None]
        view = run_view(kept_reports(reports), received_at=max(received))
        task = None if task_name is None else _task(view, task_name, short_id)
        if as_json:
            write_json(run_json(view) if task is None else identity_json(view.run) | task_json(task))
        else:
            _print(view, task, reports, short_id)


def _task(view: RunView, name: str, short_id: str) -> TaskView:
    for task in view.tasks:
        if task.name == name:
            return task
    known = ", ".join(task.name for task in view.tasks) or "none"
    msg = f"there is no task {name!r} in run {short_id}; its tasks: {known}"
    raise DKISTProcessingCoreError(msg)


def _print(view: RunView, task: TaskView | None, reports: list[Event], short_id: str) -> None:
    console = Terminal(highlight=False)
    form: dict[str, Any] = {
        "short_id": short_id,
        "now": datetime.now(UTC),
        "width": console.columns,
        "ascii_only": console.options.ascii_only,
    }
    lines = draw_run(view, reports, **form) if task is None else draw_task(view, task, reports, **form)
    for line in lines:
        console.print(line, soft_wrap=True)
