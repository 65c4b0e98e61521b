"""
The display of one run: an error in it is logged and ends the display, but not the run.

Not here: the forms of the display (display).
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from types import TracebackType

from dkist_processing_core.delivery.reporter import errors_logged
from dkist_processing_core.identity import Run
from dkist_processing_core.local.display import Display, SilentDisplay, open_display
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.settings.interface import Settings

logger = logging.getLogger(__name__)


class RunDisplay:
    """The display of one run, which may be called from any thread."""

    def __init__(self) -> None:
        """Show nothing before `open`."""
        self._display: Display = SilentDisplay()
        self._stack = contextlib.ExitStack()

    def open(self, run: Run, names: Sequence[str], settings: Settings) -> None:
        """Start to show a run."""
        with errors_logged("the run is not shown"):
            self._display = self._stack.enter_context(open_display(run, names, settings))

    def show(self, action: Callable[[Display], object]) -> None:
        """Call `action` with the display; an error in it ends the display."""
        with signals_deferred():
            try:
                action(self._display)
            except TerminationError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - rich leaves by SystemExit at a closed pipe
                self._display = SilentDisplay()
                logger.warning("the run is no longer shown: %s", error)

    def detail(self, name: str, text: str) -> None:
        """Show a detail of a task or the run, if the program shows information, as `dkist-core -v` does."""
        if logger.isEnabledFor(logging.INFO):
            self.show(lambda display: display.detail(name, text))

    def close(self, error: tuple[type[BaseException] | None, BaseException | None, TracebackType | None]) -> None:
        """End the display, which also shows an interrupt that is being raised."""
        self.show(lambda _: self._stack.__exit__(*error))
