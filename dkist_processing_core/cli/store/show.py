"""
`dkist-core runs show`: one run of the store with all its attempts, as a table or as JSON.

Not here: the table (draw.run_sheet), and the content of the JSON (runs.as_json).
"""

from datetime import UTC, datetime

from dkist_processing_core.cli.draw.run_sheet import draw_run
from dkist_processing_core.cli.store.reading import store_to_read
from dkist_processing_core.collect.answers import Choice
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import Event
from dkist_processing_core.identity.short_ids import too_short
from dkist_processing_core.runs import kept_reports, run_view
from dkist_processing_core.runs.as_json import run_json
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json

_LISTED = 5


def show_run(named: str, *, workflow: str | None, as_json: bool) -> None:
    """
    Print the run that a text names.

    Raises:
        DKISTProcessingCoreError: There is no such run, or there are several.
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
        _print(reports, questions.short_ids([reports[0].run_id]).of(reports[0].run_id), as_json=as_json)


def _print(reports: list[Event], short_id: str, *, as_json: bool) -> None:
    received = [report.received_at for report in reports if report.received_at is not None]
    view = run_view(kept_reports(reports), received_at=max(received))
    if as_json:
        write_json(run_json(view))
        return
    console = Terminal(highlight=False)
    for line in draw_run(
        view,
        reports,
        short_id=short_id,
        now=datetime.now(UTC),
        width=console.columns,
        ascii_only=console.options.ascii_only,
    ):
        console.print(line, soft_wrap=True)
