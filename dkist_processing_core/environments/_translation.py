"""
pip's settings from its variables and files, and their translation for uv, which does not read them.

Not here: which of them are part of an environment's key (_variables).
"""

# ruff: noqa: PTH110, PTH111 - paths are texts: importing pathlib takes longer than finding
import configparser
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dkist_processing_core.environments._variables import is_relevant, pip_files, uv_files, without_scheme
from dkist_processing_core.environments.limits import Limits

_SECTIONS = ("global", "install")
_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE = frozenset({"0", "false", "no", "off", "f", "n"})
# Settings that both programs have: pip's name, then uv's variable, and the names in uv's own files.
_ALIKE = (
    ("constraint", "UV_CONSTRAINT", {"constraint"}),
    ("build-constraint", "UV_BUILD_CONSTRAINT", {"build-constraint"}),
    ("trusted-host", "UV_INSECURE_HOST", {"insecure-host", "allow-insecure-host"}),
    ("uploaded-prior-to", "UV_EXCLUDE_NEWER", {"exclude-newer"}),
)
_OF_THE_SYSTEM = (("cert", "SSL_CERT_FILE"), ("client-cert", "SSL_CLIENT_CERT"), ("proxy", "ALL_PROXY"))
_BINARY = (
    ("only-binary", {"no-build", "no-build-package", "only-binary"}),
    ("no-binary", {"no-binary", "no-binary-package"}),
)

_KNOWN = frozenset(
    ["index-url", "extra-index-url", "no-index", "find-links", "pre", *(name for name, *_ in (*_ALIKE, *_BINARY))]
)


def pip_settings(environ: Mapping[str, str], files: Sequence[str] | None = None) -> dict[str, str]:
    """
    Return pip's settings for an installation, by option: variables before files, `install` before `global`.

    See https://pip.pypa.io/en/stable/topics/configuration/.
    """
    merged: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for path in pip_files(environ) if files is None else files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeError):
            # pip itself reports such a file; here only readable files count.
            continue
        for section in _SECTIONS:
            if parser.has_section(section):
                merged[section] |= {_option(name): value for name, value in parser.items(section) if value}
    variables = {_option(name[4:]): value for name, value in environ.items() if name.startswith("PIP_") and value}
    return merged["global"] | merged["install"] | variables


def site_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings of this process's environment, which the pip of another environment does not read."""
    site = f"{sys.prefix}/pip.conf"
    return pip_settings({}, [site]) if site in pip_files(environ) else {}


def timeout_and_retries(pip: Mapping[str, str], environ: Mapping[str, str], limits: Limits) -> tuple[str, str]:
    """Return a request's timeout in seconds and its retries: from our settings, which are variables, or pip's files."""
    timeout, retries = str(limits.timeout), str(limits.retries)
    if not environ.get("PIP_TIMEOUT"):
        timeout = pip.get("default-timeout") or pip.get("timeout") or timeout
    if not environ.get("PIP_RETRIES"):
        retries = pip.get("retries") or retries
    return timeout, retries


def _option(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


class Translation:
    """The settings by which uv installs from the same sources as pip; the user's own settings of uv take precedence."""

    def __init__(self, environ: Mapping[str, str], pip: Mapping[str, str], limits: Limits) -> None:
        """Translate; URLs are passed in variables, since every user of the host can read a command line."""
        self._environ = environ
        self._own = _own(environ)
        self.variables: dict[str, str] = {}
        self.options: list[str] = []
        self.warnings: list[str] = []
        self._indexes(pip)
        self._find_links(pip)
        self._alike(pip)
        self._ways(pip, limits)
        lost = [name for name in pip if is_relevant(f"PIP_{name}") and name not in _KNOWN and not _is_false(pip[name])]
        if lost:
            self.warnings.append(f"without effect, since uv installs and not pip: {', '.join(sorted(lost))}")

    def _lacks(self, names: set[str]) -> bool:
        return self._own.isdisjoint(names)

    def _indexes(self, pip: Mapping[str, str]) -> None:
        if "index-url" in pip and self._lacks({"index-url", "default-index"}):
            self.variables["UV_INDEX_URL"] = _url(pip["index-url"])
        if "extra-index-url" in pip and self._lacks({"index", "extra-index-url"}):
            self.variables["UV_EXTRA_INDEX_URL"] = " ".join(map(_url, pip["extra-index-url"].split()))
        # pip takes the best version of all its indexes; by default, uv takes those of the first index that has the
        # name.
        if self.variables and self._lacks({"index-strategy"}):
            self.variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        if _is_true(pip.get("no-index")) and self._lacks({"no-index"}):
            self.options.append("--no-index")

    def _find_links(self, pip: Mapping[str, str]) -> None:
        if "find-links" not in pip or not self._lacks({"find-links"}):
            return
        found = []
        for place in pip["find-links"].split():
            path = os.path.expanduser(without_scheme(place))
            if "://" in path or os.path.exists(path):
                found.append(_without_commas(place if "://" in place else path))
            else:
                # uv would fail here.
                self.warnings.append(f"find-links: there is no {place}")
        if found:
            self.variables["UV_FIND_LINKS"] = ",".join(found)

    def _alike(self, pip: Mapping[str, str]) -> None:
        for name, variable, names in _ALIKE:
            if name in pip and self._lacks(names):
                self.variables[variable] = " ".join(pip[name].split())
        for name, variable in _OF_THE_SYSTEM:
            if name in pip and not self._environ.get(variable):
                self.variables[variable] = pip[name]
        for name, names in _BINARY:
            if name in pip and self._lacks(names):
                self.options += [f"--{name}={each}" for each in pip[name].replace(",", " ").split()]
        if _is_true(pip.get("pre")) and self._lacks({"prerelease"}):
            self.variables["UV_PRERELEASE"] = "allow"
        if pip.get("keyring-provider") == "subprocess" and self._lacks({"keyring-provider"}):
            self.variables["UV_KEYRING_PROVIDER"] = "subprocess"

    def _ways(self, pip: Mapping[str, str], limits: Limits) -> None:
        timeout, retries = timeout_and_retries(pip, self._environ, limits)
        if self._lacks({"http-timeout", "request-timeout"}):
            self.variables["UV_HTTP_TIMEOUT"] = timeout
        if self._lacks({"http-retries"}):
            self.variables["UV_HTTP_RETRIES"] = retries
        # By default its files are those of uv's cache under a second name: damage to one would damage every
        # environment, and the cache from which a new one is built.
        if self._lacks({"link-mode"}):
            self.variables["UV_LINK_MODE"] = "copy"


def _own(environ: Mapping[str, str]) -> set[str]:
    """Return the names of the user's own settings of uv."""
    found = {_option(name[3:]) for name, value in environ.items() if name.startswith("UV_") and value}
    for path in uv_files(environ):
        try:
            settings: dict[str, Any] = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        for names in (settings, settings.get("pip", {})):
            found |= set(names) if isinstance(names, dict) else set()
            # In a file, all indexes are listed under one name, including the default index.
            found |= {"index-url", "extra-index-url"} if "index" in names else set()
    return found


def _url(place: str) -> str:
    return place if "://" in place else Path(os.path.expanduser(place)).absolute().as_uri()


def _without_commas(place: str) -> str:
    """Return a place for a list separated by commas; its own commas are escaped in a URL, for a path in a file URL."""
    return place if "," not in place else _url(place).replace(",", "%2C")


def _is_false(value: str) -> bool:
    return value.strip().lower() in _FALSE


def _is_true(value: str | None) -> bool:
    return (value or "").strip().lower() in _TRUE
