"""
The measures of a consumer's process: what it receives and handles, and what waits for it.

Not here: receiving and handling (intake, worker), and serving the metrics (metrics.serving).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dkist_processing_core import semconv
from dkist_processing_core.bus import Bus
from dkist_processing_core.consumer.handlers import Called
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.counts import count, oldest_due
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.accumulator import Accumulator
from dkist_processing_core.metrics.measurement import Measurement, Number, measured
from dkist_processing_core.text.exception_text import class_name


class Measures:
    """The measures of one consumer; several threads add to them."""

    def __init__(self, name: str, bus: Bus) -> None:
        """Begin at zero."""
        self._name = name
        self._of_consumer = {semconv.MESSAGING_CONSUMER_GROUP_NAME: name}
        self._of_queue = self._of_consumer | {semconv.MESSAGING_DESTINATION_NAME: name}
        of_bus = {semconv.MESSAGING_SYSTEM: "rabbitmq" if bus.is_remote else "embedded"}
        receiving, processing = (
            {semconv.MESSAGING_OPERATION_NAME: "receive"},
            {semconv.MESSAGING_OPERATION_NAME: "process"},
        )
        self._received = Accumulator(declarations.CONSUMED_MESSAGES, self._of_queue | of_bus | receiving)
        self._durations = Accumulator(declarations.PROCESS_DURATION, self._of_consumer | of_bus | processing)
        self._received.add({}, 0.0)

    def note_received(self, count: int) -> None:
        """Count messages that were received from the bus."""
        self._received.add({}, 1.0, count)

    @contextmanager
    def calling(self, called: Called) -> Iterator[None]:
        """Measure one call of a handler, and whether it fails."""
        began, attributes = time.monotonic(), {semconv.HANDLER: called.full_name}
        try:
            yield
        except BaseException as error:
            attributes[semconv.ERROR_TYPE] = class_name(type(error))
            raise
        finally:
            self._durations.add(attributes, time.monotonic() - began)

    def of_process(self, outages: dict[str, bool], backlog: int | None) -> list[Measurement]:
        """
        Return what is known without the database.

        Args:
            outages: Whether bus and inbox cannot be used now.
            backlog: The number of messages that wait on the bus; None if it is not known.
        """
        connected = [
            Number(float(not is_out), self._of_consumer | {semconv.CONSUMER_PEER: peer})
            for peer, is_out in outages.items()
        ]
        return [
            self._received.measurement(),
            self._durations.measurement(),
            Measurement(declarations.CONSUMER_CONNECTED, connected),
            *([] if backlog is None else [measured(declarations.CONSUMER_BACKLOG, backlog, self._of_queue)]),
        ]

    def of_inbox(self, database: Database, now: float) -> list[Measurement]:
        """
        Return what the inbox has.

        Raises:
            InboxUnavailableError: It cannot be read now.
        """
        with database.reading() as connection:
            counts = count(connection, self._name)
            oldest = oldest_due(connection, self._name, now)
        states = [
            Number(getattr(counts, state), self._of_consumer | {semconv.INBOX_STATE: state})
            for state in ("waiting", "claimed", "parked", "dead", "archived")
        ]
        lag = 0.0 if oldest is None else max(0.0, now - oldest)
        return [
            Measurement(declarations.INBOX_MESSAGES, states),
            measured(declarations.CONSUMER_LAG, lag, self._of_consumer),
        ]
