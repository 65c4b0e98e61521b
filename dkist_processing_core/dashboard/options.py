"""
The options of a dashboard, from the command line or else from the settings, checked before anything is opened.

Not here: what the roles may do (http.access), and the declarations of the settings (settings.declarations).
"""

import ipaddress
import logging
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from urllib.parse import urlsplit

from dkist_processing_core.dashboard.http.access import Network, Role, Rules
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.settings.interface import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_LEAST_CHARACTERS = 16
_OF_TRACES = frozenset({"trace_id", "span_id"})
_OF_LOGS = frozenset({"workflow", "version", "run_id", "task", "attempt"})
logger = logging.getLogger("dkist_processing_core.dashboard")


@dataclass(frozen=True, slots=True)
class Options:
    """Where a dashboard serves, whom, and where its pages lead."""

    host: str
    port: int
    rules: Rules
    trace_url: str | None
    log_url: str | None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names by which browsers may request pages, if everyone who reaches the dashboard may use it."""
        names = (self.host, *LOOPBACK_NAMES) if self.rules.is_open else ("*",)
        return tuple(f"[{name}]" if ":" in name else name for name in names)


def options(
    settings: Settings,
    *,
    host: str | None = None,
    port: int | None = None,
    is_read_only: bool = False,
    token_file: Path | None = None,
    read_token_file: Path | None = None,
    user_header: str | None = None,
    trusted_proxies: Iterable[str] = (),
    trace_url: str | None = None,
    log_url: str | None = None,
) -> Options:
    """
    Return the options; those that are left out have the values of the settings.

    Raises:
        ConfigurationError: A value is wrong, or all who reach another address than loopback could use the dashboard.
    """
    host = host or settings.dkist_core_dashboard_host
    files = {
        Role.OPERATOR: token_file or _absolute(settings, "dkist_core_dashboard_token_file"),
        Role.READER: read_token_file or _absolute(settings, "dkist_core_dashboard_read_token_file"),
    }
    tokens = {role: _token(file) for role, file in files.items() if file is not None}
    if len(set(tokens.values())) < len(tokens):
        raise ConfigurationError("found the same token for operators and for readers, expected two tokens")
    proxies = [*trusted_proxies] or (settings.dkist_core_dashboard_trusted_proxies or "").split(",")
    rules = Rules(
        tokens,
        user_header or settings.dkist_core_dashboard_user_header,
        tuple(_network(text.strip()) for text in proxies if text.strip()),
        is_read_only or settings.dkist_core_dashboard_read_only,
    )
    if rules.user_header is not None and not rules.trusted_proxies:
        msg = (
            f"found the user header {rules.user_header!r} without the addresses of the proxies that set it; name them "
            "by --trusted-proxy or DKIST_CORE_DASHBOARD_TRUSTED_PROXIES"
        )
        raise ConfigurationError(msg)
    if rules.is_open and not is_loopback(host):
        msg = (
            f"found the address {host!r}, which other hosts reach, and nothing that proves who requests a page; "
            "expected --token-file, or --user-header with --trusted-proxy"
        )
        raise ConfigurationError(msg)
    if rules.tokens and not is_loopback(host) and not rules.trusted_proxies:
        logger.warning(
            "the dashboard serves %s over plain HTTP, so tokens cross the network as clear text; serve it behind a "
            "reverse proxy with TLS, and name that by --trusted-proxy",
            host,
        )
    return Options(
        host,
        settings.dkist_core_dashboard_port if port is None else port,
        rules,
        _template(trace_url or settings.dkist_core_dashboard_trace_url, _OF_TRACES, "trace"),
        _template(log_url or settings.dkist_core_dashboard_log_url, _OF_LOGS, "log"),
    )


def is_loopback(host: str) -> bool:
    """Return True if only this host reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES


def _absolute(settings: Settings, name: str) -> Path | None:
    path: Path | None = getattr(settings, name)
    try:
        return None if path is None else settings.absolute(path)
    except LookupError as error:
        msg = f"{name.upper()}: {error}; expected the path of a file"
        raise ConfigurationError(msg) from error


def _token(file: Path) -> str:
    try:
        token, mode = file.read_text("utf-8").strip(), file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "it cannot be read") if isinstance(error, OSError) else "it is no UTF-8 text"
        msg = f"the token file {file} cannot be used: {reason}; expected a file with a token"
        raise ConfigurationError(msg) from None
    if len(token) < _LEAST_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        msg = (
            f"the token file {file} has no token of {_LEAST_CHARACTERS} or more ASCII characters without spaces; "
            "`openssl rand -hex 32` makes one"
        )
        raise ConfigurationError(msg)
    if mode & stat.S_IROTH:
        logger.warning("all users of this host may read the token file %s; chmod o-r it", file)
    return token


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        msg = f"found {text!r}, expected the address of a proxy or of its network, as 10.0.0.7 or 10.0.0.0/24"
        raise ConfigurationError(msg) from None


def _template(text: str | None, names: frozenset[str], of: str) -> str | None:
    """Return the template of an address after a check."""
    if not text:
        return None
    try:
        found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError:
        found = {text}
    if not found <= names or urlsplit(text).scheme not in {"http", "https"}:
        known = ", ".join(f"{{{name}}}" for name in sorted(names))
        msg = f"found the address of a {of} {text!r}, expected an http or https URL that may contain {known}"
        raise ConfigurationError(msg)
    return text
