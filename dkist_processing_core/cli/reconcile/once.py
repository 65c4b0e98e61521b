"""
One round of reconciliation with a store that is up to date, and its result as lines or as JSON.

Not here: the round (reconcile.reconciler), and its lines (draw.findings).
"""

from datetime import UTC, datetime, timedelta
from functools import partial

from rich.text import Text

from dkist_processing_core.cli.draw.findings import draw_findings, summary
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.cli.reconcile.as_json import round_json
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.cli.store.reading import open_collector, out_of_date
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import DKISTProcessingCoreError, EngineUnreachableError
from dkist_processing_core.text.console import Terminal, print_remark
from dkist_processing_core.text.terminal import write_json

_MOST_REQUESTS = 100_000
_DELIVERY_SECONDS = 30.0
# A service proves each second that the store is complete.
_OLDEST = timedelta(minutes=2)
_FORM = "%m-%d %H:%M:%S"


def reconcile_once(workflow: str | None, *, dry_run: bool, all_gone: bool, as_json: bool) -> int:
    """
    Catch the store up, ask Airflow, publish the missing ends, print what was found, and return the exit code.

    Raises:
        ConfigurationError: The settings name no Airflow.
        DKISTProcessingCoreError: A service keeps the store, and does not have everything.
        BusError: The broker cannot be reached or used: it may have the ends that seem to be missing.
        EngineUnreachableError: Airflow did not answer; what was found before is printed.
    """
    with open_collector() as collector:
        # It needs SQLAlchemy, whose absence `open_collector` reports.
        from dkist_processing_core.reconcile.reconciler import Reconciler  # noqa: PLC0415

        reconciler = Reconciler(collector, most_requests=_MOST_REQUESTS, warns=False)
        began = datetime.now(UTC)
        if (error := collector.catch_up()) is not None:
            raise out_of_date(error, collector.completed_at())
        if (as_of := collector.complete_until) is None:
            msg = (
                f"the service that collects into {collector.where} does not have all events yet; try again in a minute"
            )
            raise DKISTProcessingCoreError(msg)
        if began - as_of > _OLDEST:
            msg = (
                f"the store is complete until {local_time(as_of, _FORM, None)} only, and a later end may be on the "
                f"bus; see the service that collects into {collector.where}"
            )
            raise DKISTProcessingCoreError(msg)
        is_delivered = True
        publisher = None if dry_run else Publisher.open(collector.settings, heeds_mark=False)
        try:
            found = reconciler.reconcile(publisher, as_of=as_of, workflow=workflow, is_proven=all_gone)
        finally:
            reconciler.close()
            if publisher is not None:
                is_delivered = publisher.flush(_DELIVERY_SECONDS)
                publisher.close(0.0)
        with collector.questions() as questions:
            short_ids = questions.short_ids(each.run.run_id for each in found.findings)
        hide = partial(without_secrets, settings=collector.settings)
        if as_json:
            write_json(round_json(found, hide))
        else:
            console = Terminal(highlight=False)
            lines = draw_findings(
                found, short_id=short_ids.of, width=console.columns, ascii_only=console.options.ascii_only
            )
            for line in lines:
                console.print(line, soft_wrap=True)
            console.print_line(Text(summary(found), "dim"))
    if found.problem is not None:
        raise EngineUnreachableError(found.problem)
    if not is_delivered:
        print_remark("the ends wait on this host for the broker; `dkist-core outbox drain` delivers them")
    return 0 if found.is_complete and is_delivered else 1
