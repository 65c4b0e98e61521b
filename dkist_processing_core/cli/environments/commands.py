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
        msg = f"found {text!r}, expected bytes, or a size as 500MB or 20GB"
        raise typer.BadParameter(msg)
    return int(float(number) * factor) if "." in number else int(number) * factor


environments_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@environments_app.command("list")
def environments_list(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write the list as JSON.")] = False,
) -> None:
    """
    List the environments of this host, that used last first.

    Each holds one release and what it needs. In use are those that a process holds; superseded is what a newer one has
    replaced; left over is what remains of a build that was killed. Nothing is changed.
    """
    from dkist_processing_core.cli.environments.listing import show

    show(in_json=as_json)


@environments_app.command("build")
def environments_build(
    requirement: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE==VERSION", help="The release, extras in brackets if need be.", show_default=False
        ),
    ],
    *,
    extras: Annotated[
        list[str],
        typer.Option("--extra", metavar="EXTRA", help="An extra of the release; may be given more than once."),
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """
    Build the environment of a release before its first task does.

    Nothing is built where it is there already. It is for the Python that runs this command, from the indexes that pip's
    settings name. The exit code is 0 if it is there then, 1 if it could not be built, 2 if no release is named so.
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
            help="Remove what was not used for so long; by default DKIST_CORE_ENVIRONMENTS_MAX_DAYS.",
            show_default=False,
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            parser=_bytes,
            metavar="SIZE",
            help="Of the others, keep what fits, as 20GB; by default DKIST_CORE_ENVIRONMENTS_MAX_BYTES.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
) -> None:
    """
    Remove environments that are old, too many or left over.

    Never one in use, and of the others those first that were not used for longest. Each build does the same with the
    limits of the settings.
    """
    from dkist_processing_core.cli.environments.change import prune

    prune(max_days=max_days, max_size=max_size, is_dry=dry_run)
