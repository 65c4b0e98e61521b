"""
`dkist-core doctor`: check whether events can leave this host, and advise if they cannot.

Not here: the single checks (doctor.journal, doctor.inboxes, doctor.archive, doctor.broker, doctor.consumers,
doctor.collectors).
"""

from collections.abc import Iterator, Sequence

from rich.text import Text

from dkist_processing_core.bus import open_bus, reason_for_bus
from dkist_processing_core.cli.doctor.archive import check_archive_of_journal
from dkist_processing_core.cli.doctor.check import Check, Status, ok, skipped, wrong
from dkist_processing_core.cli.doctor.collectors import check_collectors
from dkist_processing_core.cli.doctor.consumers import check_subscriptions
from dkist_processing_core.cli.doctor.inboxes import check_inboxes
from dkist_processing_core.cli.doctor.journal import check_journal
from dkist_processing_core.cli.draw.rows import rows
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings, variables_from_file
from dkist_processing_core.text import counted
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_json

_STYLES = {Status.OK: "green", Status.WRONG: "red", Status.SKIPPED: "dim"}
_MARKS = {Status.OK: "✓", Status.WRONG: "✗", Status.SKIPPED: "–"}  # noqa: RUF001 - an en dash is meant
_ASCII_MARKS = {Status.OK: "+", Status.WRONG: "x", Status.SKIPPED: "-"}
_NAME_CELLS = len("virtual host")


def examine(inboxes: Sequence[str], *, as_json: bool) -> bool:
    """
    Run every check, show each result at once, and return True if no check failed.

    Args:
        inboxes: The addresses of inboxes to check as well as that of the settings.
        as_json: Whether the results are written as JSON, at the end.
    """
    try:
        settings = read_settings()
    except ConfigurationError as error:
        settings, problem = None, str(error)
    else:
        problem = ""
    bus = None if settings is None else without_secrets(open_bus(settings).where, settings)
    reason = _reason(settings)
    checks = _checks(settings, problem, inboxes)
    if as_json:
        found = list(checks)
        is_well = all(check.status is not Status.WRONG for check in found)
        checks_json = [
            {"name": each.name, "status": each.status.value, "detail": each.detail, "advice": each.advice}
            for each in found
        ]
        report = {"ok": is_well, "bus": bus, "reason": reason, "checks": checks_json}
        write_json(report)
        return is_well
    return _show(checks, f"{bus}: {reason}" if bus else reason)


def _reason(settings: Settings | None) -> str:
    if settings is None:
        return "the settings cannot be read"
    return reason_for_bus(settings)


def _checks(settings: Settings | None, problem: str, inboxes: Sequence[str]) -> Iterator[Check]:
    for check in _unredacted(settings, problem, inboxes):
        yield check.without_secrets(settings)


def _unredacted(settings: Settings | None, problem: str, inboxes: Sequence[str]) -> Iterator[Check]:
    if settings is None:
        yield wrong("settings", problem, "correct the named variables; `config/example.env` explains each of them")
        return
    names = ", ".join(variables_from_file(settings))
    yield ok(
        "settings", f"read from the environment{f', and from {settings.core_origin.file}: {names}' if names else ''}"
    )
    yield from check_journal(settings, open_bus(settings))
    yield from check_inboxes(settings, inboxes)
    if settings.names_broker:
        from dkist_processing_core.cli.doctor.broker import check_broker  # noqa: PLC0415 - the journal needs no pika

        yield from check_broker(settings, inboxes)
    else:
        yield from check_archive_of_journal(open_bus(settings))
        yield from check_subscriptions(open_bus(settings))
        yield from _unused_account(settings)
    yield from check_collectors(settings)


def _unused_account(settings: Settings) -> Iterator[Check]:
    """Yield a note if the account of a broker is set, and no broker."""
    origin = settings.core_origin
    names = [name for name in ("ISB_USERNAME", "ISB_PASSWORD") if origin.environ.get(name) or origin.dotenv.get(name)]
    if names:
        yield skipped(
            "broker",
            f"not used: {' and '.join(names)} set, and MESH_CONFIG names no {ISB_SERVICE}; events stay on this host",
            f"to send them to a broker, name its address as {ISB_SERVICE} in MESH_CONFIG",
        )


def _show(checks: Iterator[Check], headline: str) -> bool:
    console = Terminal(highlight=False)
    console.print_line(Text.assemble(("bus  ", "dim"), headline), 5)
    console.print()
    total = found = without = 0
    for check in checks:
        for line in _lines(check, console):
            console.print(line, soft_wrap=True)
        total += check.status is not Status.SKIPPED
        found += check.status is Status.WRONG
        without += check.status is Status.SKIPPED
    console.print()
    verdict = f"{found} of {total} checks found a problem" if found else f"{counted(total, 'check')}, no problem"
    if found and without:
        verdict += f"; {without} without a result"
    console.print(Text.assemble((verdict, "bold red" if found else "bold green")))
    return not found


def _lines(check: Check, console: Terminal) -> Iterator[Text]:
    """Yield the printed lines of a check; on a terminal, long texts stay in their column."""
    mark = (_ASCII_MARKS if console.options.ascii_only else _MARKS)[check.status]
    style = _STYLES[check.status]
    head = Text.assemble((f"{mark} ", style), (f"{check.name:{_NAME_CELLS}}", "bold"), "  ")
    yield from rows(
        head, ((check.detail, "" if check.status is Status.OK else style), (check.advice or "", "")), console
    )
