"""
`dkist-core topology`: the commands about exchanges and queues on RabbitMQ.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

topology_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

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
    from dkist_processing_core.cli.topology.plan import show

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
    from dkist_processing_core.cli.topology.plan import show

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
    from dkist_processing_core.cli.topology.plan import show_definitions

    show_definitions(consumers)
