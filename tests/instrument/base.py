"""
The common base of the pipeline's tasks: meters, bookkeeping before and after, and a rollback.
"""

from abc import ABC
from collections.abc import Iterable
from types import TracebackType

from opentelemetry.metrics import CallbackOptions, Counter, ObservableGauge, Observation
from opentelemetry.trace import StatusCode

from dkist_processing_core import TaskBase


class InstrumentTask(TaskBase, ABC):
    """
    Every method that the library calls is overridden, and calls the overridden one.
    """

    is_task_manual = False
    log: list[str]

    def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
        """
        Create the meters, and read the attributes that the library sets.
        """
        super().__init__(recipe_run_id=recipe_run_id, workflow_name=workflow_name, workflow_version=workflow_version)
        self.log = [f"{self.task_name} of {self.recipe_run_id}, {self.workflow_name} {self.workflow_version}"]
        self.read_counter: Counter = self.meter.create_counter(
            name=self.format_metric_name("tasks.reads"), unit="1", description="How many files were read."
        )
        self.progress_gauge: ObservableGauge = self.meter.create_observable_gauge(
            name=self.format_metric_name("tasks.progress"),
            description="How far the task is.",
            callbacks=[self.observe],
        )

    def observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        """
        Observe how far the task is.
        """
        yield Observation(50.0, attributes=self.base_telemetry_attributes)

    def pre_run(self) -> None:
        """
        Keep the records of a task that is run by hand.
        """
        super().pre_run()
        if self.is_task_manual:
            with self.telemetry_span("Record Provenance"):
                self.log.append("by hand")

    def post_run(self) -> None:
        """
        Log that the task is done.
        """
        super().post_run()
        with self.telemetry_span(name="Complete") as span:
            span.set_status(StatusCode.ERROR, "half of it")

    def rollback(self) -> None:
        """
        Undo the task's work.
        """
        super().rollback()
        self.log.append("undone")

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """
        Release the resources.
        """
        super().__exit__(exc_type, exc_val, exc_tb)
        self.log.append("closed")

    def __call__(self) -> None:
        """
        Run, unless there is no work.
        """
        if self.recipe_run_id:
            super().__call__()
