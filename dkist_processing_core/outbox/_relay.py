"""
Delivering what the processes of this host leave in the outbox and the journal of telemetry, until stopped.

Not here: connecting to the broker, pausing and retrying (delivery.drainer).
"""

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.delivery.drainer import Drainer
from dkist_processing_core.errors import ConfigurationError, JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.place import check_place
from dkist_processing_core.journal.spare import spares_of
from dkist_processing_core.otlp import exports_telemetry
from dkist_processing_core.outbox._delivery import STOP_SECONDS, unhurried
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in

if TYPE_CHECKING:
    from dkist_processing_core.delivery.send_measures import SendMeasures
    from dkist_processing_core.otlp.drainer import TelemetryDrainer

_POLL_SECONDS = 0.5
# The wait for the end of a request to a collector, after the delivery of messages has ended.
_LAST_SECONDS = 0.5
logger = logging.getLogger(__name__)


class Relay:
    """Delivers from one thread while another calls `run`; waits for a file or folder that does not exist yet."""

    def __init__(self, settings: Settings) -> None:
        """
        Store the settings that name broker and collectors. No file is opened.

        Raises:
            ConfigurationError: The settings name neither a broker nor a collector.
        """
        if not (settings.names_broker or exports_telemetry(settings)):
            msg = f"there is nothing to relay: MESH_CONFIG names no {ISB_SERVICE}"
            raise ConfigurationError(f"{msg}, and no telemetry is exported")
        self._settings = settings
        self._end = SignalSafeFlag()
        self._delivered = 0
        self._drainer: Drainer | None = None
        self._telemetry: TelemetryDrainer | None = None
        self._measures: SendMeasures | None = None

    def stop(self) -> None:
        """Make `run` return; may be called from any thread and from a signal handler."""
        self._end.raise_()

    def run(self, *, listen: tuple[str, int] | None = None) -> None:
        """
        Deliver until stopped.

        Args:
            listen: Where metrics and health are served, as host and port.

        Raises:
            ConfigurationError: Nothing can be served there.
            ExtraMissingError: prometheus-client is missing.
        """
        # Imported here: the commands that only list an outbox start sooner without a server.
        from dkist_processing_core.outbox._relay_metrics import relay_metrics  # noqa: PLC0415
        from dkist_processing_core.tracing import warn_of_config_file  # noqa: PLC0415

        warn_of_config_file(self._settings)
        with relay_metrics(self._settings, listen, self._problems) as self._measures:
            self._run()

    def _problems(self) -> dict[str, str | None]:
        """Return why nothing can be delivered now, or None, for the broker and each signal that the settings name."""
        problems: dict[str, str | None] = {}
        if self._settings.names_broker:
            problems["broker"] = None if self._drainer is None else self._drainer.failure
        if self._telemetry is not None:
            found = self._telemetry.problems
            problems |= {signal: found.get(signal) for signal in self._telemetry.signals}
        return problems

    def _run(self) -> None:
        check_place(self._settings)
        telemetry = self._telemetry = self._start_telemetry()
        try:
            if self._settings.names_broker:
                self._relay_events()
            else:
                self._end.wait()
        finally:
            if telemetry is not None:
                telemetry.stop(_LAST_SECONDS)
                logger.info("the delivery of telemetry from %s has ended", telemetry.path)

    def _start_telemetry(self) -> "TelemetryDrainer | None":
        from dkist_processing_core.otlp.drainer import start_delivery  # noqa: PLC0415 - imports OpenTelemetry

        telemetry = start_delivery(self._settings, poll_seconds=_POLL_SECONDS)
        if telemetry is not None:
            logger.info("delivering telemetry from %s", telemetry.path)
        return telemetry

    def _relay_events(self) -> None:
        bus = unhurried(self._settings)
        logger.info("relaying from %s to %s", bus.journal_path, bus.where)
        while not self._end.is_raised:
            # Created again each time, since this checks the folder: a file system that was mounted there later
            # may be unsuitable for a journal.
            bus = unhurried(self._settings)
            self._report_lost_runs(bus)
            if bus.journal_path.exists() or spares_of(bus.journal_path):
                self._deliver(bus)
            self._end.wait(_POLL_SECONDS)
        logger.info("ended; delivered: %s, still pending: %s", self._delivered, _waiting(bus))

    def _report_lost_runs(self, bus: AmqpBus) -> None:
        # Imported here, since they import OpenTelemetry: the commands that only list an outbox start sooner without it.
        from dkist_processing_core.delivery.lost_runs import lost_runs, report_lost_runs  # noqa: PLC0415
        from dkist_processing_core.delivery.publisher import Publisher  # noqa: PLC0415
        from dkist_processing_core.delivery.reporter import errors_logged  # noqa: PLC0415

        with errors_logged("lost runs are not reported"):
            if any(lost_runs(bus.journal_path)):
                with Publisher(bus, secrets=secrets_in(self._settings), delivers=False) as publisher:
                    report_lost_runs(publisher)

    def _deliver(self, bus: AmqpBus) -> None:
        """Deliver one file, until stopped or until another file has its name."""
        with contextlib.ExitStack() as stack:
            journal: Journal | None = None
            with contextlib.suppress(JournalError):
                # Kept open to count delivered messages; if it cannot be opened, the other thread logs that and retries.
                journal = stack.enter_context(bus.open_journal())
            before = _confirmed(journal)
            file = _file_at(bus.journal_path)
            drainer = Drainer(bus, lambda: None, heeds_mark=False, poll_seconds=_POLL_SECONDS, measures=self._measures)
            self._drainer = drainer
            drainer.start()
            while not self._end.is_raised and _file_at(bus.journal_path) == file:
                if not drainer.is_running:
                    # No thread could be started before; this tries again.
                    drainer.wake()
                self._report_lost_runs(bus)
                self._end.wait(_POLL_SECONDS)
            drainer.stop(STOP_SECONDS)
            after = _confirmed(journal)
            if before is not None and after is not None:
                self._delivered += after - before


def _file_at(path: Path) -> tuple[int, int] | None:
    """Return the device and inode numbers, which distinguish a file from a later one with the same name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _confirmed(journal: Journal | None) -> int | None:
    """Return how many messages were confirmed so far; None if that is not known, which is no reason to end."""
    with contextlib.suppress(JournalError):
        return None if journal is None else journal.books().confirmed
    return None


def _waiting(bus: AmqpBus) -> int | str:
    try:
        return Journal.look(bus.journal_path, Journal.books).pending
    except JournalError:
        return "unknown"
