"""
`dkist-core`, the command line: run a workflow, watch its events, draw its timeline, examine the bus.

Not here: the implementations of the commands. Each command imports its own when it is called, so that the other
commands start without it.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
import logging
import signal
import sys
import traceback
from datetime import timedelta
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dkist_processing_core.cli._environments import environments_app
from dkist_processing_core.cli._outbox import outbox_app
from dkist_processing_core.cli._workflows import workflows_app
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.process.exit_status import fill_standard_descriptors
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.text.terminal import say, visible

_INTERRUPTED = 130
_USAGE = 2


# The class of click, or of typer's own copy of click: the one in the same module as the usage errors.
_UsageError: Any = sys.modules[typer.BadParameter.__module__].ClickException


def _shown(error: Any) -> Any:
    """Return a usage error with its message redacted and escaped: typer shows the user's input unchanged."""
    error.message = visible(redact(str(error.message)))
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
            raise typer.Exit(_INTERRUPTED) from None
        except _UsageError as error:
            if is_debug and error.__cause__ is not None:
                raise error.__cause__ from None
            raise _shown(error) from error.__cause__
        except DKISTProcessingCoreError as error:
            if is_debug:
                raise
            say(redact(f"error: {error}"), err=True)
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
events_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(events_app, name="events", help="Watch what happens on the bus, or list what has happened.")


class VisibleFormatter(logging.Formatter):
    """A formatter that escapes log records, exceptions included, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as escaped text."""
        return visible(super().format(record))


def main() -> None:
    """Run the command line, and log warnings to the standard error stream."""
    fill_standard_descriptors()
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # Inherited from the process that started this one: the exit status of every child would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for stream in (sys.stdout, sys.stderr):
        # Characters in names and messages that the terminal's encoding lacks become question marks.
        if stream is not None and not (stream.encoding or "").lower().startswith("utf"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app(prog_name="dkist-core")
    except Exception:  # noqa: BLE001 - an error that nothing foresaw, or any with --debug
        say(redact(traceback.format_exc().rstrip()), err=True)
        sys.exit(1)


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer passes an option's value by position
    if asked:
        from importlib.metadata import version

        say(f"dkist-core {version('dkist-processing-core')}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, not warnings only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's whole traceback.")] = False,
) -> None:
    """
    Message-driven event observability for scientific workflow tasks.

    The bus is the RabbitMQ that MESH_CONFIG names as interservice-bus, and the embedded journal where it names none.
    """
    del version, debug  # each is handled elsewhere
    if verbose:
        logging.getLogger("dkist_processing_core").setLevel(logging.INFO)


def _recipe_run_id(text: str) -> int:
    from dkist_processing_core.errors import IdentityError
    from dkist_processing_core.identity import parse_recipe_run_id

    try:
        return parse_recipe_run_id(text)
    except IdentityError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:WORKFLOW",
            help="The workflow, by the module that holds it (or a script, as path/to/script.py) and its name there, "
            "which may be left out where there is only one.",
            show_default=False,
        ),
    ],
    *,
    recipe_run_id: Annotated[
        int,
        typer.Option(parser=_recipe_run_id, metavar="N", help="The recipe run to work for.", show_default=False),
    ],
    max_parallel: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many tasks may run at once; by default as many as there are processors."
        ),
    ] = None,
    environments: Annotated[
        bool,
        typer.Option(
            "--environments",
            help="Run each task in an environment that holds the release of the workflow's package and version.",
        ),
    ] = False,
) -> None:
    """
    Run a workflow on this host, a process for each task.

    The exit code is 0 if every task finished, 1 if the run failed, 2 if there is no such workflow, 130 after Ctrl-C.
    """
    from dkist_processing_core.cli._load import load_workflow

    result = load_workflow(target).run(recipe_run_id, max_parallel=max_parallel, environments=environments)
    if not result.succeeded:
        raise typer.Exit(1)


def _event_names(incomplete: str) -> list[str]:
    from dkist_processing_core.cli._events import event_names

    return [name for name in event_names() if name.startswith(incomplete)]


def _checked_types(names: list[str]) -> list[str]:
    if names:
        from dkist_processing_core.cli._events import checked_types

        checked_types(names)
    return names


Types = Annotated[
    list[str],
    typer.Option(
        "--type",
        metavar="EVENT",
        help="Show only this kind of event, as task.failed; may be given more than once.",
        callback=_checked_types,
        autocompletion=_event_names,
    ),
]
OfWorkflow = Annotated[str | None, typer.Option("--workflow", metavar="NAME", help="Show only this workflow.")]
OfTask = Annotated[str | None, typer.Option("--task", metavar="NAME", help="Show only this task.")]
AllReports = Annotated[
    bool, typer.Option("--all-reports", help="Show what every reporter says of a fact, instead of each fact once.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Write each event as JSON on one line, as it is on the bus.")]


@events_app.command("tail")
def events_tail(
    *,
    types: Types = [],  # noqa: B006 - typer copies it
    workflow: OfWorkflow = None,
    task: OfTask = None,
    all_reports: AllReports = False,
    as_json: AsJson = False,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Keep a place under this name: what happens while nobody follows is shown the next time.",
        ),
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Begin with the oldest event that the bus has.")] = False,
) -> None:
    """
    Show events as they happen, one on a line, until Ctrl-C.
    """
    from dkist_processing_core.cli._events import Filters, tail

    if name is not None and replay:
        raise typer.BadParameter("--replay begins at the beginning and --name where it left off: leave one of them out")
    tail(Filters(types, workflow, task, all_reports, as_json), name=name, replay=replay)


def _duration(text: str) -> timedelta:
    from dkist_processing_core.cli._events import parse_duration

    return parse_duration(text)


@events_app.command("list")
def events_list(
    *,
    types: Types = [],  # noqa: B006 - typer copies it
    workflow: OfWorkflow = None,
    task: OfTask = None,
    run_id: Annotated[str | None, typer.Option("--run", metavar="RUN_ID", help="Show only this run.")] = None,
    since: Annotated[
        timedelta | None,
        typer.Option(parser=_duration, metavar="DURATION", help="Show only what is younger, as 30m, 2h or 7d."),
    ] = None,
    all_reports: AllReports = False,
    as_json: AsJson = False,
) -> None:
    """
    List the events that the bus still has, the oldest first.

    The bus keeps them for up to seven days.
    """
    from dkist_processing_core.cli._events import Filters, show_list

    show_list(Filters(types, workflow, task, all_reports, as_json), since=since, run_id=run_id)


@app.command()
def timeline(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="RUN_ID", help="The run; by default the one that began last.", show_default=False),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write the run's state as JSON instead.")] = False,
) -> None:
    """
    Draw a run on an axis of time.

    Each attempt of a task has a bar: what it waited, was prepared and ran; failures have their cause below.
    """
    from dkist_processing_core.cli._runs import show_timeline

    show_timeline(run_id, as_json=as_json)


@app.command()
def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON.")] = False,
) -> None:
    """
    Check that events can leave this host.

    Looks at settings, journal, broker and collectors, sends a probe through the broker, and says what to do about what
    it finds. Exchanges and queues that are missing are made. The exit code is 1 if something is wrong.
    """
    from dkist_processing_core.cli._doctor import examine

    if not examine(as_json=as_json):
        raise typer.Exit(1)


topology_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(topology_app, name="topology", help="Show, make or export the exchanges and queues on RabbitMQ.")


Consumers = Annotated[
    list[str],
    typer.Option(
        "--consumer",
        metavar="NAME[=PATTERN]",
        help="Include the queues of the subscription of this name, for a kind of event, as operators=task.failed, or "
        "for a routing pattern; without one, for all events. May be given more than once.",
    ),
]


@topology_app.command("plan")
def topology_plan(
    *,
    consumers: Consumers = [],  # noqa: B006 - typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON.")] = False,
) -> None:
    """
    Show which exchanges and queues are missing or different.

    Nothing is changed. The exit code is 0 if nothing is to do, 3 if something is missing, which apply makes, and 1 if
    something is different, cannot be told, or the broker not be reached. Bindings of what is there do not count: AMQP
    cannot ask for them.
    """
    from dkist_processing_core.cli._topology import show

    raise typer.Exit(show(consumers, making=False, in_json=as_json))


@topology_app.command("apply")
def topology_apply(
    *,
    consumers: Consumers = [],  # noqa: B006 - typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON.")] = False,
) -> None:
    """
    Make the exchanges, queues and bindings that are missing.

    What exists is never changed or deleted. A binding between what was there is ensured: AMQP does not tell whether it
    was missing. The exit code is 0 if everything is there then, and 1 if something is
    different, could not be made or told, or the broker not be reached.
    """
    from dkist_processing_core.cli._topology import show

    raise typer.Exit(show(consumers, making=True, in_json=as_json))


@topology_app.command("definitions")
def topology_definitions(
    *,
    consumers: Consumers = [],  # noqa: B006 - typer copies it
) -> None:
    """
    Write them as JSON for `rabbitmqctl import_definitions`.

    Users and rights are left out. No broker is asked: virtual host, names and limits are those of the settings.
    """
    from dkist_processing_core.cli._topology import show_definitions

    show_definitions(consumers)


app.add_typer(environments_app, name="environments", help="Look after the environments that tasks run in.")
app.add_typer(workflows_app, name="workflows", help="Check, export or draw the workflows that a package defines.")
app.add_typer(outbox_app, name="outbox", help="Look after the messages that wait for their broker.")
