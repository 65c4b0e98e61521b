"""
`dkist-core environments`: the commands about the environments that tasks run in.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _bytes(text: str) -> int:
    """
    Return the number of bytes in a size such as 20GB; without a unit, the size is in bytes.

    >>> [_bytes(each) for each in ("0", "7000", "20GB", "1.5 tb")]
    [0, 7000, 20000000000, 1500000000000]
    """
    number = text.rstrip("bBkKmMgGtT ")
    factor = _UNITS.get(text[len(number) :].strip().upper() or "B")
    if factor is None or not number.isascii() or not number.replace(".", "", 1).isdigit():
        msg = f"found {text!r}, expected a number of bytes, or a size such as 500MB or 20GB"
        raise typer.BadParameter(msg)
    return int(float(number) * factor) if "." in number else int(number) * factor


environments_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@environments_app.command("list")
def environments_list(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write the list as JSON.")] = False,
) -> None:
    """
    List the environments of this host, most recently used first.

    Each environment holds one release and its dependencies. "in use": a process uses it. "superseded": a newer
    environment replaces it. "left over": the rest of a build or a removal that was killed. The command changes nothing.
    """
    from dkist_processing_core.cli.environments.listing import show

    show(in_json=as_json)


@environments_app.command("build")
def environments_build(
    requirement: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE==VERSION", help="The release, with extras in brackets if it needs any.", show_default=False
        ),
    ],
    *,
    extras: Annotated[
        list[str],
        typer.Option("--extra", metavar="EXTRA", help="An extra of the release; may be given more than once."),
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """
    Build the environment of a release in advance.

    Otherwise its first task builds it. An existing environment is not built again. The environment is for the Python
    that runs this command, and is installed from the indexes of pip's settings. The exit code is 0 if the environment
    exists afterwards, 1 if it could not be built, 2 if the argument does not name a release.
    """
    from dkist_processing_core.cli.environments.change import build

    build(requirement, extras)


@environments_app.command("prune")
def environments_prune(
    *,
    max_days: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="DAYS",
            help="Remove environments that were not used for this time; by default DKIST_CORE_ENVIRONMENTS_MAX_DAYS.",
            show_default=False,
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            parser=_bytes,
            metavar="SIZE",
            help="Then remove the least recently used ones until the rest fits into this size, for example 20GB; by "
            "default DKIST_CORE_ENVIRONMENTS_MAX_BYTES.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the environments that would be removed.")
    ] = False,
) -> None:
    """
    Remove environments that are old, superseded or left over.

    An environment in use is never removed. Of the others, the least recently used are removed first. Each build also
    removes environments in this way, with the limits of the settings.
    """
    from dkist_processing_core.cli.environments.change import prune

    prune(max_days=max_days, max_size=max_size, is_dry=dry_run)
