"""
`dkist-core dead-letters`: the commands about messages that consumers have given up.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

dead_letters_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Consumers = Annotated[
    list[str],
    typer.Option(
        "--consumer",
        metavar="NAME",
        help="Only the dead letters of this consumer or subscription; may be given more than once. A subscription on "
        "RabbitMQ that keeps no inbox must be named, since a broker does not list its queues.",
    ),
]
Inbox = Annotated[
    str | None,
    typer.Option(
        "--inbox",
        metavar="URL",
        help="The database of the inboxes, if it is not the one of the settings.",
        show_default=False,
    ),
]
Archived = Annotated[bool, typer.Option("--archived", help="The dead letters that were archived.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="The ids of dead letters or of groups, from `list`.", show_default=False),
]
Every = Annotated[bool, typer.Option("--all", help="All dead letters, or all of the named consumers.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


@dead_letters_app.command("list")
def dead_letters_list(
    group: Annotated[
        str | None,
        typer.Argument(metavar="GROUP", help="The id of a group: list its dead letters.", show_default=False),
    ] = None,
    *,
    consumers: Consumers = [],  # noqa: B006 - typer copies it
    inbox: Inbox = None,
    archived: Archived = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="List the newest N dead letters of a group.")] = 20,
    as_json: AsJson = False,
) -> None:
    """
    List dead letters in groups of equal failures.

    Each group has its count. Dead letters are in the inboxes of consumers, in the queues NAME.dlq of RabbitMQ, or in
    the embedded journal. With the id of a group, its dead letters are listed. Nothing is changed. On RabbitMQ, the
    messages of a queue are received and returned.
    """
    from dkist_processing_core.cli.dead_letters.listing import show_groups, show_letters

    if group is None:
        show_groups(consumers, inbox, archived=archived, in_json=as_json)
    else:
        show_letters(group, consumers, inbox, archived=archived, limit=limit, in_json=as_json)


@dead_letters_app.command("show")
def dead_letters_show(
    name: Annotated[str, typer.Argument(metavar="ID", help="The id of a dead letter, from `list`.")],
    *,
    consumers: Consumers = [],  # noqa: B006 - typer copies it
    inbox: Inbox = None,
    as_json: AsJson = False,
) -> None:
    """
    Show one dead letter with its failure and its message.

    Its stack and its earlier failures are shown, too.
    """
    from dkist_processing_core.cli.dead_letters.details import show

    show(name, consumers, inbox, in_json=as_json)


def _add_change(action: str, help_text: str) -> None:
    """Add a command that changes dead letters without a question."""

    def command(
        names: Names = None,
        *,
        every: Every = False,
        consumers: Consumers = [],  # noqa: B006 - typer copies it
        inbox: Inbox = None,
        as_json: AsJson = False,
    ) -> None:
        _change(action, names, consumers, inbox, every=every, as_json=as_json)

    dead_letters_app.command(action, help=help_text)(command)


_add_change(
    "retry",
    """
    Have dead letters handled once more by their consumers.

    A retried dead letter keeps its history. On RabbitMQ it leaves its queue only after the broker has confirmed that
    the consumer's queue has it. The exit code is 1 if some could not be retried, 2 if an id is unknown; then nothing is
    changed.
    """,
)


@dead_letters_app.command("discard")
def dead_letters_discard(
    names: Names = None,
    *,
    every: Every = False,
    consumers: Consumers = [],  # noqa: B006 - typer copies it
    inbox: Inbox = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Remove dead letters for good.

    The command asks for confirmation if a group or all are named. Later events of a run that waited for a discarded one
    are handled.
    """
    _change("discard", names, consumers, inbox, every=every, as_json=as_json, is_agreed=yes)


_add_change(
    "archive",
    """
    Put dead letters away until they are restored.

    `list --archived` shows them. On RabbitMQ they are moved to the queue NAME.dla. The embedded journal removes
    archived dead letters after seven days, as it does with the others.
    """,
)
_add_change("restore", "Bring archived dead letters back.")


def _change(
    action: str,
    names: list[str] | None,
    consumers: list[str],
    inbox: str | None,
    *,
    every: bool,
    as_json: bool,
    is_agreed: bool = True,
) -> None:
    if every == bool(names):
        raise typer.BadParameter("expected either the ids of dead letters or groups, from `list`, or --all")
    from dkist_processing_core.cli.dead_letters.change import change

    raise typer.Exit(change(action, names or [], consumers, inbox, in_json=as_json, is_agreed=is_agreed))
