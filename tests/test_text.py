"""Texts before they are published: cleaned, redacted, shortened."""

import json
import unicodedata
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dkist_processing_core.text import CUT, REDACTED, REPLACEMENT, clean, clean_line, clip, is_secret_name, redact, show
from tests.strategies import texts

CANARY = 'cänary\'s "p@ss/wörd" 100%\\'


@given(texts())
def test_cleaning_replaces_controls_and_lone_surrogates_and_nothing_else(text: str) -> None:
    """Each character is kept or replaced by U+FFFD, depending on its category."""
    expected = "".join(
        REPLACEMENT if unicodedata.category(each) in {"Cc", "Cs"} and each not in "\n\t" else each for each in text
    )

    assert expected == clean(text)


@given(texts())
def test_clean_text_is_utf8_and_stays_as_it_is(text: str) -> None:
    """A second cleaning changes nothing, and the result can be encoded."""
    cleaned = clean(text)

    assert cleaned.encode().decode() == clean(cleaned)


@given(texts())
def test_a_line_holds_no_control_character_at_all(text: str) -> None:
    """Newline and tab are replaced, too, since an attribute must not contain them."""
    assert clean(text).replace("\n", REPLACEMENT).replace("\t", REPLACEMENT) == clean_line(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://guest:s3cr3t@broker.example:5672/", "amqp://[redacted]@broker.example:5672/"),
        ("amqp://guest:p@ss@w@broker.example/x", "amqp://[redacted]@broker.example/x"),
        ("https://token@host/a https://u:p@host/b", "https://[redacted]@host/a https://[redacted]@host/b"),
        ("postgresql+psycopg2://u:p@[::1]:5432/db", "postgresql+psycopg2://[redacted]@[::1]:5432/db"),
        ("see https://host/path?mail=someone@example.org", "see https://host/path?mail=someone@example.org"),
        ("https://host/#a@b and x@y", "https://host/#a@b and x@y"),
        ("no URL: user:password@host", "no URL: user:password@host"),
        ("", ""),
    ],
)
def test_the_user_information_of_urls_is_blanked_out(text: str, expected: str) -> None:
    """It is redacted up to the last @ before the host, and only in URLs."""
    assert expected == redact(text, [])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CANARY, id="as it is"),
        pytest.param(repr(CANARY), id="repr"),
        pytest.param(repr({"pw": CANARY}), id="repr of a dict"),
        pytest.param(repr(f'he said "{CANARY}'), id="within a repr"),
        pytest.param(json.dumps({"pw": CANARY}), id="JSON"),
        pytest.param(json.dumps({"pw": CANARY}, ensure_ascii=False), id="JSON in UTF-8"),
        pytest.param(quote(CANARY, safe=""), id="URL"),
        pytest.param(quote(CANARY), id="path of a URL"),
        pytest.param(quote_plus(CANARY), id="form"),
        pytest.param(f"amqp://user:{CANARY}@host/", id="pasted into a URL"),
        pytest.param(f"{CANARY}{CANARY}", id="twice"),
    ],
)
def test_a_secret_is_found_however_it_is_spelt(text: str) -> None:
    """No spelling of a secret, and no significant part of one, stays in the text."""
    shown = redact(text, [CANARY])

    assert "[redacted]" in shown
    assert not [part for part in ("nary", "ss/w", "ss%2Fw", "rd") if part in shown.replace("[redacted]", "")]


@given(
    secrets=st.lists(texts().filter(lambda text: len(text) >= 6 and text not in REDACTED), min_size=1, max_size=4),
    pieces=st.lists(texts(), max_size=4),
)
@example(secrets=["secret", "secret-and-more"], pieces=["x"])
@example(secrets=["\udcff" * 6], pieces=[])
def test_no_secret_is_left_in_any_text(secrets: list[str], pieces: list[str]) -> None:
    """Secrets may contain each other and any other text. None of them is in the result, cleaned before or not."""
    text = "".join(piece + secret for piece, secret in zip([*pieces, *secrets], [*secrets, *secrets], strict=False))

    left = [secret for secret in secrets if secret in redact(text, secrets)]
    left_clean = [secret for secret in secrets if clean(secret) in redact(clean(text), secrets)]

    assert not left
    assert not left_clean


def test_secrets_are_those_of_the_environment_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that a task adds to its environment is redacted from then on."""
    before = redact("hunter22")
    monkeypatch.setenv("SITE_API_TOKEN", "hunter22")

    assert (before, redact("hunter22")) == ("hunter22", "[redacted]")


def test_further_secrets_are_blanked_out_beside_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings from a file are not in the environment."""
    monkeypatch.setenv("SITE_API_TOKEN", "hunter22")

    assert redact("hunter22 and hunter33", also=["hunter33"]) == "[redacted] and [redacted]"


@pytest.mark.parametrize("name", ["ISB_PASSWORD", "PGPASSFILE", "AWS_SECRET_ACCESS_KEY", "github_token", "MonKey"])
def test_variables_named_like_a_secret_hold_one(name: str) -> None:
    """PASS, SECRET, TOKEN and KEY are found anywhere in the name, in upper and lower case."""
    assert is_secret_name(name)


def test_short_and_ordinary_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of five characters may be a common word, and other variables are not secrets."""
    monkeypatch.setenv("SOME_PASSWORD", "guest")
    monkeypatch.setenv("SOME_HOST", "broker.example")

    assert redact("guest at broker.example") == "guest at broker.example"


def test_redaction_of_a_megabyte_is_quick() -> None:
    """A text that consists only of beginnings of URLs takes no longer than any other."""
    text = "://a:b" * 170_000

    assert text == redact(text, [CANARY])


@given(text=texts(60), limit=st.integers(0, 80), keep_end=st.booleans())
def test_clipping_keeps_as_much_as_fits(text: str, limit: int, *, keep_end: bool) -> None:
    """
    The result is the longest part that fits with its mark, from the end to keep. One more character would not fit.
    """
    shortened = clip(text, lambda candidate: len(candidate) <= limit, keep_end=keep_end)

    mark = f"{CUT}\n" if keep_end else CUT
    room = limit - len(mark)
    if len(text) <= limit:
        assert text == shortened
    elif room < 0:
        assert not shortened
    else:
        assert (mark + text[len(text) - room :] if keep_end else text[:room] + mark) == shortened


class Unshowable:
    """An object whose `repr` raises."""

    def __repr__(self) -> str:
        """Raise an exception."""
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abc", "'abc'"),
        ("x" * 1_000_000, f"'{'x' * 17}...{'x' * 18}'"),
        (10**5000, "<int>"),
        ({"a": {"b": {"c": 1}}}, "{'a': {'b': {...}}}"),
        (None, "None"),
        ("\ud800", r"'\ud800'"),
    ],
    ids=["short", "long", "no decimal form", "nested", "None", "surrogate"],
)
def test_a_value_is_shown_briefly(value: object, expected: str) -> None:
    """A message quotes at most 40 characters of a value."""
    assert expected == show(value)


def test_a_value_is_redacted_before_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redaction comes first, so that no part of a secret is left beside the omitted middle."""
    monkeypatch.setenv("SITE_TOKEN", "hunter22-and-more")

    assert show("x" * 12 + "hunter22-and-more" + "y" * 12) == f"'{'x' * 12}[redacted]{'y' * 12}'"
    assert show("recipe hunter22-and-more" + "z" * 100) == f"'recipe [redacted]...{'z' * 18}'"


def test_showing_a_value_never_raises() -> None:
    """An object's `repr` may raise, and a list may be nested deeper than the stack allows."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]

    assert [show(Unshowable())[:23], show(deep)] == ["<Unshowable instance at", "[[[...]]]"]
