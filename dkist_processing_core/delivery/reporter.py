"""
The reporting of events: the reporter, the run or attempt, and the span; and the logging of its errors.

Task, launcher, local engine and Airflow callbacks report through the same class. Not here: the choice of the events and
of their moments (attempt, launcher, local, airflow), and their way to the bus (publisher).
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import Event, RecipeRunFailureMessage, Reporter, TaskEnd, identity_of
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.process import sources
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.text.internal_errors import log_internal_error
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.tracing import Carrier, Telemetry

_EventT = TypeVar("_EventT", bound=Event)
# The facts of a failure by which a consumer decides.
_MAIN_FACTS = ("cause", "final", "log_url")
logger = logging.getLogger(__name__)


class EventReporter:
    """
    Reports events about one subject, a run or an attempt, and raises nothing.

    Its `publisher` and its `carrier`, the span that the events belong to, are set as soon as they are open; without a
    publisher nothing is reported.
    """

    def __init__(
        self,
        who: Reporter,
        subject: Run | Attempt,
        *,
        publisher: Publisher | None = None,
        carrier: Carrier | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """
        Store the facts that all events of this reporter have in common.

        Args:
            who: The observer that reports.
            subject: The run or the attempt that the events are about.
            publisher: Publishes the events; None as long as there is none.
            carrier: The context of the span that the events belong to; None without a span.
            secrets: Texts that are redacted in log messages.
        """
        self._who = who
        self._subject = subject
        self._secrets = secrets
        self.publisher = publisher
        self.carrier = carrier

    def about(self, subject: Run | Attempt) -> "EventReporter":
        """Return a reporter of another subject, in the same span."""
        return EventReporter(self._who, subject, publisher=self.publisher, carrier=self.carrier, secrets=self._secrets)

    def event(self, event_class: type[_EventT], at: datetime | None = None, /, **facts: Any) -> _EventT:
        """
        Return an event about the subject.

        Args:
            event_class: The class of the event.
            at: The time of the event; None for now.
            facts: The fields of this class of event.

        Raises:
            EventError: A fact does not fit its field.
        """
        return event_class(
            time=at or sources.now(),
            reported_by=self._who,
            traceparent=self.carrier.traceparent if self.carrier else None,
            tracestate=self.carrier.tracestate if self.carrier else None,
            **identity_of(self._subject),
            **facts,
        )

    def report(
        self, event_class: type[Event], at: datetime | None = None, host_note: str | None = None, /, **facts: Any
    ) -> bool:
        """
        Publish an event about the subject; an error is logged.

        Args:
            event_class: The class of the event.
            at: The time of the event; None for now.
            host_note: A note for other processes of this host, stored in the same transaction.
            facts: The fields of this class of event.

        Returns:
            Whether the publisher accepted the event. `Publisher.is_on_disk` is whether all its events are on disk.
        """
        with errors_logged(f"{self._named(event_class)} is not published", secrets=self._secrets):
            if self.publisher is not None:
                self.publisher.publish(self.event(event_class, at, **facts), note=host_note)
                return True
        return False

    def report_end(self, event_class: type[TaskEnd], host_note: str | None = None, /, **facts: Any) -> bool:
        """
        Publish the end of the attempt; if that fails, log the error and publish the end with the main facts alone.

        Args:
            event_class: The class of the event.
            host_note: A note for other processes of this host, stored in the same transaction.
            facts: The fields of this class of event.

        Returns:
            Whether the publisher accepted the event, as for `report`.
        """
        if self.publisher is None:
            return False
        # A fact may not fit the event: it is an unusable value, or this class of event does not have the field.
        with errors_logged(f"most facts of {self._named(event_class)} are not published", secrets=self._secrets):
            self.publisher.publish(self.event(event_class, **facts), note=host_note)
            return True
        main = {name: value for name, value in facts.items() if name in _MAIN_FACTS}
        return self.report(event_class, None, host_note, **main)

    def _named(self, event_class: type[Event]) -> str:
        of = f" of {self._subject.task_name}" if isinstance(self._subject, Attempt) else ""
        return f"{event_class.name}{of}"

    def announce(self, message: RecipeRunFailureMessage, *events: Event) -> None:
        """
        Publish the failure message of release 7.x, once from this host; an error is logged.

        Args:
            message: The failure message.
            events: Events to publish in the same transaction.
        """
        with errors_logged(f"the failure message of {message.task_name} is not published", secrets=self._secrets):
            if self.publisher is not None:
                self.publisher.publish_failure(message, *events)

    def close(self, telemetry: Telemetry, timeout: float, *, including_backlog: bool = False) -> None:
        """
        Deliver pending events and export telemetry at the same time; then close the publisher.

        Args:
            telemetry: The telemetry of the process.
            timeout: The limit of the wait, in seconds.
            including_backlog: Whether to wait also for the messages that other processes already have in the journal.
        """
        publisher = self.publisher
        # The collector does not get the time that was spent waiting for the journal either.
        left = timeout if publisher is None else max(0.0, timeout - publisher.waited)
        with (
            errors_logged("events and telemetry are not closed properly", secrets=self._secrets),
            telemetry.flushing(left, delivers=publisher is None or publisher.delivers),
        ):
            if publisher is not None:
                if including_backlog:
                    publisher.include_backlog()
                publisher.close(timeout)


@contextlib.contextmanager
def errors_logged(consequence: str, *, secrets: Iterable[str] = ()) -> Iterator[None]:
    """
    Catch errors of observing, and log each with its consequence, redacted.

    An exception of a signal handler is not caught; it is raised at the end.

    Args:
        consequence: The consequence of an error, as the first part of the log message.
        secrets: Texts that are redacted in the log message.
    """
    with signals_deferred():
        try:
            yield
        except (DKISTProcessingCoreError, ValueError) as error:
            # The author's log handler may raise anything.
            with contextlib.suppress(Exception):
                logger.warning("%s: %s", consequence, redact(str(error), also=secrets))
        except Exception as error:  # noqa: BLE001 - the one place that catches it
            with contextlib.suppress(Exception):
                log_internal_error(consequence, error, secrets=secrets)


@contextlib.contextmanager
def context_errors_logged(
    observing: Callable[[], contextlib.AbstractContextManager[object]], consequence: str, secrets: Iterable[str] = ()
) -> Iterator[None]:
    """
    Run a block inside a context of observing; an error in entering or leaving that context does not affect the block.

    Args:
        observing: Returns the context.
        consequence: The consequence of an error, as the first part of the log message.
        secrets: Texts that are redacted in the log message.
    """
    stack = contextlib.ExitStack()
    with errors_logged(consequence, secrets=secrets):
        stack.enter_context(observing())
    try:
        yield
    finally:
        error = sys.exc_info()
        with errors_logged(consequence, secrets=secrets):
            stack.__exit__(*error)
