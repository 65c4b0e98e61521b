"""
Serve the dashboard until the user ends it.

Not here: the options (commands), and the dashboard itself (dashboard.service).
"""

from dkist_processing_core.cli import output
from dkist_processing_core.errors import ExtraMissingError
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import print_remark
from dkist_processing_core.text.terminal import interrupt_ends

_OF_EXTRA = frozenset({"alembic", "igraph", "jinja2", "psycopg", "sqlalchemy", "sse_starlette", "starlette", "uvicorn"})


def serve_until_ended(*, host: str, port: int) -> None:
    """
    Serve until SIGTERM or Ctrl-C.

    Raises:
        ExtraMissingError: A module that the extra `dashboard` installs is missing.
    """
    try:
        from dkist_processing_core.dashboard.service import Dashboard  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _OF_EXTRA:
            raise
        raise ExtraMissingError("dashboard", "the dashboard is served", str(error.name)) from error
    output.do_without_output()
    with interrupt_ends():
        Dashboard(read_settings(), host=host, port=port).run(
            lambda address: print_remark(f"the dashboard is at {address}; press Ctrl-C to end")
        )
