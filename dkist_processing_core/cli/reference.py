"""
`docs/reference/cli.md`, generated from the output of `--help`.

Not here: the texts, which are in the commands themselves.
"""

from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

_WIDTH = 100
_HEAD = """\
# Command line

Generated from the output of `--help` by `python -m dkist_processing_core.cli.reference`; a test compares the two.

The exit code is 0 after a success, 1 after a failure or an error, 2 after a wrong call, and 130 after Ctrl-C. The texts
below name what differs. If the program that reads the output ends first, as in `dkist-core events list | head -1`, the
command ends without a message and with 141, as programs that SIGPIPE ends; a shell ignores this without `pipefail`.
"""


def reference(app: typer.Typer) -> str:
    """Return the page with the help of each command; a group comes before its commands."""
    return "\n".join([_HEAD, *_sections(get_command(app), "dkist-core", None)])


def _sections(command: Any, name: str, parent: Any) -> Iterator[str]:
    """Yield the sections of a command and of its subcommands, from click's objects."""
    options = command.context_settings | {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = command.context_class(command, info_name=name, parent=parent, **options)
    path = context.command_path
    yield f"## {path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    for each in getattr(command, "commands", {}).values():
        yield from _sections(each, each.name, context)


if __name__ == "__main__":
    from dkist_processing_core.cli.program import app

    print(reference(app), end="")  # noqa: T201 - its output is the file
