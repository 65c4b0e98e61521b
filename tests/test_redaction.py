"""
Secrets are removed from texts: the known names, URLs, headers and spellings. Not here: other changes of texts
(test_text).
"""

import base64
import html
import json
import re
import shlex
import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.text.redaction import is_secret_name, redact, secrets_now, secrets_of

PEM = "-----BEGIN PRIVATE KEY-----\nMIGEAgEAMBAGByqGSM49\nAgEAJ2hunter22Xw==\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://bob:pa/ss@host/db", "postgres://[redacted]@host/db"),
        ("postgres://bob:pa?ss#1@host", "postgres://[redacted]@host"),
        ("a amqp://u:p/@w@h, b amqp://u:p#w@h!", "a amqp://[redacted]@h, b amqp://[redacted]@h!"),
        ('{"a":"amqp://u:p/w@h", "mail": "me@example.org"}', '{"a":"amqp://[redacted]@h", "mail": "me@example.org"}'),
        ("amqp://u:p'w@h", "amqp://[redacted]@h"),
        ('postgres://bob:pa"/ss@host', "postgres://[redacted]@host"),
        ("see 'amqp://u:p\"),w/?@x@h' now", "see 'amqp://[redacted]@h' now"),
        ('{"a":"http://h:80/x","mail":"me@example.org"}', '{"a":"http://h:80/x","mail":"me@example.org"}'),
        ("http://one/,http://two/,amqp://u:p/w@h", "http://one/,http://two/,amqp://[redacted]@h"),
        ("https://host:8080/log?dag_id=x", "https://host:8080/log?dag_id=x"),
        ("https://host/path@2", "https://host/path@2"),
    ],
)
def test_a_password_in_a_url_may_hold_any_delimiter(text: str, expected: str) -> None:
    """
    After the user and a colon, the password ends at the last @ before white space or a quote.
    """
    assert expected == redact(text, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/a?token=abc&x=1", "https://h/a?token=[redacted]&x=1"),
        ("https://h/a?x=1&sig=ab%2Fc; next", "https://h/a?x=1&sig=[redacted]; next"),
        ("https://h/a?X-Amz-Signature=ff00&X-Amz-Credential=AK/1", None),
        ("https://h/a#access_token=abc", "https://h/a#access_token=[redacted]"),
        ("https://h/a?api_key=abc&apiKey=def", "https://h/a?api_key=[redacted]&apiKey=[redacted]"),
        ("https://h/a?design=7&author=me&keyboard=de", "https://h/a?design=7&author=me&keyboard=de"),
    ],
)
def test_tokens_in_the_query_of_a_url_are_blanked_out(text: str, expected: str | None) -> None:
    """
    A token is found by its usual names, as a whole word or as a part of one.
    """
    shown = redact(text, [])

    assert shown == expected or (expected is None and "ff00" not in shown and "AK" not in shown)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter22",
        "authorization: Basic hunter22==",
        "Proxy-Authorization: Digest username='u', response='hunter22'\nnext",
        "{'Authorization': 'Bearer hunter22', 'Accept': '*/*'}",
        "[('Authorization', 'Bearer hunter22')]",
        "[(b'authorization', b'Bearer hunter22')]",
        json.dumps(json.dumps({"Authorization": "Bearer hunter22"})),
        "HTTP_AUTHORIZATION=hunter22",
        'Authorization: OAuth realm="a", oauth_signature="hunter22"\nnext',
        "{'Authorization': 'Basic hunter22=', 'Accept': '*/*'}",
    ],
)
def test_the_header_that_authorizes_is_blanked_out(text: str) -> None:
    """
    It is found in the form that is sent and in the form that is printed. The rest of the text stays.
    """
    shown = redact(text, [])

    assert "hunter22" not in shown
    assert text.replace("hunter22", "").count("Accept") == shown.count("Accept")
    assert shown.endswith("next") == text.endswith("next")


@given(
    scheme=st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._+", min_size=1, max_size=20),
    shape=st.sampled_from(
        [
            "Authorization: {} ya29.hunter22\nnext",
            "{{'Authorization': '{} ya29.hunter22', 'Accept': 1}}",
            "[(b'authorization', b'{} ya29.hunter22')]",
            '{{"authorization": "{}  ya29.hunter22"}}',
        ]
    ),
)
def test_the_scheme_of_an_authorization_may_be_any_word(scheme: str, shape: str) -> None:
    """
    Services have other schemes, such as OAuth, JWT, NTLM, Splunk and Bot.
    """
    text = shape.format(scheme)

    shown = redact(text, [])

    assert "hunter22" not in shown
    assert [word in shown for word in ("next", "Accept")] == [word in text for word in ("next", "Accept")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"no key: {PEM} here", "-----BEGIN PRIVATE KEY-----[redacted]-----END PRIVATE KEY-----\n here"),
        (repr(PEM), "'-----BEGIN PRIVATE KEY-----[redacted]-----END PRIVATE KEY-----\\n'"),
        (PEM.partition("2Xw==")[0] + " next", "-----BEGIN PRIVATE KEY-----[redacted] next"),
        ("no -----BEGIN PRIVATE KEY----- there", "no -----BEGIN PRIVATE KEY----- there"),
        (PEM.replace("PRIVATE KEY", "CERTIFICATE"), PEM.replace("PRIVATE KEY", "CERTIFICATE")),
    ],
)
def test_the_body_of_a_private_key_is_blanked_out(text: str, expected: str) -> None:
    """
    A key that is in no variable is found by its first line, even if its end was cut.
    """
    assert redact(text, []).removeprefix("no key: ") == expected


@pytest.mark.parametrize("secret", ["p\u00e4ss'w\"o&r<d>\\1", "hunter22!"])
def test_a_secret_is_known_in_other_spellings(secret: str) -> None:
    """
    The spellings are bytes, ASCII, HTML, an argument of a shell, and hexadecimal digits.
    """
    value = secret.encode()
    spellings = [
        *(repr(value), str([value]), ascii(secret), html.escape(secret), html.escape(secret, quote=False)),
        *(shlex.quote(secret), value.hex(), value.hex().upper(), repr(b"a" + value), repr(b"'" + value)),
    ]

    shown = [redact(spelling, [secret]) for spelling in spellings]

    assert [re.sub(r"[^\w\[\]]", "", each).replace("redacted", "") for each in shown] == (
        ["b[]", "[b[]]", "[]", "[]", "[]", "[]", "[]", "[]", "ba[]", "b[]"]
    )


def test_the_texts_of_credentials_in_json_are_secrets() -> None:
    """
    A variable may contain a whole service account, and an error may contain one of its parts.
    """
    variable = json.dumps({"type": "x", "private_key": "hunter22", "more": [{"refresh": "hunter33"}, 7]})

    secrets = secrets_of({"GOOGLE_CREDENTIALS": variable, "OTHER_TOKEN": "[hunter44"})

    assert (
        redact("hunter22, hunter33, [hunter44, private_key", secrets)
        == "[redacted], [redacted], [redacted], private_key"
    )


def test_the_broker_s_password_is_a_secret_from_four_characters_on() -> None:
    """
    Other short values, and the default password of brokers, are common words.
    """
    secrets = secrets_of({"ISB_PASSWORD": "pw_1", "DB_PASSWORD": "test", "TOKEN": "x"})

    assert redact("pw_1, a test of x", secrets) == "[redacted], a test of x"
    assert secrets_of({"ISB_PASSWORD": "guest"}) == []


@pytest.mark.parametrize(
    "name",
    ["MYSQL_PWD", "DB_CREDENTIALS", "SSH_PASSPHRASE", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"],
)
def test_further_names_are_those_of_secrets(name: str) -> None:
    """
    They contain none of the words PASS, SECRET, TOKEN and KEY, or only by chance.
    """
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD"])
def test_the_current_folder_is_no_secret(name: str) -> None:
    """
    Otherwise it would be redacted in every stack.
    """
    assert not is_secret_name(name)


def test_headers_for_a_collector_are_secrets_each() -> None:
    """
    An error contains one of the headers, decoded and without its scheme, and not the whole variable.
    """
    secrets = secrets_of({"OTEL_EXPORTER_OTLP_HEADERS": "api-key=hunter22,Authorization=Basic%20aHVudGVyMzM=,x=1"})

    shown = redact("sent hunter22, then Basic aHVudGVyMzM= alias aHVudGVyMzM=, and x=1", secrets)

    assert shown == "sent [redacted], then [redacted] alias [redacted], and x=1"


@pytest.mark.parametrize("secret", [PEM, PEM.replace("\n", "\\n"), PEM.replace("\n", "\r\n")])
def test_a_line_of_a_key_is_a_secret(secret: str) -> None:
    """
    A parser quotes the line that it cannot read.
    """
    assert redact("bad line 'AgEAJ2hunter22Xw=='", [secret]) == "bad line '[redacted]'"


@given(
    before=st.binary(max_size=5),
    secret=st.text(st.characters(codec="utf-8"), min_size=6, max_size=20),
    behind=st.binary(max_size=5),
)
def test_a_secret_is_found_in_base64_wherever_it_begins(before: bytes, secret: str, behind: bytes) -> None:
    """
    A header of the scheme Basic contains the secret after the user. At most a part of a character is left on either
    side.
    """
    encoded = base64.b64encode(before + secret.encode() + behind).decode()

    kept = redact(encoded, [secret]).replace("[redacted]", "")

    assert len(kept) <= len(base64.b64encode(before)) + len(base64.b64encode(behind)) + 4


def processor_seconds(work: Callable[[], object]) -> float:
    """
    Return the processor time of this thread for a call, which does not contain that of other threads and processes.
    """
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


@pytest.mark.parametrize(
    "part",
    [
        "://a:b",
        "?token",
        "&" + "a" * 90,
        "authorization ",
        "authorization:'",
        "authorization: a ",
        "://u:p/",
        "://a@/",
        "://a:b@ ",
        '://u:1/"',
        "&key=a",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_the_time_of_a_long_text_is_no_more_than_proportional(part: str) -> None:
    """
    A text that consists only of beginnings of secrets, or of secrets, is searched once, and not once for each of them.
    """
    times = {}
    for length in (60_000, 480_000):
        text = part * (length // len(part)) + "@="
        times[length] = min(processor_seconds(partial(redact, text, [])) for _ in range(3))

    # For eight times the length, linear time is about eight times as long, and quadratic time 64 times.
    assert times[480_000] < 24 * max(times[60_000], 0.01)


def test_the_secrets_of_an_environment_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each record of the log needs them, and each change of the environment counts at once.
    """
    before = secrets_now()
    again = secrets_now()
    monkeypatch.setenv("A_TOKEN", "one-secret")
    one = secrets_now()
    monkeypatch.setenv("A_TOKEN", "other-secret")
    other = secrets_now()
    monkeypatch.delenv("A_TOKEN")

    assert again is before
    assert one - before == {"one-secret"}
    assert other - before == {"other-secret"}
    assert secrets_now() == before
