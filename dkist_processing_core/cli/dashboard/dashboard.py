"""
Serve the dashboard until the user ends it.

Not here: the options (commands), and the dashboard itself (dashboard.service).
"""

import gc
from typing import Any

from dkist_processing_core.cli import output
from dkist_processing_core.cli.dashboard.ending import end_in_time
from dkist_processing_core.errors import ExtraMissingError
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import print_remark
from dkist_processing_core.text.terminal import interrupt_ends

_OF_EXTRA = frozenset(
    {"alembic", "h11", "igraph", "jinja2", "psycopg", "sqlalchemy", "sse_starlette", "starlette", "uvicorn"}
)


def serve_until_ended(store: str | None, **options: Any) -> None:
    """
    Serve until SIGTERM or Ctrl-C.

    Args:
        store: The address of the store, if it is not the one of the settings.
        options: The options of `dashboard.options.options`.

    Raises:
        ConfigurationError: An option is wrong.
        ExtraMissingError: A module that the extra `dashboard` installs is missing.
    """
    try:
        from dkist_processing_core.dashboard.service import Dashboard  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _OF_EXTRA:
            raise
        raise ExtraMissingError("dashboard", "the dashboard is served", str(error.name)) from error
    origin = Origin.of_process()
    if store is not None:
        origin.environ["DKIST_CORE_INBOX"] = store
    dashboard = Dashboard(read_settings(origin), **options)
    output.do_without_output()
    # The modules stay until the process ends: a collection that visits them takes as long as rendering a page.
    gc.freeze()
    end_in_time(dashboard.ending())
    with interrupt_ends():
        dashboard.run(lambda address: print_remark(f"the dashboard is at {address}; press Ctrl-C to end"))
