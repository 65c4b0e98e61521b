"""
What happens to text before it leaves the process: cleaning, redaction, clipping.

Not here: which fields are free text, which the event classes decide.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
REDACTED = "[redacted]"
CUT = "[cut]"

_UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Greedy up to the last @ before a delimiter: a password pasted into a URL unescaped may itself hold an @.
_USERINFO = re.compile(r"(?<=://)[^\s/?#]*@")
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY", re.IGNORECASE)
_SECRET_MIN_LENGTH = 6


def clean(text: str) -> str:
    """Replace control characters (but newline and tab) and lone surrogates by U+FFFD."""
    return _UNCLEAN.sub(REPLACEMENT, text)


def is_secret_name(name: str) -> bool:
    """Say whether a variable of this name holds a secret, by the words that are usual for one."""
    return _SECRET_NAME.search(name) is not None


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Return the values in `environ` that must not be shown: 6 characters or more, under a secret's name."""
    return [value for name, value in environ.items() if len(value) >= _SECRET_MIN_LENGTH and is_secret_name(name)]


def redact(text: str, secrets: Iterable[str] | None = None) -> str:
    """
    Blank out the user information of URLs and every secret.

    `secrets` defaults to those of this process's environment, looked up now, since a task may set some as it runs.
    """
    text = _USERINFO.sub(f"{REDACTED}@", text)
    found = {form for secret in (secrets_of(os.environ) if secrets is None else secrets) for form in _forms(secret)}
    # The longest first: a secret that contains another must not leave its own ends standing.
    for form in sorted(found, key=len, reverse=True):
        text = text.replace(form, REDACTED)
    return text


def _forms(secret: str) -> set[str]:
    """The spellings in which a value reaches text: as it is, in a repr, in JSON, in a URL, and cleaned."""
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""), clean(secret)}


def clip(text: str, fits: Callable[[str], bool], *, keep_end: bool = False) -> str:
    """
    Return the longest part of `text`, with a mark where it was cut, that `fits`; "" where not even the mark does.

    `fits` must be monotonic: what it says of a text, it says of every shorter part of it.
    """
    if fits(text):
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_marked(text, middle, keep_end=keep_end)) else (low, middle - 1)
    shortened = _marked(text, low, keep_end=keep_end)
    return shortened if fits(shortened) else ""


def _marked(text: str, length: int, *, keep_end: bool) -> str:
    return f"{CUT}\n{text[len(text) - length :]}" if keep_end else f"{text[:length]}{CUT}"
