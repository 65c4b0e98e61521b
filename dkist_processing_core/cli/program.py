"""
The program `dkist-core`: its commands put together, its errors and its exit codes.

Not here: the commands themselves, which are in the module `commands` of each group. Each command imports its
implementation when it is called, so that the other commands start without it.
"""

import contextlib
import itertools
import logging
import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dkist_processing_core.cli import output
from dkist_processing_core.cli.consume.commands import consume
from dkist_processing_core.cli.dashboard.commands import dashboard
from dkist_processing_core.cli.dead_letters.commands import dead_letters_app
from dkist_processing_core.cli.doctor.commands import doctor
from dkist_processing_core.cli.environments.commands import environments_app
from dkist_processing_core.cli.events.commands import events_app
from dkist_processing_core.cli.notify.commands import notify_app
from dkist_processing_core.cli.outbox.commands import outbox_app
from dkist_processing_core.cli.reconcile.commands import reconcile
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.cli.runs.commands import run, stack, timeline
from dkist_processing_core.cli.store.commands import collect, failures, runs_app, top, usage
from dkist_processing_core.cli.topology.commands import topology_app
from dkist_processing_core.cli.watch.commands import watch
from dkist_processing_core.cli.workflows.commands import workflows_app
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.logs.lines import formatter, is_json
from dkist_processing_core.process.exit_status import fill_standard_descriptors
from dkist_processing_core.text.terminal import interrupt_ends, visible, write_line

logger = logging.getLogger(__name__)
_INTERRUPTED = 130
# A shell that completes a word sets this; click derives the name from that of the program.
_COMPLETE = "_DKIST_CORE_COMPLETE"
# The class of click, or of typer's own copy of click: the one in the same module as the usage errors.
_UsageError: Any = sys.modules[typer.BadParameter.__module__].ClickException


def _shown(error: Any) -> Any:
    """Return a usage error with its message redacted, escaped and folded: typer shows the user's input unchanged."""
    from dkist_processing_core.text.console import folded_text  # noqa: PLC0415 - the other commands start without it

    error.message = visible(without_secrets(str(error.message), None))
    before = "Error: "
    shown = folded_text(f"{before}{error.format_message()}", err=True).removeprefix(before)
    error.format_message = lambda: shown
    return error


class _Commands(TyperGroup):
    """The commands, and the handling of their errors: a message of one line and an exit code."""

    def make_context(self, *values: Any, **named: Any) -> Any:
        """Parse the options before the command and return the context."""
        try:
            return super().make_context(*values, **named)
        except _UsageError as error:
            raise _shown(error) from error.__cause__

    def invoke(self, ctx: Any) -> Any:
        """Call the requested command and return its result."""
        is_debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if ctx.invoked_subcommand != "run":  # the display of a run has begun a new line
                with interrupt_ends():
                    raise
            raise typer.Exit(_INTERRUPTED) from None
        except _UsageError as error:
            if is_debug and error.__cause__ is not None:
                raise error.__cause__ from None
            raise _shown(error) from error.__cause__
        except DKISTProcessingCoreError as error:
            if is_debug:
                raise
            if is_json():
                logger.error("%s", without_secrets(str(error), None))  # noqa: TRY400 - as one line of text
                raise typer.Exit(1) from None
            from dkist_processing_core.text.console import print_text  # noqa: PLC0415 - as above

            print_text(without_secrets(f"error: {error}", None), err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="dkist-core",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    # A traceback with values of variables would show secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class VisibleFormatter(logging.Formatter):
    """A formatter that escapes log records, exceptions included, and folds them for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as escaped text."""
        from dkist_processing_core.text.console import folded_text  # noqa: PLC0415 - as above

        return folded_text(visible(super().format(record)), err=True)


class _ErrorStream(logging.StreamHandler[Any]):
    """The error stream, which a handler of a consumer may have closed: a line of the log that is lost ends nothing."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a name of logging
        """Report a line that cannot be written, if that is possible."""
        with contextlib.suppress(ValueError):
            super().handleError(record)


def main() -> None:
    """Run the command line, and log warnings to the standard error stream."""
    fill_standard_descriptors()
    output.replace_closed_output()
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # This was inherited from the process that started this one: the exit status of every child would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A shell that completes a word shows the error stream between the person's words.
    handler = logging.NullHandler() if _COMPLETE in os.environ else _ErrorStream()
    with contextlib.suppress(DKISTProcessingCoreError):
        # A wrong setting is reported by a command that uses it.
        handler.setFormatter(formatter(VisibleFormatter("%(levelname)s %(name)s: %(message)s")))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for stream in (sys.stdout, sys.stderr):
        # Characters that are not in the encoding of the terminal become question marks.
        if stream is not None and not (stream.encoding or "").lower().startswith("utf"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    status: Any = 1
    try:
        app(prog_name="dkist-core")
    except SystemExit as end:
        # click ends with 1, which is also the status of a failure.
        status = output.READER_ENDED if isinstance(end.__context__, BrokenPipeError) else end.code
    except Exception as error:  # noqa: BLE001 - an error of a file or a stream, an unexpected one, or any with --debug
        if isinstance(error, OSError) and not _is_debug(sys.argv[1:]):
            output.report(error)
        else:
            with contextlib.suppress(OSError):
                write_line(without_secrets(traceback.format_exc().rstrip(), None), err=True)
    sys.exit(output.end_output(status))


def _is_debug(arguments: list[str]) -> bool:
    """Return whether `--debug` is among the options before the command; elsewhere the word is a name or a value."""
    return "--debug" in itertools.takewhile(lambda argument: argument.startswith("-"), arguments)


def _show_version(is_requested: bool) -> None:  # noqa: FBT001 - typer passes an option's value by position
    if is_requested:
        from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

        write_line(f"dkist-core {version('dkist-processing-core')}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Log information as well as warnings; a run also shows its bus and its processes."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the complete traceback of an error.")] = False,
) -> None:
    """
    Message-driven event observability for scientific workflow tasks.

    The bus is the RabbitMQ that MESH_CONFIG names as interservice-bus. If it names none, the bus is the embedded
    journal.
    """
    del version, debug  # the option's callback and `_Commands.invoke` handle them
    if verbose:
        logging.getLogger("dkist_processing_core").setLevel(logging.INFO)


app.command("run")(run)
app.command("timeline")(timeline)
app.command("stack")(stack)
app.command("consume")(consume)
app.add_typer(runs_app, name="runs", help="List runs, or show one with all its attempts.")
app.command("top")(top)
app.command("failures")(failures)
app.command("usage")(usage)
app.command("collect")(collect)
app.command("dashboard")(dashboard)
app.command("watch")(watch)
app.command("reconcile")(reconcile)
app.command("doctor")(doctor)
app.add_typer(notify_app, name="notify", help="Check and try the routes of notices, or mute failures.")
app.add_typer(events_app, name="events", help="Follow new events on the bus, or list past events.")
app.add_typer(topology_app, name="topology", help="Check, create or export exchanges and queues of RabbitMQ.")
app.add_typer(environments_app, name="environments", help="List, build or remove the environments in which tasks run.")
app.add_typer(workflows_app, name="workflows", help="Check, export or draw the workflows that a package defines.")
app.add_typer(outbox_app, name="outbox", help="List or deliver the messages that wait for a broker.")
app.add_typer(dead_letters_app, name="dead-letters", help="List, retry or discard what consumers have given up.")
