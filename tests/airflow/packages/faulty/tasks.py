"""
Tasks that fail, wait and are killed. Their conditions and notes are files in the folder that FAULTY_FOLDER names.
"""

import os
import signal
import sys
import time
from pathlib import Path

from opentelemetry import trace

from dkist_processing_core import TaskBase


class Noting(TaskBase):
    """
    Records that an attempt has begun, and can distinguish the first from later ones.
    """

    def note(self) -> bool:
        """
        Record this attempt, and return whether it is the first of its run.
        """
        notes = Path(os.environ["FAULTY_FOLDER"], f"{self.task_name}-{self.recipe_run_id}")
        is_first = not notes.exists()
        with notes.open("a") as file:
            file.write(f"{time.time()} {sys.prefix}\n")
        return is_first

    def wait(self) -> None:
        """
        Wait until a test writes to the pipe of this recipe run.
        """
        Path(os.environ["FAULTY_FOLDER"], f"pipe-{self.recipe_run_id}").read_text()


class Succeeds(Noting):
    """
    Ends well.
    """

    def run(self) -> None:
        """
        Do nothing.
        """
        self.note()


class Follows(Noting):
    """
    Waits for another task, and ends well.
    """

    def run(self) -> None:
        """
        Do nothing.
        """
        self.note()


class Raises(Noting):
    """
    Fails as most tasks do.
    """

    def run(self) -> None:
        """
        Raise.
        """
        self.note()
        raise ArithmeticError("wanted")


class IsKilled(Noting):
    """
    Is killed.
    """

    def run(self) -> None:
        """
        Kill this process, as the kernel does.
        """
        self.note()
        os.kill(os.getpid(), signal.SIGKILL)


class IsKilledOnce(Noting):
    """
    Is killed in the first attempt, within a span that it has opened, and has a second one.
    """

    retries = 1
    retry_delay_seconds = 0

    def run(self) -> None:
        """
        Kill this process in the first attempt, when a part of its work has been exported.
        """
        is_first = self.note()
        with self.telemetry_span("work"):
            with self.telemetry_span("part of the work"):
                self.progress(1, 2)
            if is_first:
                getattr(trace.get_tracer_provider(), "force_flush", bool)()
                os.kill(os.getpid(), signal.SIGKILL)


class Waits(Noting):
    """
    Waits for a request to continue; an attempt after the first does not.
    """

    def run(self) -> None:
        """
        Wait.
        """
        if self.note():
            self.wait()


class WaitsTwice(Waits):
    """
    Waits in the first attempt, and has a second one.
    """

    retries = 1
    retry_delay_seconds = 0


class Overstays(Waits):
    """
    Takes longer than Airflow allows; `airflow_local_settings` defines the limit.
    """


class IsSkipped(Succeeds):
    """
    Is skipped by Airflow, as `airflow_local_settings` configures.
    """


class FailsOnce(Noting):
    """
    Fails in the first attempt, and has a second one.
    """

    retries = 1
    retry_delay_seconds = 0

    def run(self) -> None:
        """
        Raise in the first attempt.
        """
        if self.note():
            raise OSError("at first")
