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
        help="Include the queues of the subscription of this name. It receives one type of event, for example "
        "operators=task.failed, or the events of a routing pattern; by default all events. May be "
        "given more than once.",
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

    The command changes nothing. The exit code is 0 if nothing is missing or different, 3 if something is missing, which
    `apply` creates, and 1 if something is different or unknown, or the broker cannot be reached. Bindings between
    existing exchanges and queues do not count, since AMQP cannot query them.
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
    Create the exchanges, queues and bindings that are missing.

    Existing exchanges and queues are never changed or deleted. Bindings between them are declared again, since AMQP
    does not report which ones are missing. The exit code is 0 if everything exists afterwards, and 1 if something is
    different or unknown, could not be created, or the broker cannot be reached.
    """
    from dkist_processing_core.cli.topology.plan import show

    raise typer.Exit(show(consumers, making=True, in_json=as_json))


@topology_app.command("definitions")
def topology_definitions(
    *,
    consumers: Consumers = [],  # noqa: B006 - typer copies it
) -> None:
    """
    Write the topology as JSON for RabbitMQ.

    `rabbitmqctl import_definitions` reads it. Users and permissions are not included. No broker is queried: virtual
    host, names and limits come from the settings.
    """
    from dkist_processing_core.cli.topology.plan import show_definitions

    show_definitions(consumers)


@topology_app.command("asyncapi")
def topology_asyncapi() -> None:
    """
    Write the messages and their topology as AsyncAPI 3.0.

    Programs in other languages can be written or generated from it. No broker is queried: names and limits come from
    the settings.
    """
    from dkist_processing_core.cli.topology.plan import show_asyncapi

    show_asyncapi()
