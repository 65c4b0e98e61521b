"""
The one door through which text goes to a terminal: what could steer it, or hide in it, is written as an escape.

Names of files, stored reasons and texts of events come from outside. A test holds that the command line and the display
of a run write by this module and the console of rich's made for it (console), and by nothing else.
"""

import json
import re
import sys

# Control characters but newline and tab, of C1 too; what sets the direction of writing; what takes no place; ends of
# lines and paragraphs that are no newline; tags; lone surrogates, as in the names of files that are no UTF-8.
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]"
)
_TWO_DIGITS, _FOUR_DIGITS = 0x100, 0x10000


def visible(text: str) -> str:
    r"""
    Return a text with what a terminal would obey, or not show, as an escape of Python's.

    >>> print(visible("\x1b[31m \x9b1m \u202etxt.exe \u200b"))
    \x1b[31m \x9b1m \u202etxt.exe \u200b
    """
    return _UNSHOWN.sub(_escaped, text)


def visible_line(text: str) -> str:
    r"""
    Return a name as a part of one line: with newlines and tabs as escapes too.

    >>> print(visible_line("outbox-a\nb\tc.db"))
    outbox-a\nb\tc.db
    """
    return visible(text).replace("\n", r"\n").replace("\t", r"\t")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < _TWO_DIGITS:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < _FOUR_DIGITS else f"\\U{code:08x}"


def visible_json(text: str) -> str:
    """Return JSON that states the same, with these characters as escapes of JSON's."""
    return _UNSHOWN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def say(text: str, *, err: bool = False) -> None:
    """
    Write a text and a newline to the standard output stream, or with `err` to the standard error stream.

    What the stream's encoding lacks is an escape too, where it would raise; without a stream nothing is done.
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


def say_json(value: object) -> None:
    """Write a value to the standard output stream, as indented JSON."""
    say(visible_json(json.dumps(value, indent=2, ensure_ascii=False)))


def say_json_line(body: bytes) -> None:
    """Write JSON to the standard output stream as it is, in UTF-8 whatever the stream's encoding, on a line."""
    sys.stdout.buffer.write(visible_json(body.decode()).encode() + b"\n")
    sys.stdout.buffer.flush()
