"""
Remove secrets from a text before it leaves the process.

It needs only the standard library, since the program that starts a task of any release carries this source (bootstrap).
A text is redacted first and cut afterwards: the rest of a cut secret would not be recognised. Not here: the choice of
the texts to redact, which the event classes and the callers make.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

REDACTED = "[redacted]"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
SECRET_MIN_LENGTH = 6
# A shorter value is too likely to be a part of a word. For the broker's password four characters are enough.
_LEAST = {"ISB_PASSWORD": 4}
# RabbitMQ's default password: an ordinary word, not a secret.
_PUBLIC = "guest"
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|PWD|OTLP_(?:\w+_)?HEADERS", re.IGNORECASE)
# The variables of the current and of the previous folder.
_FOLDERS = frozenset({"PWD", "OLDPWD"})
# Letters, digits and signs by their frequency in texts; all others are rarer.
_FROM_RARE_TO_COMMON = "QZXJKVYWqHUGBjMFOPLDNRCIASTEzx%9786543=v210kw'\"()[]:,-_/.ybgfpmucdlhrsniaote\n "
_URL = r"://[^\s\"'`<>]*"
_END_OF_AUTHORITY = r"[/?#]"
# Greedy up to the last @ before a delimiter: a password in a URL without escapes may itself hold an @ or a quote.
_USERINFO = r"(?<=://)[^\s/?#]*@"
# A user and a colon that no port follows: a password begins. A password with a quote may also hold a delimiter.
_USER = r"""://(?=[^\s/?#:@\["'`<>]*:(?!\d{1,5}(?:["'`<>/?#]|$)))"""
_WORD = r"\S+"
_PRIVATE_KEY = r"""(?sx)
        (-----BEGIN\ [A-Z0-9 ]{0,40}PRIVATE\ KEY(?:\ BLOCK)?-----)
        (?: (?:(?!-----).)*(?=-----END) | [\s\\"',]{0,9}[\w+/=]{16,} (?:[\s\\"',]{1,9}[\w+/=]{16,})*
            (?:(?:[\r\n]|\\n)[\w+/=]+)? )"""
# The limit of 80 characters for a name on either side keeps the search linear.
_PARAMETER = r"""(?ix)
        ([?&;\#]
        (?: [\w.~%-]{0,80}? (?:token|secret|passw|passphrase|credential|signature|api_?key|[-_]key) [\w.~%-]{0,80}
        | (?:[\w.~%-]{0,80}[-_])? (?:key|pass|pwd|sig|auth|jwt) )
        =) [^\s&;\#"'`<>]+"""
# The header as it is sent, in the repr of a dictionary or of a list of pairs, and in JSON within JSON; with any scheme,
# and with a credential or with parameters to the end of the line.
_AUTHORIZATION = r"""(?ix)
        (authorization (?: \\*["'] \s{0,9} [:=,] | \s{0,9} [:=] ) \s{0,9} (?:b?\\*["'])?)
        (?: [^\s"',;\\]+ [\ \t]{1,9} [\w-]+ [\ \t]? = [\ \t]? \\*["']? [^\s"',;\\=)\]}] [^\r\n]*
        | (?: [^\s"',;\\]+ [\ \t]{1,9} )? [^\s"',;\\]+ )"""


@cache
def _pattern(expression: str) -> re.Pattern[str]:
    """Return a regular expression, compiled on first use: few texts need it, and compiling slows a task's start."""
    return re.compile(expression)


def is_secret_name(name: str) -> bool:
    """Return True if a variable of this name holds a secret, judged by the usual words for secrets in its name."""
    return _SECRET_NAME.search(name) is not None and name not in _FOLDERS


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Return the secret values in `environ`, chosen by name, with at least 6 characters (ISB_PASSWORD 4)."""
    return [secret for name, value in environ.items() if is_secret_name(name) for secret in _secrets_in(name, value)]


@lru_cache(maxsize=256)
def _secrets_in(name: str, value: str) -> tuple[str, ...]:
    """Return a secret value, and each value inside it: of headers (`name=value` separated by commas), and of JSON."""
    return tuple(_each_secret_in(name.upper(), value))


def _each_secret_in(name: str, value: str) -> Iterator[str]:
    if len(value) >= _LEAST.get(name, SECRET_MIN_LENGTH) and value != _PUBLIC:
        yield value
    if value.lstrip()[:1] in {"{", "["}:
        yield from (text for text in _texts_of_json(value) if len(text) >= SECRET_MIN_LENGTH)
    if name.endswith("HEADERS"):
        for pair in value.split(","):
            header = unquote(pair.partition("=")[2].strip())
            yield from (each for each in {header, header.rpartition(" ")[2]} if len(each) >= SECRET_MIN_LENGTH)


def _texts_of_json(text: str) -> Iterator[str]:
    """Yield the strings in JSON, for example a file of credentials, without its keys and numbers."""
    try:
        rest = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while rest:
        match rest.pop():
            case str(found):
                yield found
            case dict(found):
                rest += found.values()
            case list(found):
                rest += found


def redact(text: str, secrets: Iterable[str] | None = None, *, also: Iterable[str] = ()) -> str:
    """
    Return the text without secrets, and without user information, passwords and tokens in URLs and HTTP headers.

    `secrets` defaults to those of this process's current environment, since a task may set some while it runs. `also`
    are additional secrets, for example those of the settings.
    """
    return redactor(secrets, also=also)(text)


def redactor(secrets: Iterable[str] | None = None, *, also: Iterable[str] = ()) -> Callable[[str], str]:
    """Return a function that redacts like `redact`, for several texts: it looks up the secrets at the first one."""
    forms: list[tuple[str, str]] | None = None

    def blank(text: str) -> str:
        nonlocal forms
        if forms is None:
            known = secrets_now() if secrets is None else secrets
            forms = _all_forms(frozenset((*known, *also)))
        # Redact the secrets before the URLs: the rest of a secret in a redacted URL would not be recognised.
        # Most texts hold nothing to redact. The search for a constant is many times faster than a regular expression,
        # and the search for one character is many times faster again: a rare one is searched for first.
        for rarest, form in forms:
            if rarest in text:
                text = text.replace(form, REDACTED)
        if "@" in text and "://" in text:
            text = _pattern(_USERINFO).sub(f"{REDACTED}@", _pattern(_URL).sub(_without_userinfo, text))
            text = _pattern(_WORD).sub(_without_password, text)
        if "=" in text and ("?" in text or "&" in text or "#" in text):
            text = _pattern(_PARAMETER).sub(rf"\g<1>{REDACTED}", text)
        if ("z" in text and "uthorization" in text) or ("Z" in text and "UTHORIZATION" in text):
            text = _pattern(_AUTHORIZATION).sub(rf"\g<1>{REDACTED}", text)
        if "K" in text and "PRIVATE KEY" in text:
            text = _pattern(_PRIVATE_KEY).sub(rf"\g<1>{REDACTED}", text)
        return text

    return blank


def userinfo_of(text: str) -> list[str]:
    """Return the user information of the URLs in a text."""
    return [url[start:end] for url in _pattern(_URL).findall(text) for start, end in _userinfo(url)]


def _without_userinfo(found: re.Match[str]) -> str:
    url, pieces, done = found[0], [], 0
    for start, end in _userinfo(url):
        pieces += [url[done:start], REDACTED]
        done = end
    return "".join([*pieces, url[done:]])


def _without_password(found: re.Match[str]) -> str:
    """Return a word without the text between `user:` and the last @, quotes and delimiters included."""
    word = found[0]
    last = word.rfind("@")
    begin = _pattern(_USER).search(word, 0, last) if last > 0 else None
    return word if begin is None else f"{word[: begin.end()]}{REDACTED}{word[last:]}"


def _userinfo(text: str) -> list[tuple[int, int]]:
    """
    Return the start and end of each user information in a text that begins with `://` and may hold more URLs.

    After `user:`, the user information ends at the last @: a password in a URL without escapes may hold a / or a ?.
    """
    found, start, last = [], text.find("://"), text.rfind("@")
    while 0 <= start < last:
        start += 3
        delimiter = _pattern(_END_OF_AUTHORITY).search(text, start)
        stop = delimiter.start() if delimiter else len(text)
        end = last if text.find(":", start, stop) >= 0 else text.rfind("@", start, stop)
        if end > start:
            found.append((start, end))
        start = text.find("://", max(stop, end))
    return found


_environment: tuple[dict[Any, Any], frozenset[str]] = {}, frozenset()


def secrets_now() -> frozenset[str]:
    """Return `secrets_of` this process's environment: the same object until the environment changes."""
    global _environment  # noqa: PLW0603 - a process has one
    before, secrets = _environment
    # The values behind `os.environ`, which decodes each: nearly every text is redacted in an environment as before.
    values = getattr(os.environ, "_data", os.environ)
    if values != before:
        now = dict(values)
        secrets = frozenset(secrets_of({os.fsdecode(name): os.fsdecode(value) for name, value in now.items()}))
        _environment = now, secrets
    return secrets


@lru_cache(maxsize=8)
def _all_forms(secrets: frozenset[str]) -> list[tuple[str, str]]:
    """Return the forms of all secrets, each with its rarest character."""
    forms = {form for secret in secrets for form in (*_forms(secret), *_in_base64(secret))}
    # A single line of a key is also secret.
    forms |= {form for secret in secrets for line in _lines(secret) for form in _forms(line)}
    # The longest come first: if a secret contains another one, its own ends must also be redacted.
    ordered = sorted((form for form in forms if form not in REDACTED), key=lambda form: (-len(form), form))
    return [(min(form, key=_FROM_RARE_TO_COMMON.find), form) for form in ordered]


def _lines(secret: str) -> set[str]:
    """Return the lines of a secret with several lines, which end in a line break or in a backslash and an n."""
    lines = {line.strip() for part in secret.splitlines() for line in part.split("\\n")} - {secret}
    return {line for line in lines if len(line) >= SECRET_MIN_LENGTH}


def _forms(secret: str) -> set[str]:
    """Return the spellings of a value in a text: unchanged, in a repr, in JSON, in a URL, and each of them cleaned."""
    shown = repr(secret)[1:-1]
    value = secret.encode(errors="surrogatepass")
    in_html = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    forms = {
        secret,
        shown,
        # The spelling in a longer text whose repr has single quotes.
        repr(f'"{secret}')[2:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        # A variable that is not valid UTF-8 holds surrogates.
        quote(secret, safe="", errors="surrogatepass"),
        quote(secret, errors="surrogatepass"),
        quote_plus(secret, errors="surrogatepass"),
        ascii(secret)[1:-1],
        repr(value)[2:-1],
        repr(b'"' + value)[3:-1],
        # The spellings of html.escape and shlex.quote.
        in_html,
        in_html.replace('"', "&quot;").replace("'", "&#x27;"),
        secret.replace("'", "'\"'\"'"),
        value.hex(),
        value.hex().upper(),
    }
    return forms | {UNCLEAN.sub(REPLACEMENT, form) for form in forms}


def _in_base64(secret: str) -> Iterator[str]:
    """Yield the base64 forms of a value for each position in the encoded text, for example after `user:`."""
    value = secret.encode(errors="surrogatepass")
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        # The characters that hold bits of the text before or after the value are left out.
        form = encoded[(before * 8 + 5) // 6 : (before + len(value)) * 8 // 6]
        if len(form) >= SECRET_MIN_LENGTH:
            yield from (form, form.replace("+", "-").replace("/", "_"))
