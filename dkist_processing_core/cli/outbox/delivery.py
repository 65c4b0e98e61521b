"""
`dkist-core outbox drain` and `relay`: a delivery with its progress on a terminal, and a continuous delivery.

Not here: the delivery itself (outbox).
"""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

from rich.text import Text

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.metrics.serving import address_of
from dkist_processing_core.otlp import exports_telemetry
from dkist_processing_core.outbox import (
    Progress,
    Relay,
    TelemetryDrain,
    TelemetryProgress,
    drain,
    outboxes,
)
from dkist_processing_core.process.thread_limits import can_start_threads
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal, print_text

_SET_ASIDE = "dkist-core outbox list --set-aside shows why, dkist-core outbox retry makes them pending again"
_REFUSED = "`dkist-core --verbose outbox drain` shows the reasons"
_PACKAGE = "dkist_processing_core"


def deliver(timeout: float | None) -> int:
    """Deliver the outbox and the telemetry of the settings, and return the exit code."""
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    until = math.inf if timeout is None else time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quietly())
        telemetry = TelemetryDrain(settings) if exports_telemetry(settings) else None
        if telemetry is not None:
            stack.callback(telemetry.close)
        if settings.names_broker:
            code = _deliver_events(settings, timeout, hide)
        else:
            why = f"MESH_CONFIG names no {ISB_SERVICE}, and {open_bus(settings).where} needs no delivery"
            code = _report_others(settings, why, hide, is_everything=telemetry is None)
        if telemetry is not None:
            code = max(code, _deliver_telemetry(telemetry, max(0.0, until - time.monotonic()), hide))
        return code


def _deliver_events(settings: Settings, timeout: float | None, hide: Callable[[str], str]) -> int:
    bus = open_bus(settings)
    found = Progress(pending=0)
    try:
        with _status() as show:
            for found in drain(settings, timeout=timeout):
                show(_text_of(found))
    except KeyboardInterrupt:
        print_text(f"interrupted; still pending in {hide(str(bus.journal_path))}: {found.pending}", err=True)
        raise
    if found.reason is not None:
        reason = hide(f"{found.reason}; still pending in {bus.journal_path}: {found.pending}")
        print_text(f"error: {reason}, delivered: {found.confirmed}", err=True)
    else:
        print_text(hide(f"delivered to {bus.where}: {found.confirmed}, still pending: {found.pending}"))
    if found.set_aside:
        print_text(f"set aside, since the broker refuses them: {found.set_aside}; {_SET_ASIDE}", err=True)
    if found.set_aside_before:
        print_text(f"set aside earlier: {found.set_aside_before}; {_SET_ASIDE}", err=True)
    return 1 if found.reason is not None or found.pending or found.set_aside else 0


def _deliver_telemetry(telemetry: TelemetryDrain, seconds: float, hide: Callable[[str], str]) -> int:
    found = TelemetryProgress()
    try:
        with _status() as show:
            for found in telemetry.progress(seconds):
                show(f"telemetry: {_text_of(found)}")
    except KeyboardInterrupt:
        print_text(f"interrupted; telemetry pending in {hide(str(telemetry.path))}: {found.pending}", err=True)
        raise
    if found.reason is not None:
        reason = hide(f"{found.reason}; telemetry pending in {telemetry.path}: {found.pending}")
        print_text(f"error: {reason}, delivered: {found.delivered}", err=True)
    else:
        print_text(f"telemetry delivered: {found.delivered}, still pending: {found.pending}")
    if found.refused:
        print_text(f"telemetry that a collector refused, which is dropped: {found.refused}; {_REFUSED}", err=True)
    return 1 if found.pending or found.refused else 0


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Return a function that shows a text beside a moving spinner, which rich draws in a separate thread."""
    console = Terminal(stderr=True, highlight=False)
    if not can_start_threads():
        yield lambda _: None
        return
    with console.status("", spinner="line" if console.options.ascii_only else "dots") as status:
        yield lambda text: status.update(Text(text))


def _report_others(settings: Settings, why: str, hide: Callable[[str], str], *, is_everything: bool) -> int:
    """
    Print the messages that wait for brokers that the settings do not name, and return the exit code.

    Without any, and if this is everything that the command does, print why there is nothing to do.
    """
    others = [state for state in outboxes(settings) if not state.is_embedded and state.waiting]
    for state in others:
        where = f"{state.waiting} in {state.path}, for {state.destination or 'an unknown broker'}"
        print_text(hide(f"error: {why}; still pending: {where}"), err=True)
    if not others and is_everything:
        print_text(hide(f"nothing to drain: {why}"))
    return 1 if others else 0


def _text_of(progress: Progress | TelemetryProgress) -> str:
    others = "" if progress.deliverer is None else f", process {progress.deliverer} delivers"
    delivered = progress.confirmed if isinstance(progress, Progress) else progress.delivered
    return f"delivered {delivered:,}, pending {progress.pending:,}{others}"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the warnings of the delivery threads: they are for processes that do other work at the same time."""
    level = logging.NOTSET if logging.getLogger(_PACKAGE).level == logging.INFO else logging.ERROR
    with _level(f"{_PACKAGE}.delivery", level), _level(f"{_PACKAGE}.otlp", level):
        yield


@contextlib.contextmanager
def _level(name: str, level: int) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def relay(listen: str | None) -> None:
    """Deliver until a signal requests the end, and serve metrics at an address."""
    found = Relay(read_settings())
    before = {number: signal.signal(number, lambda *_: found.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _level(_PACKAGE, logging.INFO):
            found.run(listen=None if listen is None else address_of(listen, "listen"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
