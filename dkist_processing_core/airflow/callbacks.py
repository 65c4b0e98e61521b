"""
What an exported DAG attaches to the engine: one object, whose methods are its callbacks and its macros.

Versioned API: what files of an earlier release call stays. The engine imports this module each time that it looks at a
file, and again for every task, so it needs the standard library alone and next to nothing of that. Nothing here raises.
Not here: what is published (_attempts, _runs).
"""

from __future__ import annotations

from functools import partial

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from dkist_processing_core.events import RecipeRunFailureMessage

    Context = Mapping[str, Any]


class Callbacks:
    """
    The callbacks of one workflow.

    They report as the engine, whose word on an attempt is provisional: task and launcher, who stood nearer, outrank it.
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
        self.workflow_name = workflow_name
        self.workflow_version = workflow_version
        self.nodes = tuple(nodes)
        self.edges = tuple(edges)

    def is_root(self, task_name: str) -> bool:
        """Say whether a task waits for none."""
        return all(downstream != task_name for _, downstream in self.edges)

    # Of tasks, in the engine's task runner; `on_failure` and `on_retry` of a lost one in its DAG processor

    def on_execute(self, context: Context) -> None:
        """Publish that an attempt is dispatched, and before the tasks that wait for none, that the run began."""

        def publish() -> None:
            from dkist_processing_core.airflow import _attempts  # noqa: PLC0415 - not for parsing

            _attempts.dispatched(self, context)

        _observe(publish, "the attempt's dispatch")

    def on_success(self, context: Context) -> None:
        """Publish nothing: the launcher has said so, and knows it better."""

    def on_failure(self, context: Context) -> None:
        """Publish that an attempt failed, the last one."""
        self._on_end(context, "failed")

    def on_failure_of(self, task_name: str) -> list[Callable[[Context], object]]:
        """Return what is called when a task's last attempt failed; what is published first goes out with the second."""
        announce = partial(
            chat_ops_notification,
            workflow_name=self.workflow_name,
            workflow_version=self.workflow_version,
            task_name=task_name,
        )
        return [self.on_failure, announce]

    def on_retry(self, context: Context) -> None:
        """Publish that an attempt failed, and another follows."""
        self._on_end(context, "retried")

    def on_skipped(self, context: Context) -> None:
        """Publish that the engine passed a task over."""
        self._on_end(context, "skipped")

    def _on_end(self, context: Context, how: str) -> None:
        def publish() -> None:
            from dkist_processing_core.airflow import _attempts  # noqa: PLC0415 - not for parsing

            getattr(_attempts, how)(self, context)

        _observe(publish, "the attempt's end")

    # Of the run, in the engine's DAG processor

    def on_dag_success(self, context: Context) -> None:
        """Publish that the run ended, and that the engine calls it a success."""
        self._on_run_end(context, succeeded=True)

    def on_dag_failure(self, context: Context) -> None:
        """Publish that the run ended, and that the engine calls it a failure; for whose failure nobody was told."""
        self._on_run_end(context, succeeded=False)

    def _on_run_end(self, context: Context, *, succeeded: bool) -> None:
        def publish() -> None:
            from dkist_processing_core.airflow import _runs  # noqa: PLC0415 - not for parsing

            _runs.ended(self, context, succeeded=succeeded)

        _observe(publish, "the run's end")

    # Macros, for the environment of the launcher; a template that cannot be rendered would fail the task

    @property
    def python(self) -> str:
        """The interpreter of the launcher: that of `DKIST_CORE_PYTHON` on the worker, else the engine's own there."""
        import os  # noqa: PLC0415 - not for parsing
        import sys  # noqa: PLC0415

        return os.environ.get("DKIST_CORE_PYTHON") or sys.executable

    def log_url(self, ti: object) -> str:
        """Return where the log of an attempt can be read."""
        return _total(lambda: str(getattr(ti, "log_url", None) or ""))

    def queued_at(self, ti: object, dag_run: object) -> str:
        """
        Return since when a task was ready to run, in seconds since 1970, where a worker can know.

        The engine does not tell a worker when it put an attempt into the queue. The first attempt of a task that waits
        for none is ready when the run begins.
        """

        def moment() -> str:
            is_first = self.is_root(str(getattr(ti, "task_id", ""))) and getattr(ti, "try_number", None) == 1
            began = getattr(dag_run, "start_date", None)
            return repr(began.timestamp()) if is_first and began is not None else ""

        return _total(moment)

    def traceparent(self, ti: object, dag_run: object) -> str:
        """Return the context that the attempt's span hangs from: the run's own, or the engine's where it traces."""

        def context() -> str:
            from dkist_processing_core.airflow import _traces  # noqa: PLC0415 - not for parsing

            return _traces.traceparent(self, ti, dag_run)

        return _total(context)

    def tracestate(self, ti: object) -> str:
        """Return the state that belongs to `traceparent`."""

        def state() -> str:
            from dkist_processing_core.airflow import _traces  # noqa: PLC0415 - not for parsing

            return _traces.tracestate(ti)

        return _total(state)


def _observe(publish: Callable[[], None], what: str) -> None:
    """Observe, and never break the observed: leaving by `SystemExit` here would fail the task."""
    try:
        publish()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        _warn("%s is not published: %s", what, error)


def _warn(message: str, *facts: object) -> None:
    import logging  # noqa: PLC0415 - not for parsing

    from dkist_processing_core.text import redact  # noqa: PLC0415

    logging.getLogger(__name__).warning(message, *(redact(str(fact)) for fact in facts))


def _total(value: Callable[[], str]) -> str:
    try:
        return value()
    except Exception:  # noqa: BLE001 - the launcher does without
        return ""


def chat_ops_notification(
    context: Mapping[str, Any], workflow_name: str, workflow_version: str, task_name: str
) -> RecipeRunFailureMessage | None:
    """
    Announce that a task failed for good: publish a `RecipeRunFailureMessage`.

    Not for a task that the launcher saw succeed on this host, nor for one that the engine has in another state by now,
    as marked a success by hand, or cleared. Never raises.

    Args:
        context: what the engine gives a callback.
        workflow_name: the name of the workflow.
        workflow_version: its version.
        task_name: the name of the task.

    Returns
    -------
    The message; None where there is none to be sent, or it could not be made.

    """
    try:
        from dkist_processing_core.airflow._announcement import announce  # noqa: PLC0415 - not for parsing

        return announce(context, workflow_name, workflow_version, task_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine's callback breaks nothing
        _warn("the failure of %s is not announced: %s", task_name, error)
        return None
