"""
Secrets taken out of texts: which names, URLs, headers and spellings are known. What is done with texts is in test_text.
"""

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.redaction import is_secret_name, redact, secrets_of

PEM = "-----BEGIN PRIVATE KEY-----\nMIGEAgEAMBAGByqGSM49\nAgEAJ2hunter22Xw==\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://bob:pa/ss@host/db", "postgres://[redacted]@host/db"),
        ("postgres://bob:pa?ss#1@host", "postgres://[redacted]@host"),
        ("a amqp://u:p/@w@h, b amqp://u:p#w@h!", "a amqp://[redacted]@h, b amqp://[redacted]@h!"),
        ('{"a":"amqp://u:p/w@h", "mail": "me@example.org"}', '{"a":"amqp://[redacted]@h", "mail": "me@example.org"}'),
        ("amqp://u:p'w@h", "amqp://[redacted]@h"),
        ("http://one/,http://two/,amqp://u:p/w@h", "http://one/,http://two/,amqp://[redacted]@h"),
        ("https://host:8080/log?dag_id=x", "https://host:8080/log?dag_id=x"),
        ("https://host/path@2", "https://host/path@2"),
    ],
)
def test_a_password_in_a_url_may_hold_any_delimiter(text: str, expected: str) -> None:
    """
    Behind a user and a colon it ends at the last @ before white space or a quote.
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
    By the names that are usual for them, as a word of its own or as a part of one.
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
    ],
)
def test_the_header_that_authorizes_is_blanked_out(text: str) -> None:
    """
    As it is sent and as it is shown; the rest of the text stays.
    """
    shown = redact(text, [])

    assert "hunter22" not in shown
    assert text.replace("hunter22", "").count("Accept") == shown.count("Accept")
    assert shown.endswith("next") == text.endswith("next")


@pytest.mark.parametrize(
    "name",
    ["MYSQL_PWD", "DB_CREDENTIALS", "SSH_PASSPHRASE", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"],
)
def test_further_names_are_those_of_secrets(name: str) -> None:
    """
    They hold none of the words PASS, SECRET, TOKEN and KEY, or only by chance.
    """
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD"])
def test_the_current_folder_is_no_secret(name: str) -> None:
    """
    It would be blanked out of every stack.
    """
    assert not is_secret_name(name)


def test_headers_for_a_collector_are_secrets_each() -> None:
    """
    An error names one of them, decoded and without the word before it, and not the whole variable.
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
    As a header of the scheme Basic holds it behind the user: what is left is less than a character on either side.
    """
    encoded = base64.b64encode(before + secret.encode() + behind).decode()

    kept = redact(encoded, [secret]).replace("[redacted]", "")

    assert len(kept) <= len(base64.b64encode(before)) + len(base64.b64encode(behind)) + 4


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
    A text of nothing but beginnings, or of nothing but secrets, is searched once, and not once for each of them.
    """
    times = {}
    for length in (60_000, 480_000):
        text = part * (length // len(part)) + "@="
        begin = time.process_time()
        redact(text, [])
        times[length] = time.process_time() - begin

    # Eight times as long takes about eight times as long, and would take 64 times with the square of the length.
    assert times[480_000] < 24 * max(times[60_000], 0.01)
