"""
`dkist-core notify check` and `test`: the file of the routes, and a sample to one of their receivers.

Not here: reading the file (notify.routes), and reaching a receiver (notify.delivery).
"""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import typer

from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.errors import ConfigurationError, DKISTProcessingCoreError, ExtraMissingError
from dkist_processing_core.events import Reporter, TaskFailed
from dkist_processing_core.events.notice import NoticeGroup, NoticeIssued
from dkist_processing_core.notify.fields import Secret, is_url
from dkist_processing_core.notify.routes import Route, routes_in
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text import show
from dkist_processing_core.text.console import print_text


def check(path: Path | None) -> None:
    """
    Check the routes and their secrets, and list them.

    Raises:
        ConfigurationError: A field is wrong, or a secret is missing; each of them is named.
    """
    settings = read_settings()
    path = _path(path, settings)
    routes = routes_in(path)
    problems = []
    for name, route in routes.items():
        problems += [f"the route {name}: {problem}" for problem in _missing(route)]
        print_text(without_secrets(f"{name}: {', '.join(route.events)}, to {_receiver(route)}", settings))
    if problems:
        raise ConfigurationError(f"{path}: {'; '.join(problems)}")


def _missing(route: Route) -> Iterator[str]:
    """Yield what a route needs that is missing or cannot be used, without a secret."""
    unreadable = []
    for secret in route.secrets:
        try:
            secret.read()
        except ConfigurationError as error:
            unreadable.append(secret)
            yield str(error)
    url = None if route.webhook is None else route.webhook.url
    if isinstance(url, Secret) and url not in unreadable and not is_url(url.read()):
        yield "webhook.url: its secret is no address, expected one as https://host/path"
    ca = next((each.ca for each in (route.webhook, route.email) if each is not None), None)
    if ca is not None and not ca.is_file():
        yield f"ca: there is no file {ca}"
    if route.command is not None and shutil.which(route.command.argv[0]) is None:
        yield f"command.argv: there is no program {show(route.command.argv[0])}"


def send_sample(name: str, path: Path | None) -> None:
    """
    Send a sample notice to the receiver of a route.

    Raises:
        DKISTProcessingCoreError: It was not delivered.
    """
    try:
        from dkist_processing_core.notify.delivery import send  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise ExtraMissingError("consumer", "notices are sent", str(error.name)) from error
    settings = read_settings()
    path = _path(path, settings)
    routes = routes_in(path)
    if name not in routes:
        raise typer.BadParameter(f"there is no route {name!r} in {path}, expected one of {', '.join(routes)}")
    try:
        answer = send(routes[name], sample_notice(name, datetime.now(UTC)))
    except DKISTProcessingCoreError as error:
        raise DKISTProcessingCoreError(f"the route {name}: {error}") from error
    print_text(without_secrets(f"the route {name} has a sample: {answer}, {_receiver(routes[name])}", settings))


def sample_notice(route: str, now: datetime) -> NoticeIssued:
    """Return a notice about nothing that has occurred."""
    group = NoticeGroup(
        event=TaskFailed.name,
        summary="nothing has failed: this notice was sent by `dkist-core notify test`",
        count=1,
        total=1,
        began_at=now,
        first_at=now,
        last_at=now,
        workflows={"sample": ("1",)},
        tasks=("Sample",),
    )
    return NoticeIssued(
        time=now,
        reported_by=Reporter.WATCHER,
        workflow_name="sample",
        workflow_version="1",
        run_id="sample",
        route=route,
        series=f"sample {now.isoformat()}",
        sequence=1,
        kind="sample",
        count=1,
        groups=(group,),
    )


def _path(path: Path | None, settings: Settings) -> Path:
    if path is not None:
        return path
    if settings.dkist_core_notify is None:
        raise typer.BadParameter("found no file of routes; name one by --notify FILE or DKIST_CORE_NOTIFY")
    return settings.absolute(settings.dkist_core_notify)


def _receiver(route: Route) -> str:
    if route.webhook is not None:
        return f"a webhook in the form {route.webhook.format}"
    if route.email is not None:
        return f"{', '.join(route.email.recipients)} by {route.email.host}"
    assert route.command is not None
    return f"the command {route.command.argv[0]}"
