"""
The log of internal errors, which are errors of this package itself: with their stack and without secrets.

Not here: the reaction to such an error (delivery, bus).
"""

import logging
from collections.abc import Iterable

from dkist_processing_core.text.exception_text import qualified_name, stack_of
from dkist_processing_core.text.redaction import redact

logger = logging.getLogger(__name__)
_logged: set[tuple[str, str]] = set()


def log_internal_error(consequence: str, error: Exception, *, secrets: Iterable[str] = ()) -> None:
    """Log an error of this package with its consequence, redacted."""
    stack = redacted_stack(error, secrets=secrets)
    logger.error("%s: an error of this package\n%s", consequence, stack)


def log_internal_error_once(consequence: str, error: Exception) -> None:
    """Log an error of this package, unless this process has logged one of this type with this consequence before."""
    key = consequence, qualified_name(type(error))
    if key not in _logged:
        _logged.add(key)
        log_internal_error(consequence, error)


def redacted_stack(error: Exception, *, secrets: Iterable[str] = ()) -> str:
    """Return the traceback of an error without secrets."""
    return redact(stack_of(error), also=secrets)
