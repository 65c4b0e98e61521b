"""
`dkist-core environments build` and `prune`.

Not here: building and pruning themselves (environments).
"""

from functools import partial

import typer

from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.environments import Environments, Requirement, folder_of
from dkist_processing_core.environments.limits import Limits
from dkist_processing_core.errors import EnvironmentRequestError
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text import duration, size
from dkist_processing_core.text.console import print_text
from dkist_processing_core.text.terminal import one_line, write_line


def build(text: str, extras: list[str]) -> None:
    """Build an environment unless it exists, and print its folder."""
    try:
        parsed = Requirement.parse(text)
        requirement = Requirement(parsed.name, parsed.version, (*parsed.extras, *extras))
    except EnvironmentRequestError as error:
        raise typer.BadParameter(str(error)) from None
    settings = read_settings()
    environments = Environments(folder_of(), limits=partial(Limits.of, settings))
    with environments.prepare(requirement, on_output=lambda line: write_line(line, err=True)) as environment:
        did = f"built in {duration(environment.seconds)}" if environment.built else "exists already"
        lacking = [extra for extra in environment.record.get("lacking", ()) if extra in requirement.extras]
        # This is not an error, as in pip, but it must be visible to a user who reads only this line.
        less = f"; WITHOUT {', '.join(lacking)}: this release has no such extra" if lacking else ""
        print_text(without_secrets(f"{requirement}: {did}, {environment.folder}{less}", settings))


def prune(*, max_days: float | None, max_size: int | None, is_dry: bool) -> None:
    """Remove environments, and print each one and the total."""
    settings = read_settings()
    limits = Limits.of(settings)
    environments = Environments(folder_of())
    removed = environments.prune(
        max_age_days=limits.max_age_days if max_days is None else max_days,
        max_bytes=limits.max_bytes if max_size is None else max_size,
        dry_run=is_dry,
    )
    for entry in removed:
        text = f"{entry.requirement or entry.key}: {entry.reason}, {entry.path}"
        print_text(one_line(without_secrets(text, settings)))
    total = size(sum(entry.bytes or 0 for entry in removed))
    print_text(f"{'would be removed' if is_dry else 'removed'}: {len(removed):,}, in total {total}")
