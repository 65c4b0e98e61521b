"""
`dkist-core outbox drain` and `relay`: a delivery with its progress on a terminal, and a continuous delivery.

Not here: the delivery itself (outbox).
"""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from functools import partial

from rich.text import Text

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.outbox import Progress, Relay, drain, outboxes
from dkist_processing_core.process.thread_limits import can_start_threads
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import Terminal, print_text

_SET_ASIDE = "dkist-core outbox list --set-aside shows why, dkist-core outbox retry makes them pending again"
_PACKAGE = "dkist_processing_core"


def deliver(timeout: float | None) -> int:
    """Deliver the outbox of the settings, and return the exit code."""
    settings = read_settings()
    bus = open_bus(settings)
    hide = partial(without_secrets, settings=settings)
    if not settings.names_broker:
        return _report_others(settings, f"MESH_CONFIG names no {ISB_SERVICE}, and {bus.where} needs no delivery", hide)
    found = Progress(pending=0)
    console = Terminal(stderr=True, highlight=False)
    try:
        with _quietly(), contextlib.ExitStack() as shown:
            spinner = "line" if console.options.ascii_only else "dots"
            # rich draws the moving spinner in a separate thread.
            status = shown.enter_context(console.status("", spinner=spinner)) if can_start_threads() else None
            for found in drain(settings, timeout=timeout):
                if status is not None:
                    status.update(Text(_text_of(found)))
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


def _report_others(settings: Settings, why: str, hide: Callable[[str], str]) -> int:
    """Print the messages that wait for brokers that the settings do not name, and return the exit code."""
    others = [state for state in outboxes(settings) if not state.is_embedded and state.waiting]
    for state in others:
        where = f"{state.waiting} in {state.path}, for {state.destination or 'an unknown broker'}"
        print_text(hide(f"error: {why}; still pending: {where}"), err=True)
    if not others:
        print_text(hide(f"nothing to drain: {why}"))
    return 1 if others else 0


def _text_of(progress: Progress) -> str:
    others = "" if progress.deliverer is None else f", process {progress.deliverer} delivers"
    return f"delivered {progress.confirmed:,}, pending {progress.pending:,}{others}"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the warnings of the delivery thread: they are for processes that do other work at the same time."""
    is_verbose = logging.getLogger(_PACKAGE).level == logging.INFO
    with _level(f"{_PACKAGE}.delivery", logging.NOTSET if is_verbose else logging.ERROR):
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


def relay() -> None:
    """Deliver until a signal requests the end."""
    found = Relay(read_settings())
    before = {number: signal.signal(number, lambda *_: found.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _level(_PACKAGE, logging.INFO):
            found.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
