"""
The instrumentation of the libraries that an author uses, by the instrumentors that are installed beside them.

An instrumentor imports its library. Therefore it is loaded only when that library is, or has been. Our own I/O makes no
spans: the journal uses the class of its connections, which no instrumentor replaces, the connection to the broker is of
a class that the instrumentor of pika does not know, and deliveries are marked (process.uninstrumented). Not here: the
providers that receive the spans (_providers).
"""

import contextlib
import functools
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redact
from dkist_processing_core.text.exception_text import class_name, message_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)
_GROUP = "opentelemetry_instrumentor"
_ALL = "*"
# Log records are exported already. This instrumentor would export each of them again, by a handler of the root logger
# that makes the author's `logging.basicConfig` useless.
_REPLACED = frozenset({"logging"})
# https://packaging.python.org/en/latest/specifications/dependency-specifiers/: the name of a requirement.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INSTRUMENTS = re.compile(r"extra\s*==\s*['\"]instruments(-any)?['\"]")


@contextlib.contextmanager
def instrumented_libraries(settings: Settings, *, is_wanted: bool) -> Iterator[None]:
    """
    Instrument each library for which an instrumentor is installed, now or as soon as it is imported.

    Afterwards libraries are as within the attempt around this one, or as before it; after the first one they stay as
    they are.

    Args:
        settings: They name instrumentors that are not used.
        is_wanted: False for a task that uses none of them.
    """
    # Every instrumentor requires it. Without it there is none, and the entry points need not be read.
    if find_spec("opentelemetry.instrumentation") is None:
        yield
        return
    disabled = _disabled(settings.otel_python_disabled_instrumentations or "") if is_wanted else [_ALL]
    before = _instrumentors.disabled
    _instrumentors.disable(frozenset(disabled), tuple(secrets_in(settings)))
    try:
        yield
    finally:
        if before is not None:
            _instrumentors.disable(before)


class _Instrumentors:
    """The instrumentors of this process. A hook of an import cannot be removed, so it asks which are disabled."""

    def __init__(self) -> None:
        self.disabled: frozenset[str] | None = None
        """The names of those that are not used; None before the first attempt."""
        self._secrets: tuple[str, ...] = ()
        self._imported: dict[str, EntryPoint] | None = None
        self._used: dict[str, Any] = {}
        self._failed: set[str] = set()

    def disable(self, disabled: frozenset[str], secrets: tuple[str, ...] = ()) -> None:
        """Use all instrumentors but these."""
        self.disabled, self._secrets = disabled, secrets or self._secrets
        if self._imported is None and _ALL not in disabled:
            self._imported = {}
            self._watch_imports()
            return
        for found in list((self._imported or {}).values()):
            self._apply(found)

    def _watch_imports(self) -> None:
        # wrapt is a requirement of opentelemetry-instrumentation.
        from importlib.metadata import entry_points  # noqa: PLC0415 - as the others, only where an instrumentor may be

        from wrapt import register_post_import_hook  # noqa: PLC0415 - as above

        for found in entry_points(group=_GROUP):
            if found.name in _REPLACED:
                continue
            note = functools.partial(self._note_import, found)
            libraries = _libraries_of(found)
            if libraries is None:
                note()
            for library in libraries or ():
                register_post_import_hook(note, library)

    def _note_import(self, found: "EntryPoint", _: object = None) -> None:
        if self._imported is not None:
            self._imported[found.name] = found
            self._apply(found)

    def _apply(self, found: "EntryPoint") -> None:
        names = {_ALL, found.name, re.sub("[-_]client$", "", found.name)}
        with signals_deferred():
            try:
                if self.disabled is None or not self.disabled.isdisjoint(names):
                    self._stop_using(found.name)
                elif found.name not in self._used and found.name not in self._failed:
                    self._use(found)
            except Exception as error:  # noqa: BLE001 - an instrumentor may raise anything
                self._failed.add(found.name)
                reason = redact(f"{class_name(type(error))}: {message_of(error)}", also=self._secrets)
                logger.warning("%s is not instrumented: %s", found.name, reason)

    def _use(self, found: "EntryPoint") -> None:
        instrumentor = found.load()()
        # The author may have done it.
        if instrumentor.is_instrumented_by_opentelemetry:
            return
        instrumentor.instrument()
        if instrumentor.is_instrumented_by_opentelemetry:
            self._used[found.name] = instrumentor
        else:
            # The instrumentor has logged that the version of the library is incompatible.
            self._failed.add(found.name)

    def _stop_using(self, name: str) -> None:
        instrumentor = self._used.pop(name, None)
        if instrumentor is not None and instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


_instrumentors = _Instrumentors()


def _disabled(text: str) -> Iterable[str]:
    """Return names separated by commas, or in the JSON list that 7.x required."""
    if text.lstrip().startswith("["):
        try:
            return [str(name) for name in json.loads(text)]
        except ValueError:
            text = re.sub(r"[\[\]\"']", "", text)
    return [name.strip() for name in text.split(",")]


def _libraries_of(found: "EntryPoint") -> list[str] | None:
    """Return the modules that an instrumentor is for; None for one that has no library, such as one of the system."""
    required = [each for each in (found.dist.requires or ()) if _INSTRUMENTS.search(each)] if found.dist else []
    names = [name[0] for each in required if (name := _NAME.match(each))]
    if not names:
        return [found.name] if found.name in sys.stdlib_module_names else None
    # A distribution may have several instrumentors, each for one of these libraries.
    return [module for name in names if found.name not in names or name == found.name for module in _modules_of(name)]


def _modules_of(name: str) -> list[str]:
    """Return the top-level modules of an installed distribution; none if it is not installed."""
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415 - as above

    try:
        listed = distribution(name).read_text("top_level.txt")
    except PackageNotFoundError:
        return []
    modules = [module for module in (listed or "").split() if not module.startswith("_")]
    return modules or [name.replace("-", "_").lower()]
