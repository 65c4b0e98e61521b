"""
Run the watcher with the files that a user names.

Not here: the options (commands), and the watcher itself (watch.service).
"""

from pathlib import Path

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli import output
from dkist_processing_core.errors import ConfigurationError, ExtraMissingError
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import print_remark
from dkist_processing_core.text.terminal import interrupt_ends


def watch_until_ended(
    *,
    expect: Path | None,
    notify: Path | None,
    idle_after: float,
    reconcile_every: float,
    health: str | None,
    listen: str | None,
) -> None:
    """
    Watch until SIGTERM or Ctrl-C.

    Raises:
        ConfigurationError: A file or a setting is wrong.
        ExtraMissingError: A module that the extra `consumer` installs is missing.
    """
    try:
        from dkist_processing_core.watch.expect import expected_in  # noqa: PLC0415 - they need an extra
        from dkist_processing_core.watch.service import Watcher  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("sqlalchemy", "alembic", "psycopg"):
            raise
        raise ExtraMissingError("consumer", "the watcher keeps its store", str(error.name)) from error
    settings = read_settings()
    expected_file = _chosen(expect, settings, "dkist_core_expect")
    watcher = Watcher(
        settings,
        expected=() if expected_file is None else expected_in(expected_file),
        routes=_chosen(notify, settings, "dkist_core_notify"),
        idle_after=idle_after,
        reconcile_every=reconcile_every,
    )
    output.do_without_output()
    print_remark(f"watching the runs of {open_bus(settings).where}; press Ctrl-C to end")
    with interrupt_ends():
        watcher.run(health=health, listen=listen)


def _chosen(given: Path | None, settings: Settings, setting: str) -> Path | None:
    """Return the file that a user names, or else that of a setting, which is meant in the folder of the settings."""
    path = getattr(settings, setting)
    if given is not None or path is None:
        return given
    try:
        return settings.absolute(path)
    except LookupError as error:
        msg = f"{setting.upper()}: {error}; expected the path of a file"
        raise ConfigurationError(msg) from error
