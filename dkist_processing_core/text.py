"""
What happens to text before it leaves the process: cleaning, redaction, clipping; and a duration as text.

Not here: which fields are free text, which the event classes decide.
"""

import json
import operator
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
REDACTED = "[redacted]"
CUT = "[cut]"

_UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNCLEAN_IN_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Greedy up to the last @ before a delimiter: a password pasted into a URL unescaped may itself hold an @.
_USERINFO = re.compile(r"(?<=://)[^\s/?#]*@")
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY", re.IGNORECASE)
_SECRET_MIN_LENGTH = 6
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MOST_DAYS = 99_999


def clean(text: str) -> str:
    """Replace control characters (but newline and tab) and lone surrogates by U+FFFD."""
    return _UNCLEAN.sub(REPLACEMENT, text)


def clean_line(text: str) -> str:
    """Replace newlines and tabs too, which an attribute of a CloudEvent may not hold."""
    return _UNCLEAN_IN_LINE.sub(REPLACEMENT, text)


def is_secret_name(name: str) -> bool:
    """Say whether a variable of this name holds a secret, by the words that are usual for one."""
    return _SECRET_NAME.search(name) is not None


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Return the values in `environ` that must not be shown: 6 characters or more, under a secret's name."""
    return [value for name, value in environ.items() if len(value) >= _SECRET_MIN_LENGTH and is_secret_name(name)]


def redact(text: str, secrets: Iterable[str] | None = None, *, also: Iterable[str] = ()) -> str:
    """
    Blank out the user information of URLs and every secret.

    `secrets` defaults to those of this process's environment, looked up now, since a task may set some as it runs;
    `also` are more of them, as those of the settings.
    """
    return redactor(secrets, also=also)(text)


def redactor(secrets: Iterable[str] | None = None, *, also: Iterable[str] = ()) -> Callable[[str], str]:
    """Return what does as `redact`, for several texts: the secrets are looked up once."""
    known = _secrets_now() if secrets is None else secrets
    forms = _all_forms(frozenset((*known, *also)))

    def blank(text: str) -> str:
        for form in forms:
            text = text.replace(form, REDACTED)
        return _USERINFO.sub(f"{REDACTED}@", text) if "://" in text else text

    return blank


def _secrets_now() -> list[str]:
    """Return what `secrets_of` does for this process's environment, without decoding all of it for every event."""
    names = _secret_names(frozenset(os.environb))
    return [value for name in names if len(value := os.environ.get(name, "")) >= _SECRET_MIN_LENGTH]


@lru_cache(maxsize=8)
def _secret_names(names: frozenset[bytes]) -> list[str]:
    return [name for name in map(os.fsdecode, names) if is_secret_name(name)]


@lru_cache(maxsize=8)
def _all_forms(secrets: frozenset[str]) -> list[str]:
    # The longest first: a secret that contains another must not leave its own ends standing. URLs last: what they
    # hold of a secret would no longer be known as one.
    return sorted({form for secret in secrets for form in _forms(secret)}, key=lambda form: (-len(form), form))


def _forms(secret: str) -> set[str]:
    """The spellings in which a value reaches text: as it is, in a repr, in JSON, in a URL, and each of them cleaned."""
    shown = repr(secret)[1:-1]
    forms = {
        secret,
        shown,
        # As a part of a longer text whose repr is between single quotes.
        repr(f'"{secret}')[2:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        # A variable that is no UTF-8 holds surrogates.
        quote(secret, safe="", errors="surrogatepass"),
        quote(secret, errors="surrogatepass"),
        quote_plus(secret, errors="surrogatepass"),
    }
    return forms | {clean(form) for form in forms}


def show(value: object, length: int = 40) -> str:
    """Return the repr of a value in at most `length` characters, whatever the value is; it never raises."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxlong = brief.maxother = length
    brief.maxlevel = 2
    try:
        text = brief.repr(value)
    except Exception:  # noqa: BLE001 - a foreign __repr__ may raise anything, and an int of 4300 digits has none
        text = f"<{type(value).__name__}>"
    # As of a table of numbers: a sentence is one line.
    text = re.sub(r"\s*[\r\n]\s*", " ", text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def clip(text: str, fits: Callable[[str], bool], *, keep_end: bool = False) -> str:
    """
    Return the longest part of `text`, with a mark where it was cut, that `fits`; "" where not even the mark does.

    `fits` must be monotonic: what it says of a text, it says of every shorter part of it.
    """
    if fits(text):
        return text
    if not fits(_marked(text, 0, keep_end=keep_end)):
        return ""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_marked(text, middle, keep_end=keep_end)) else (low, middle - 1)
    return _marked(text, low, keep_end=keep_end)


def _marked(text: str, length: int, *, keep_end: bool) -> str:
    return f"{CUT}\n{text[len(text) - length :]}" if keep_end else f"{text[:length]}{CUT}"


def duration(seconds: float) -> str:
    """
    Return a duration in two units at most.

    >>> [duration(each) for each in (0.0123, 2.14, 12.36, 125, 8040, 273600)]
    ['12 ms', '2.1 s', '12.4 s', '2 min 05 s', '2 h 14 min', '3 d 4 h']
    """
    if seconds < 0.0995:  # noqa: PLR2004 - below it, one decimal of a second says too little
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    if whole > _MOST_DAYS * _DAY:
        return f"over {_MOST_DAYS} d"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def whole_number(value: object) -> int | None:
    """Return a number that counts something, of whatever class, as those of tables are; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type] # it says itself what it takes
    except Exception:  # noqa: BLE001 - a foreign class may raise anything
        return None
