"""
The object that an exported DAG attaches to Airflow; its methods are the DAG's callbacks and macros.

Versioned API: everything that DAG files of an earlier release call stays. Airflow imports this module each time that
it parses a DAG file, and again for every task. So the module imports only the standard library, and very little of
that. Nothing here raises.
Not here: the published events (_attempts, _runs).
"""

from __future__ import annotations

from functools import partial

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from dkist_processing_core.airflow._workflow import ExportedWorkflow
    from dkist_processing_core.events import RecipeRunFailureMessage

    Context = Mapping[str, Any]


class Callbacks:
    """
    The callbacks of one workflow.

    They report as Airflow. Its reports on an attempt are provisional: task and launcher observe more closely, and
    their reports outrank it.
    """

    def __init__(
        self,
        *,
        workflow_name: str,
        workflow_version: str,
        nodes: Sequence[str],
        edges: Sequence[tuple[str, str]],
    ) -> None:
        """Name the workflow, its tasks in dependency order and its edges from upstream to downstream."""
        self._name = workflow_name
        self._version = workflow_version
        self._nodes = tuple(nodes)
        self._edges = tuple(edges)

    @property
    def _workflow(self) -> ExportedWorkflow:
        from dkist_processing_core.airflow._workflow import ExportedWorkflow  # noqa: PLC0415 - not for parsing

        return ExportedWorkflow(self._name, self._version, self._nodes, self._edges)

    # Callbacks of tasks, in Airflow's task runner; `on_failure` and `on_retry` of a lost one in its DAG processor

    def on_execute(self, context: Context) -> None:
        """Publish that an attempt is dispatched and, for root tasks, that the run began."""

        def publish() -> None:
            from dkist_processing_core.airflow import _attempts  # noqa: PLC0415 - not for parsing

            _attempts.dispatched(self._workflow, context)

        _observe(publish, "the attempt's dispatch")

    def on_success(self, context: Context) -> None:
        """Publish nothing: the launcher has reported the success, and has better information."""

    def on_failure(self, context: Context) -> None:
        """Publish that the last attempt failed."""
        self._on_end(context, "failed")

    def on_failure_of(self, task_name: str) -> list[Callable[[Context], object]]:
        """Return the callbacks for the failure of a task's last attempt; the second delivers the first one's event."""
        announce = partial(
            chat_ops_notification,
            workflow_name=self._name,
            workflow_version=self._version,
            task_name=task_name,
        )
        return [self.on_failure, announce]

    def on_retry(self, context: Context) -> None:
        """Publish that an attempt failed, and another follows."""
        self._on_end(context, "retried")

    def on_skipped(self, context: Context) -> None:
        """Publish that Airflow skipped a task."""
        self._on_end(context, "skipped")

    def _on_end(self, context: Context, how: str) -> None:
        def publish() -> None:
            from dkist_processing_core.airflow import _attempts  # noqa: PLC0415 - not for parsing

            getattr(_attempts, how)(self._workflow, context)

        _observe(publish, "the attempt's end")

    # Callbacks of the run, in Airflow's DAG processor

    def on_dag_success(self, context: Context) -> None:
        """Publish that the run ended, and that Airflow reports a success."""
        self._on_run_end(context, succeeded=True)

    def on_dag_failure(self, context: Context) -> None:
        """Publish that the run ended, and that Airflow reports a failure; announce unannounced task failures."""
        self._on_run_end(context, succeeded=False)

    def _on_run_end(self, context: Context, *, succeeded: bool) -> None:
        def publish() -> None:
            from dkist_processing_core.airflow import _runs  # noqa: PLC0415 - not for parsing

            _runs.ended(self._workflow, context, succeeded=succeeded)

        _observe(publish, "the run's end")

    # Macros, for the environment of the launcher; a template that cannot be rendered would fail the task

    @property
    def python(self) -> str:
        """The interpreter of the launcher: `DKIST_CORE_PYTHON` on the worker; if it is not set, Airflow's own."""
        import os  # noqa: PLC0415 - not for parsing
        import sys  # noqa: PLC0415

        return os.environ.get("DKIST_CORE_PYTHON") or sys.executable

    def log_url(self, ti: object) -> str:
        """Return the URL of an attempt's log, or "" if it is unknown."""
        return _total(lambda: str(getattr(ti, "log_url", None) or ""))

    def queued_at(self, ti: object, dag_run: object) -> str:
        """
        Return when a task became ready to run, in seconds since 1970, or "" if a worker cannot know.

        Airflow does not report to a worker when it queued an attempt. The first attempt of a root task is ready when
        the run begins.
        """

        def moment() -> str:
            is_first = self._workflow.is_root(str(getattr(ti, "task_id", ""))) and getattr(ti, "try_number", None) == 1
            began = getattr(dag_run, "start_date", None)
            return repr(began.timestamp()) if is_first and began is not None else ""

        return _total(moment)

    def traceparent(self, ti: object, dag_run: object) -> str:
        """Return the parent context of the attempt's span: the run's own, or Airflow's if Airflow traces."""

        def context() -> str:
            from dkist_processing_core.airflow import _traces  # noqa: PLC0415 - not for parsing

            return _traces.traceparent(self._workflow, ti, dag_run)

        return _total(context)

    def tracestate(self, ti: object) -> str:
        """Return the state that belongs to `traceparent`."""

        def state() -> str:
            from dkist_processing_core.airflow import _traces  # noqa: PLC0415 - not for parsing

            return _traces.tracestate(ti)

        return _total(state)


def _observe(publish: Callable[[], None], what: str) -> None:
    """Call `publish`, and log its errors: even a `SystemExit` that leaves here would fail the task."""
    try:
        publish()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        _warn("%s is not published: %s", what, error)


def _warn(message: str, *values: object) -> None:
    import logging  # noqa: PLC0415 - not for parsing

    from dkist_processing_core.text import redact  # noqa: PLC0415

    logging.getLogger(__name__).warning(message, *(redact(str(value)) for value in values))


def _total(value: Callable[[], str]) -> str:
    try:
        return value()
    except Exception:  # noqa: BLE001 - the launcher does without
        return ""


def _reports_run_end(context: Context) -> bool:
    """Return True if the DAG of a context calls `Callbacks` at the end of a run; DAG files of 7.x do not."""
    found = getattr(context.get("dag"), "on_failure_callback", None)
    attached = found if isinstance(found, list | tuple) else [found]
    return any(isinstance(getattr(each, "__self__", None), Callbacks) for each in attached)


def chat_ops_notification(
    context: Mapping[str, Any], workflow_name: str, workflow_version: str, task_name: str
) -> RecipeRunFailureMessage | None:
    """
    Announce that a task failed for good: publish a `RecipeRunFailureMessage`.

    No message is published for a task that the launcher saw succeed on this host, or for one whose state in Airflow has
    changed, for example because a user marked it as a success, or cleared it. Never raises.

    Args:
        context: Airflow's context of the callback.
        workflow_name: the name of the workflow.
        workflow_version: its version.
        task_name: the name of the task.

    Returns:
        The message; None if no message is sent, or if it could not be created.
    """
    try:
        from dkist_processing_core.airflow._announcement import announce  # noqa: PLC0415 - not for parsing
        from dkist_processing_core.airflow._workflow import ExportedWorkflow  # noqa: PLC0415

        workflow = ExportedWorkflow(workflow_name, workflow_version)
        return announce(workflow, task_name, context, run_end_is_reported=_reports_run_end(context))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a callback must not break Airflow
        _warn("the failure of %s is not announced: %s", task_name, error)
        return None
