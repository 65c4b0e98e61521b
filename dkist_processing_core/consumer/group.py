"""
Several consumers in one process: they begin and end together, and have one address of health and metrics.

Not here: a consumer alone (_consumer, service).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from dkist_processing_core.consumer._consumer import opened
from dkist_processing_core.consumer.exposing import Facts, Serving, exposed
from dkist_processing_core.consumer.member import Member
from dkist_processing_core.consumer.outage import Outage
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.consumer.signals import signals_raise
from dkist_processing_core.consumer.since import moment_of
from dkist_processing_core.errors import InboxUnavailableError
from dkist_processing_core.metrics.sending import is_sent
from dkist_processing_core.metrics.snapshot import Source
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.tracing import warn_of_config_file

_T = TypeVar("_T")
# The connections of a process notice an outage within some seconds, and each connects again at another moment.
_REPEATED_SECONDS = 30.0
_LOGGERS = tuple(
    logging.getLogger(f"dkist_processing_core.{name}") for name in ("consumer", "bus.amqp.consumer_thread")
)


class Group:
    """The consumers of one process, which share settings and database. `run` has their threads."""

    def __init__(self, settings: Settings) -> None:
        """Store the settings. No file and no connection is opened."""
        self._settings = settings
        self._services: list[ConsumerService] = []
        self._errors: list[BaseException] = []
        # The log has an outage once for all consumers.
        self._outage = Outage("the inbox")
        self._end = _EndOfAll()

    def stop(self) -> None:
        """Make `run` return when the events in hand are finished. Any thread and any signal handler may call this."""
        self._end.raise_()

    def ending(self) -> SignalSafeFlag:
        """Return a flag for one more thread, which is raised when the end is requested."""
        return self._end.part()

    def when_reachable(self, opened: Callable[[], _T]) -> _T | None:
        """Return what a function opens in the database, when that can be reached; None if the end comes before."""
        while not self._end.is_raised:
            try:
                found = opened()
            except InboxUnavailableError as error:
                self._end.wait(self._outage.begin(error))
            else:
                self._outage.end()
                return found
        return None

    def run(
        self,
        members: Callable[[], Iterable[Member]],
        *,
        sources: Sequence[Source] = (),
        facts: Facts = dict,
        serving: Serving | None = None,
    ) -> None:
        """
        Run the consumers until SIGTERM, SIGINT or `stop`, or until one of them ends.

        Args:
            members: Returns the consumers, when the signals are handled.
            sources: Further metrics of this process.
            facts: Returns further facts about its health.
            serving: What serves health and metrics, as `exposing.serving_at`; None for nothing.

        Raises:
            ConfigurationError: Nothing can be served there.
            DKISTProcessingCoreError: A consumer has ended by this error, and all others have ended in good order.
        """
        is_measured = (serving is not None and serving.has_metrics) or is_sent(self._settings)
        warn_of_config_file(self._settings)
        with signals_raise(self._end), _repetitions_left_out(), ExitStack() as stack:
            for member in members():
                service = opened(
                    member.consumer,
                    self._settings,
                    since=None if member.since is None else moment_of(member.since) or True,
                    end=self._end.part(),
                    is_measured=is_measured,
                    outage=self._outage,
                )
                if service is None:
                    return
                self._services.append(service)
                stack.callback(self._wait_for, self._begin(service))
            stack.callback(self.stop)
            within = exposed(
                self._services,
                self._settings,
                serving=serving,
                sources=sources,
                facts=facts,
                is_sent=is_measured,
            )
            stack.enter_context(within)
            self._end.wait()
        if self._errors:
            raise self._errors[0]

    def _begin(self, service: ConsumerService) -> threading.Thread:
        def run() -> None:
            try:
                service.run()
            except BaseException as error:  # noqa: BLE001 - it is raised in the thread that called `run`
                self._errors.append(error)
            finally:
                self.stop()

        thread = threading.Thread(target=run, name=f"dkist-core-{service.consumer.name}", daemon=True)
        thread.start()
        return thread

    def _wait_for(self, thread: threading.Thread) -> None:
        self.stop()
        thread.join()


class _Repetitions(logging.Filter):
    """Leaves out a text that another consumer of the process has just logged."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a repeated text."""
        text, now = record.getMessage(), time.monotonic()
        self._logged_at = {each: at for each, at in self._logged_at.items() if now - at < _REPEATED_SECONDS}
        return self._logged_at.setdefault(text, now) == now


@contextmanager
def _repetitions_left_out() -> Iterator[None]:
    """Have an outage of the broker in the log once, although the connections of all consumers notice it."""
    repetitions = _Repetitions()
    for each in _LOGGERS:
        each.addFilter(repetitions)
    try:
        yield
    finally:
        for each in _LOGGERS:
            each.removeFilter(repetitions)


class _EndOfAll(SignalSafeFlag):
    """The end of a group, which is that of each of its consumers: each waits for a flag that no other thread uses."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[SignalSafeFlag] = []

    def part(self) -> SignalSafeFlag:
        """Return the flag of one more consumer."""
        flag = SignalSafeFlag()
        self._parts.append(flag)
        if self.is_raised:
            flag.raise_()
        return flag

    def raise_(self) -> None:
        """Raise all flags, those of later consumers as well."""
        super().raise_()
        for flag in self._parts:
            flag.raise_()
