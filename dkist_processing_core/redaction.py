"""
Secrets, taken out of a text before it leaves the process.

The standard library alone, since the program that starts a task of any release carries this source (bootstrap). A text
is redacted first and cut afterwards: what is left of a secret that was cut is not known as one. Not here: which texts
are redacted, which the event classes and the callers decide.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from urllib.parse import quote, quote_plus, unquote

REDACTED = "[redacted]"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
SECRET_MIN_LENGTH = 6
# A shorter one is too likely a part of a word; the broker's own password is long enough with four characters.
_LEAST = {"ISB_PASSWORD": 4}
# The password that every RabbitMQ has at first: a word, and no secret.
_PUBLIC = "guest"
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|PWD|OTLP_(?:\w+_)?HEADERS", re.IGNORECASE)
# The current folder and the one before.
_FOLDERS = frozenset({"PWD", "OLDPWD"})
_URL = r"://[^\s\"'`<>]*"
_END_OF_AUTHORITY = r"[/?#]"
# Greedy up to the last @ before a delimiter: a password pasted into a URL unescaped may itself hold an @, or a quote.
_USERINFO = r"(?<=://)[^\s/?#]*@"
# A user and a colon that no port follows: a password begins, and one that holds a quote may hold a delimiter too.
_USER = r"""://(?=[^\s/?#:@\["'`<>]*:(?!\d{1,5}(?:["'`<>/?#]|$)))"""
_WORD = r"\S+"
_PRIVATE_KEY = r"""(?sx)
        (-----BEGIN\ [A-Z0-9 ]{0,40}PRIVATE\ KEY(?:\ BLOCK)?-----)
        (?: (?:(?!-----).)*(?=-----END) | [\s\\"',]{0,9}[\w+/=]{16,} (?:[\s\\"',]{1,9}[\w+/=]{16,})*
            (?:(?:[\r\n]|\\n)[\w+/=]+)? )"""
# A name of at most 80 characters on either side keeps the search linear.
_PARAMETER = r"""(?ix)
        ([?&;\#]
        (?: [\w.~%-]{0,80}? (?:token|secret|passw|passphrase|credential|signature|api_?key|[-_]key) [\w.~%-]{0,80}
        | (?:[\w.~%-]{0,80}[-_])? (?:key|pass|pwd|sig|auth|jwt) )
        =) [^\s&;\#"'`<>]+"""
# As it is sent, in the repr of a dictionary or of a list of pairs, and in JSON within JSON; by any scheme, with a
# credential or with parameters to the end of the line.
_AUTHORIZATION = r"""(?ix)
        (authorization (?: \\*["'] \s{0,9} [:=,] | \s{0,9} [:=] ) \s{0,9} (?:b?\\*["'])?)
        (?: [^\s"',;\\]+ [\ \t]{1,9} [\w-]+ [\ \t]? = [\ \t]? \\*["']? [^\s"',;\\=)\]}] [^\r\n]*
        | (?: [^\s"',;\\]+ [\ \t]{1,9} )? [^\s"',;\\]+ )"""


@cache
def _pattern(expression: str) -> re.Pattern[str]:
    """Return an expression, compiled when a text needs it: few do, and this is a part of what starting a task costs."""
    return re.compile(expression)


def is_secret_name(name: str) -> bool:
    """Return True if a variable of this name holds a secret, by the words that are usual for one."""
    return _SECRET_NAME.search(name) is not None and name not in _FOLDERS


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Return the values in `environ` that must not be shown: 6 characters or more (ISB_PASSWORD 4), by their names."""
    return [secret for name, value in environ.items() if is_secret_name(name) for secret in _secrets_in(name, value)]


@lru_cache(maxsize=256)
def _secrets_in(name: str, value: str) -> tuple[str, ...]:
    """Return a value that is a secret, and each value of headers, `name=value` separated by commas, and of JSON."""
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
    """Yield the texts that JSON holds, as a file of credentials does: not their names, nor numbers."""
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
    Blank out every secret, and the user information, passwords and tokens that URLs and HTTP headers hold.

    `secrets` defaults to those of this process's environment, looked up now, since a task may set some as it runs;
    `also` are more of them, as those of the settings.
    """
    return redactor(secrets, also=also)(text)


def redactor(secrets: Iterable[str] | None = None, *, also: Iterable[str] = ()) -> Callable[[str], str]:
    """Return what does as `redact`, for several texts: the secrets are looked up once."""
    known = _secrets_now() if secrets is None else secrets
    forms = _all_forms(frozenset((*known, *also)))

    def blank(text: str) -> str:
        # The secrets before the URLs: what a URL holds of a secret would no longer be known as one.
        for form in forms:
            text = text.replace(form, REDACTED)
        # Most texts hold none of this, and a search for a constant is many times faster than an expression.
        if "://" in text and "@" in text:
            text = _pattern(_USERINFO).sub(f"{REDACTED}@", _pattern(_URL).sub(_without_userinfo, text))
            text = _pattern(_WORD).sub(_without_password, text)
        if "=" in text and ("?" in text or "&" in text or "#" in text):
            text = _pattern(_PARAMETER).sub(rf"\g<1>{REDACTED}", text)
        if "uthorization" in text or "UTHORIZATION" in text:
            text = _pattern(_AUTHORIZATION).sub(rf"\g<1>{REDACTED}", text)
        if "PRIVATE KEY" in text:
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
    """Return a word without what is between a user with a colon and the last @, quotes and delimiters included."""
    word = found[0]
    last = word.rfind("@")
    begin = _pattern(_USER).search(word, 0, last) if last > 0 else None
    return word if begin is None else f"{word[: begin.end()]}{REDACTED}{word[last:]}"


def _userinfo(text: str) -> list[tuple[int, int]]:
    """
    Return where user information begins and ends in a text from `://` on, which may hold more URLs.

    Behind `user:` it ends at the last @: a password pasted into a URL unescaped may hold a / or a ?.
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


def _secrets_now() -> list[str]:
    """Return what `secrets_of` does for this process's environment, without decoding all of it for every event."""
    names = _secret_names(frozenset(os.environb))
    return [secret for name in names for secret in _secrets_in(name, os.environ.get(name, ""))]


@lru_cache(maxsize=8)
def _secret_names(names: frozenset[bytes]) -> list[str]:
    return [name for name in map(os.fsdecode, names) if is_secret_name(name)]


@lru_cache(maxsize=8)
def _all_forms(secrets: frozenset[str]) -> list[str]:
    forms = {form for secret in secrets for form in (*_forms(secret), *_in_base64(secret))}
    # A line of a key is as much of a secret as all of it.
    forms |= {form for secret in secrets for line in _lines(secret) for form in _forms(line)}
    # The longest first: a secret that contains another must not leave its own ends standing.
    return sorted((form for form in forms if form not in REDACTED), key=lambda form: (-len(form), form))


def _lines(secret: str) -> set[str]:
    """Return the lines of a secret that has several, also where each ends in a backslash and an n."""
    lines = {line.strip() for part in secret.splitlines() for line in part.split("\\n")} - {secret}
    return {line for line in lines if len(line) >= SECRET_MIN_LENGTH}


def _forms(secret: str) -> set[str]:
    """Return the spellings of a value in a text: as it is, in a repr, in JSON, in a URL, and each of them cleaned."""
    shown = repr(secret)[1:-1]
    value = secret.encode(errors="surrogatepass")
    in_html = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
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
        ascii(secret)[1:-1],
        repr(value)[2:-1],
        repr(b'"' + value)[3:-1],
        # As html.escape and shlex.quote have it.
        in_html,
        in_html.replace('"', "&quot;").replace("'", "&#x27;"),
        secret.replace("'", "'\"'\"'"),
        value.hex(),
        value.hex().upper(),
    }
    return forms | {UNCLEAN.sub(REPLACEMENT, form) for form in forms}


def _in_base64(secret: str) -> Iterator[str]:
    """Yield what base64 makes of a value wherever it stands in what is encoded, as behind `user:`."""
    value = secret.encode(errors="surrogatepass")
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        # Without the characters that hold bits of what is before or behind.
        form = encoded[(before * 8 + 5) // 6 : (before + len(value)) * 8 // 6]
        if len(form) >= SECRET_MIN_LENGTH:
            yield from (form, form.replace("+", "-").replace("/", "_"))
