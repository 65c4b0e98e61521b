"""
A consumer that acts on events, as programs use it.

Not here: its rules and handlers (declaration), receiving and handling (service), and its rows (inbox).
"""

from datetime import datetime, timedelta
from typing import Any

from dkist_processing_core.author_calls import author_call
from dkist_processing_core.consumer.declaration import Declaration, check_workers
from dkist_processing_core.consumer.signals import signals_raise
from dkist_processing_core.consumer.since import moment_of
from dkist_processing_core.errors import ConfigurationError, ExtraMissingError
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings


class Consumer(Declaration):
    """
    Functions that act on events, each event once, with retries and dead letters.

        consumer = Consumer("announcer")

        @consumer.on("task.failed", workflow="l0_to_l1_*")
        def announce(event):
            ...

        consumer.run()

    Received events are stored in an inbox before they are acknowledged. A handler that takes a parameter `transaction`
    gets the open SQLAlchemy `Connection` of the transaction in which its event is marked as done: what it writes there
    is committed once, however often the consumer is killed. All other effects happen at least once, and `event.id` is
    their key.
    """

    _end: SignalSafeFlag | None = None
    _is_stopped = False
    _intake: Any = None

    @author_call("consumer.run(since='2h', until_idle=True)", until="until_idle", port="listen")
    def run(
        self,
        *,
        since: str | timedelta | datetime | None = None,
        until_idle: bool = False,
        workers: int | None = None,
        health: str | None = None,
        listen: str | None = None,
    ) -> None:
        """
        Receive and handle events until SIGTERM, SIGINT or `stop`; events that are being handled are finished.

        A broker or a database that cannot be reached is waited for, with one warning.

        Args:
            since: Also take in the past events from then on that the bus still has, each once however often they are
                read: `2h` or another duration with s, m, h or d, `today`, a time by ISO 8601, or `first` for the oldest
                one. By default a consumer begins now, and later where it ended.
            until_idle: Return when no event is left on the bus, and none is due. Events that wait for a next try, or
                for a firm report, are left for the next start. Timed work that is due then is done once before.
            workers: Instead of the consumer's number.
            health: Where to answer requests over HTTP about its health: a port of this host, as in `"8080"`, or
                `"0.0.0.0:8080"`. The status is 200, or 503 while the bus or the database cannot be used.
            listen: Where to answer requests over HTTP about its metrics, at the path `/metrics`, and about its health,
                at each other path: an address as for `health`, of which it takes the place.

        Raises:
            ValueError: `since` is no time, `health` or `listen` is no port, or `workers` is no number of threads.
            RuntimeError: Another thread runs it, or one of its own handlers calls this.
            ExtraMissingError: A module that the extra `consumer` installs is missing.
            ConfigurationError, BusError, JournalError, InboxError: There is no handler, the settings are wrong,
                broker or database refuse the consumer, or another process of its name receives, so that `since` with
                `until_idle` has taken in no past events.
        """
        # Imported here: commands that only read events import this package too, and start sooner without them.
        from dkist_processing_core.consumer.exposing import exposed, serving_at  # noqa: PLC0415
        from dkist_processing_core.metrics.sending import is_sent  # noqa: PLC0415
        from dkist_processing_core.tracing import warn_of_config_file  # noqa: PLC0415

        if not self.handlers and not self.timers:
            msg = f"the consumer {self.name!r} has no handler; add one by @consumer.on(…)"
            raise ConfigurationError(msg)
        if health is not None and listen is not None:
            msg = "found health and listen, expected one of them: listen answers about the health as well"
            raise ValueError(msg)
        serving = serving_at(health=health, listen=listen)
        begin = None if since is None else moment_of(since) or True
        if workers is not None:
            check_workers(workers)
        _service_class()
        if self._end is not None:
            msg = f"the consumer {self.name!r} runs already, expected one run at a time; for threads, use workers=N"
            raise RuntimeError(msg)
        self._end = end = SignalSafeFlag()
        if self._is_stopped:
            end.raise_()
        try:
            with signals_raise(end):
                given = self.settings or read_settings()
                warn_of_config_file(given)
                is_measured = listen is not None or (is_sent(given) and not until_idle)
                service = opened(self, given, since=begin, workers=workers, end=end, is_measured=is_measured)
                if service is not None:
                    within = exposed(
                        [service],
                        given,
                        serving=serving,
                        is_sent=is_measured and not until_idle,
                    )
                    service.run(until_idle=until_idle, within=within)
        finally:
            self._end, self._is_stopped = None, False

    @property
    def has_caught_up(self) -> bool:
        """True if the past events that `run(since=…)` takes in are in the inbox; False before `run`."""
        return self._intake is not None and self._intake.has_caught_up

    def stop(self) -> None:
        """
        Make `run` return when the events in hand are finished. Any thread and any signal handler may call this.

        If it does not run now, the next `run` returns at once.
        """
        self._is_stopped = True
        end = self._end
        if end is not None:
            end.raise_()


def opened(consumer: Consumer, settings: Settings, **options: Any) -> Any:
    """Return the service of a consumer, with the options of `ConsumerService.open`; None if its end comes before."""
    service = _service_class().open(consumer, settings, **options)
    if service is not None:
        consumer._intake = service.intake  # noqa: SLF001 - the class above
    return service


def _service_class() -> Any:
    """Return the class of the service; the library of its database is imported here."""
    try:
        from dkist_processing_core.consumer.service import ConsumerService  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("sqlalchemy", "alembic", "psycopg"):
            raise
        raise ExtraMissingError("consumer", "a consumer keeps its inbox", str(error.name)) from error
    return ConsumerService
