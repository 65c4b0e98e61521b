"""
The only way for text to a terminal: characters that could control the terminal, or be hidden in it, become escapes.

Names of files, stored reasons and texts of events come from outside. A test checks that the command line and the
display of a run write only through this module and the rich console made for it (console).
"""

import contextlib
import json
import re
import sys
from collections.abc import Iterator

# Control characters except newline and tab, including C1; controls of the writing direction; characters of zero width;
# separators of lines and paragraphs other than newline; tags; lone surrogates, as in file names that are not UTF-8.
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]"
)
_TWO_DIGITS, _FOUR_DIGITS = 0x100, 0x10000


def visible(text: str) -> str:
    r"""
    Return a text in which characters that a terminal would obey, or not show, are Python escapes.

    >>> print(visible("\x1b[31m \x9b1m \u202etxt.exe \u200b"))
    \x1b[31m \x9b1m \u202etxt.exe \u200b
    """
    return _UNSHOWN.sub(_escaped, text)


def visible_line(text: str) -> str:
    r"""
    Return a name as a part of one line, in which newlines and tabs are also escapes.

    >>> print(visible_line("outbox-a\nb\tc.db"))
    outbox-a\nb\tc.db
    """
    return visible(text).replace("\n", r"\n").replace("\t", r"\t")


def one_line(text: str) -> str:
    """Return the first line of a text that is not blank, with single spaces, escaped: suitable for a row."""
    return visible(next((evened for line in text.splitlines() if (evened := " ".join(line.split()))), ""))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < _TWO_DIGITS:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < _FOUR_DIGITS else f"\\U{code:08x}"


def visible_json(text: str) -> str:
    """Return equivalent JSON, with these characters as JSON escapes."""
    return _UNSHOWN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def write_line(text: str, *, err: bool = False) -> None:
    """
    Write a text and a newline to the standard output stream, or with `err` to the standard error stream.

    If the stream would raise an error for characters that are not in its encoding, these also become escapes. Without a
    stream, the function does nothing.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        return
    shown = visible(text) + "\n"
    if stream.errors == "strict":
        encoding = stream.encoding or "utf-8"
        shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(shown)
    stream.flush()


def write_json(value: object) -> None:
    """Write a value to the standard output stream, as indented JSON."""
    write_line(visible_json(json.dumps(value, indent=2, ensure_ascii=False)))


def write_json_line(body: bytes) -> None:
    """Write JSON unchanged as one line to the standard output stream, always in UTF-8."""
    sys.stdout.buffer.write(visible_json(body.decode()).encode() + b"\n")
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def interrupt_ends() -> Iterator[None]:
    """End the block at Ctrl-C, on a new line: a terminal shows it as `^C`, and a prompt would stand behind it."""
    try:
        yield
    except KeyboardInterrupt:
        if sys.stderr is not None and sys.stderr.isatty():
            write_line("", err=True)
