"""
The lines of a log: readable ones for a terminal, or with `DKIST_CORE_LOG_FORMAT=json` one JSON object for each record.

Not here: the handlers that write them, which each kind of process has (by_hand, of_task, launcher, cli).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from dkist_processing_core.logs.fields import IDENTITY, TRACE
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.text.redaction import redact, secrets_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VARIABLE, JSON, TEXT = "DKIST_CORE_LOG_FORMAT", "json", "text"
READABLE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def is_json() -> bool:
    """Return True if the settings of this process request JSON; a wrong value is reported where they are read."""
    return Origin.of_process().named(VARIABLE) == JSON


def formatter(readable: logging.Formatter, known: Mapping[str, Any] | None = None) -> logging.Formatter:
    """
    Return the formatter that the settings request.

    Args:
        readable: The one for readable lines.
        known: The fields of the attempt that this process is for, also on records before its start and after its end.
    """
    return JsonLines(known) if is_json() else readable


class JsonLines(logging.Formatter):
    """Formats each record as one line, with one JSON object, redacted."""

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        """Store the fields that a record has if it has no own ones, and the secrets of the settings."""
        super().__init__()
        self._known = dict(known or {})
        origin = Origin.of_process()
        self._secrets = [*secrets_of(origin.environ), *secrets_of(origin.file_values())]

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without the newline."""
        own = vars(record)
        fields = {name: own.get(name, self._known.get(name)) for name in (*IDENTITY, *TRACE)}
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._redacted(record.getMessage()),
        } | {name: value for name, value in fields.items() if value is not None}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        stack = "\n".join(filter(None, (record.exc_text, record.stack_info)))
        # Other characters than ASCII are escaped: the encoding of the stream is unknown.
        return json.dumps(line | ({"exception": self._redacted(stack)} if stack else {}), default=str)

    def _redacted(self, text: str) -> str:
        return redact(text, also=self._secrets)


def json_line(level: int, logger: str, message: str, known: Mapping[str, Any], exception: str | None = None) -> str:
    """
    Return a line about something that is no log record elsewhere, such as an exception that ends the process.

    Args:
        level: The level, as a number of `logging`.
        logger: The name of the part that reports it.
        message: The text.
        known: The fields of the attempt.
        exception: The text of an exception with its stack.
    """
    record = logging.LogRecord(logger, level, "", 0, message, None, None)
    record.exc_text = exception
    return JsonLines(known).format(record)
