"""
The spans, metrics and log records of a process.

It is long because a process has one object for all signals, as callers need spans, records and their flush together.
Not here: the destination of their export (_setup).
"""

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode

from dkist_processing_core import semconv
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.logs.fields import fields_of
from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import redact
from dkist_processing_core.text.exception_text import class_name, message_of
from dkist_processing_core.text.internal_errors import redacted_stack

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

from dkist_processing_core.otlp.destination import SIGNALS, Collector, Signal
from dkist_processing_core.tracing._batches import Batches
from dkist_processing_core.tracing._executed import DELTA, counted_attributes
from dkist_processing_core.tracing._log_export import LogExport
from dkist_processing_core.tracing._log_fields import fields_on_records
from dkist_processing_core.tracing._meter_provider import hosts_meter_provider
from dkist_processing_core.tracing._open_spans import report_open_spans
from dkist_processing_core.tracing._scope import Scope, opened, opened_in_context

_LOG_SECONDS = 0.1
logger = logging.getLogger(__name__)
chosen_ids: ContextVar[tuple[int, int] | None] = ContextVar("chosen_ids", default=None)
"""The ids of trace and span that one of our providers gives to the span that is being opened."""
given_out_ids: ContextVar[tuple[int, int] | None] = ContextVar("given_out_ids", default=None)
"""The ids that any provider gives to it, since other processes use them for it."""


class Telemetry:
    """
    The tracer, the meter and the log export of a process; without a destination, everything is a cheap no-op.

    Its spans can be used without knowledge of their context: `span` is a context manager like any other.
    """

    def __init__(
        self,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
        logger_provider: "LoggerProvider | None" = None,
        *,
        batches: Batches | None = None,
        exporting: Collection[Signal] = SIGNALS,
        deliver: Callable[[float], None] = lambda _: None,
        collectors: Mapping[Signal, Collector] | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        """
        Store what `open_telemetry` has set up.

        Args:
            tracer_provider: The provider of spans; None without export, as for the other signals.
            meter_provider: The provider of metrics.
            logger_provider: The provider of log records.
            batches: Appends telemetry to the journal; None if this process uses none.
            exporting: The signals that have further exporters, which this process must wait for.
            deliver: Delivers what is in the journal, within a number of seconds.
            collectors: The collectors of these exporters.
            secrets: Texts that are never exported.
        """
        providers = zip(SIGNALS, (tracer_provider, meter_provider, logger_provider), strict=True)
        self._providers: dict[Signal, Any] = {signal: provider for signal, provider in providers if provider}
        self._batches = batches
        self._exporting = exporting
        self._deliver = deliver
        self._collectors = dict(collectors or {})
        self._reported: dict[Signal, str] = {}
        self._secrets = list(secrets)
        self._log_export = LogExport(logger_provider, self._secrets) if logger_provider else None
        self.is_tracing = tracer_provider is not None
        self.is_logging = logger_provider is not None
        self.has_own_spans = False
        """Whether its spans are exported by this package, and not by a host application."""
        self.temporality = DELTA
        """The temporality in which this package exports counters, as its variable names it."""
        self.keep_executed: Callable[[Mapping[str, Any]], None] | None = None
        """Appends an increment of the counter of executed tasks to the journal; None if the meter counts them."""
        self.tracer: trace.Tracer = (tracer_provider or trace).get_tracer(semconv.SCOPE)

    @forks.computed_once
    def meter(self) -> metrics.Meter:
        """The meter of this package's and the author's instruments; the SDK is imported at its first use."""
        # The proxy, which the API returns until a provider is set, is not used: it keeps every instrument until then,
        # and with its callbacks every task.
        provider = self._providers.get("metrics") or hosts_meter_provider() or metrics.NoOpMeterProvider()
        meter: metrics.Meter = provider.get_meter(semconv.SCOPE)
        return meter

    @staticmethod
    def instrumented_libraries(settings: Settings, *, is_wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the use of libraries makes spans, by installed instrumentors, or does not."""
        from dkist_processing_core.tracing._instrumentation import instrumented_libraries  # noqa: PLC0415 - only for spans

        return instrumented_libraries(settings, is_wanted=is_wanted)

    @forks.computed_once
    def _executed(self) -> metrics.Counter:
        return self.meter.create_counter(semconv.EXECUTED, semconv.EXECUTED_UNIT, semconv.EXECUTED_MEANING)

    def count_executed(self, attempt_id: str, attributes: Mapping[str, Any]) -> None:
        """
        Count an attempt as an executed task, at its start: a killed one is counted too.

        Args:
            attempt_id: The identity of the attempt.
            attributes: The attributes of the task's measurements.
        """
        with _logging_errors("the attempt is not counted"):
            counted = counted_attributes(attributes, attempt_id, self.temporality)
            if self.keep_executed is None:
                self._executed.add(1, counted)
            else:
                self.keep_executed(counted)

    @property
    def tracer_if_tracing(self) -> trace.Tracer | None:
        """The tracer, or None, for callers to whom a span's attributes would cost more than the traced work."""
        return self.tracer if self.is_tracing else None

    @contextlib.contextmanager
    def span(self, name: str, **options: Any) -> Iterator[Span]:
        """
        Open a child of the current span; an exception that leaves the block marks it as an error.

        The author's values are kept: a status is only set if there is none. Exceptions are recorded redacted.
        """
        record = options.pop("record_exception", True)
        set_status = options.pop("set_status_on_exception", True)
        ends = options.pop("end_on_exit", True)
        span = self._started(name, options)
        with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                self.record_error(span, error, record=record, set_status=set_status)
                raise
            finally:
                if ends:
                    with _logging_errors("a span does not end"):
                        span.end()

    def _started(self, name: str, options: dict[str, Any]) -> Span:
        with _logging_errors("a span is not exported"):
            return self.tracer.start_span(name, **options)
        return NonRecordingSpan(trace.get_current_span().get_span_context())

    def record_error(self, span: Span, error: BaseException, *, record: bool = True, set_status: bool = True) -> None:
        """Mark a span as failed by an exception, redacted; an existing status is kept."""
        with _logging_errors("an exception is not recorded in its span"):
            if span.is_recording():
                self._record_error(span, error, record=record, set_status=set_status)

    def _record_error(self, span: Span, error: BaseException, *, record: bool, set_status: bool) -> None:
        from dkist_processing_core.events import describe  # noqa: PLC0415 - a module that only defines tasks does not need it

        failure = describe(error)
        message = redact(failure["message"], also=self._secrets)
        if record:
            span.add_event(
                semconv.EXCEPTION,
                {
                    semconv.EXCEPTION_TYPE: failure["error_type"],
                    semconv.EXCEPTION_MESSAGE: message,
                    semconv.EXCEPTION_STACKTRACE: redact(failure["stack"], also=self._secrets),
                },
            )
        status: Status | None = getattr(span, "status", None)
        if set_status and (status is None or status.status_code is StatusCode.UNSET):
            span.set_status(Status(StatusCode.ERROR, message))
            span.set_attribute(semconv.ERROR_TYPE, failure["error_type"])

    @contextlib.contextmanager
    def root_span(
        self,
        name: str,
        parent: SpanContext | None,
        own: SpanContext,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        *,
        start_time: int | None = None,
        end_time: int | None = None,
        is_given_out: bool = False,
    ) -> Iterator[Span]:
        """
        Open a span with the ids of `own`, below `parent`, and make it the current one; exported or not.

        A host application's provider may give it other ids, and these must be passed on; not if the ids of `own` were
        given out before (`is_given_out`). A span that the provider drops has the ids of `own`, as if nothing were
        exported.

        The span begins now, or at `start_time`, and ends with the block, or at `end_time`, in nanoseconds since 1970.
        """
        context = trace.set_span_in_context(
            NonRecordingSpan(parent) if parent else trace.INVALID_SPAN, otel_context.Context()
        )
        span: Span = NonRecordingSpan(own)
        if self.is_tracing:
            ids = own.trace_id, own.span_id
            token, given_out = chosen_ids.set(ids), given_out_ids.set(ids if is_given_out else None)
            try:
                with _logging_errors("a span is not exported"):
                    made = self.tracer.start_span(name, context, kind, attributes, start_time=start_time)
                    span = made if made.is_recording() else _dropped(own, made.get_span_context())
            finally:
                chosen_ids.reset(token)
                given_out_ids.reset(given_out)
        with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            finally:
                with _logging_errors("a span does not end"):
                    span.end(end_time)
                    if self._batches is not None:
                        # At once: a run or an attempt is not complete without it.
                        self._batches.append()

    def report_open_spans(self, report: Callable[[dict[str, Any]], object]) -> None:
        """Report the open spans that have exported ones below them: another process ends them if this one is killed."""
        if hasattr(self._providers.get("traces"), "add_span_processor"):
            batch = None if self._batches is None else self._batches.of("traces")
            have_left = report_open_spans(self._providers["traces"], report, is_confirmed=batch is not None)
            if batch is not None:
                batch.on_appended = have_left

    @contextlib.contextmanager
    def scope(self, subject: Run | Attempt, attributes: Mapping[str, Any], span: SpanContext) -> Iterator[None]:
        """
        Give the spans and log records of the block the identity of a run or an attempt, and export the records.

        Args:
            subject: The run or the attempt.
            attributes: The attributes of its span, and of the exported records.
            span: The context of its span.
        """
        with opened(Scope(attributes, fields_of(subject), span)), self.identified_records():
            yield

    @staticmethod
    def scope_of_context(
        fields: Mapping[str, Any], attributes: Mapping[str, Any], span: SpanContext
    ) -> contextlib.AbstractContextManager[None]:
        """Return a scope for the work of this thread on one of many runs, during `identified_records`."""
        return opened_in_context(Scope(attributes, fields, span))

    @contextlib.contextmanager
    def identified_records(self) -> Iterator[None]:
        """Give the log records of the block the fields of their scope, and export them."""
        with (
            fields_on_records(),
            contextlib.nullcontext() if self._log_export is None else self._log_export.exporting(),
        ):
            yield

    @contextlib.contextmanager
    def flushing(self, timeout: float, *, delivers: bool = True) -> Iterator[None]:
        """
        Append telemetry to its journal, and deliver or export it during the block, until `timeout` seconds have passed.

        Deliveries and exports run in threads, since the SDK's own flush and shutdown have no limit: with a dead
        collector they take seconds. If no collector accepts connections, there is no wait.

        Args:
            timeout: The limit of the wait, in seconds.
            delivers: False if another process of this run delivers the journal, and reports if a collector accepts no
                connection.
        """
        # As with the journal of events, what the process has waited before is part of the limit.
        waited = 0.0 if self._batches is None else self._batches.journal.begin_waits()
        deadline = time.monotonic() + max(0.0, timeout - waited)
        problems: dict[Signal, str] = {}
        if self._batches is not None:
            self._batches.append(0.0)
        threads = dict(self._threads(deadline, problems, delivers=delivers))
        try:
            yield
        finally:
            for signals, thread in threads.items():
                thread.join(max(0.0, deadline + (0 if signals else _LOG_SECONDS) - time.monotonic()))
                if thread.is_alive():
                    problems |= dict.fromkeys(signals, "the collector has not accepted them in time")
            if self._batches is not None:
                self._batches.append(max(0.0, deadline - time.monotonic()), is_last=True)
            self._report({signal: problems[signal] for signal in SIGNALS if signal in problems})

    def _threads(
        self, deadline: float, problems: dict[Signal, str], *, delivers: bool
    ) -> Iterator[tuple[tuple[Signal, ...], threading.Thread]]:
        """Start the threads that this process waits for, and yield each with its signals."""
        work: dict[tuple[Signal, ...], Callable[[], object]] = {
            (signal,): functools.partial(self._flush, signal, deadline, problems, reports_connection=delivers)
            for signal in self._providers
            if signal in self._exporting
        }
        if self._batches is not None and (delivers or self._collects):
            work[()] = functools.partial(self._collect_and_deliver, deadline, delivers=delivers)
        for signals, action in work.items():
            thread = threading.Thread(target=action, name="dkist-core-telemetry", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # Too many processes, or an interpreter that is about to exit; the SDK's own wait might never end.
                problems |= dict.fromkeys(signals, str(error))
                if not signals:
                    self._collect_and_deliver(deadline, delivers=False)
            else:
                yield signals, thread

    @property
    def _collects(self) -> bool:
        """Whether metrics have to be collected for the journal."""
        return "metrics" not in self._exporting and getattr(self._providers.get("metrics"), "is_used", False)

    def _collect_and_deliver(self, deadline: float, *, delivers: bool) -> None:
        """Append the metrics, which may call the author's functions, and deliver what is in the journal."""
        try:
            if self._collects:
                self._providers["metrics"].force_flush()
            if delivers:
                # A delivery ends by itself, and logs what it has not delivered, before this process ends.
                self._deliver(max(0.0, deadline - _LOG_SECONDS - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - as in `_flush`
            logger.debug("telemetry could not be delivered\n%s", redacted_stack(error))

    def _flush(self, signal: Signal, deadline: float, problems: dict[Signal, str], *, reports_connection: bool) -> None:
        collector = self._collectors.get(signal)
        try:
            problem = None if collector is None else collector.problem(max(0.01, deadline - time.monotonic()))
            if problem is None:
                self._providers[signal].force_flush()
            elif reports_connection:
                # The SDK would keep retrying, and the process would wait for it.
                problems[signal] = problem
        except Exception as error:  # noqa: BLE001 - the SDK or an exporter may raise anything
            logger.debug("telemetry could not be exported\n%s", redacted_stack(error))

    def _report(self, problems: dict[Signal, str]) -> None:
        """Log a warning about collectors that do not accept connections, once for as long as that lasts."""
        if problems and problems != self._reported:
            for problem in dict.fromkeys(problems.values()):
                signals = [signal for signal in problems if problems[signal] == problem]
                logger.warning("%s are not exported: %s", ", ".join(signals), problem)
        self._reported = problems


def _dropped(own: SpanContext, made: SpanContext) -> Span:
    """Return a span with its own ids and a sampler's decision, so that the spans below it are also dropped."""
    context = SpanContext(own.trace_id, own.span_id, own.is_remote, made.trace_flags, made.trace_state)
    return NonRecordingSpan(context)


@contextlib.contextmanager
def _logging_errors(consequence: str) -> Iterator[None]:
    """Log errors of a host application's provider, its own or those of the author's values, instead of raising them."""
    with signals_deferred():
        try:
            yield
        except Exception as error:  # noqa: BLE001 - as above
            logger.warning("%s: %s: %s", consequence, class_name(type(error)), redact(message_of(error)))
