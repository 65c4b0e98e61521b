"""
The measures of sending messages to the broker: how long each waits for its answer.

Not here: sending (delivery.delivery), and what waits in an outbox (outbox).
"""

import time
from collections.abc import Iterable

from dkist_processing_core import semconv
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.accumulator import Accumulator
from dkist_processing_core.metrics.measurement import Measurement
from dkist_processing_core.settings.interface import Settings

REFUSED = "refused"


class SendMeasures:
    """The measures of one process and broker; one thread adds to them, and others read them."""

    def __init__(self, settings: Settings) -> None:
        """Begin at zero; the settings name the broker."""
        service = settings.isb_mesh_service
        attributes = {
            semconv.MESSAGING_SYSTEM: "rabbitmq",
            semconv.MESSAGING_OPERATION_NAME: "publish",
            semconv.SERVER_ADDRESS: service.host,
            semconv.SERVER_PORT: str(service.port),
        }
        self._sent = Accumulator(declarations.SENT_MESSAGES, attributes)
        self._durations = Accumulator(declarations.OPERATION_DURATION, attributes)
        # Exchange and time of each message without an answer, by its number.
        self._waiting: dict[int, tuple[str, float]] = {}

    def begin(self) -> None:
        """Forget messages without an answer, as after the end of a connection: they are sent again."""
        self._waiting.clear()

    def note_sent(self, number: int, exchange: str) -> None:
        """Note that a message was sent."""
        self._waiting[number] = exchange, time.monotonic()

    def note_answered(self, confirmed: Iterable[int], refused: Iterable[int]) -> None:
        """Count messages that the broker has confirmed or refused."""
        now = time.monotonic()
        for numbers, of_answer in ((confirmed, {}), (refused, {semconv.ERROR_TYPE: REFUSED})):
            for number in numbers:
                sent = self._waiting.pop(number, None)
                if sent is not None:
                    attributes = {semconv.MESSAGING_DESTINATION_NAME: sent[0], **of_answer}
                    self._sent.add(attributes)
                    self._durations.add(attributes, now - sent[1])

    def measurements(self) -> list[Measurement]:
        """Return the present values."""
        return [self._sent.measurement(), self._durations.measurement()]
