"""
Delivery to a webhook: as a message for Slack and its kin, or as a CloudEvent in structured mode.

Not here: the text (wording), and further tries (inbox).
"""

import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import msgspec
import requests
from requests.auth import AuthBase

from dkist_processing_core.errors import GiveUpError, NotDeliveredError, RetryLaterError
from dkist_processing_core.events import CONTENT_TYPE, encode
from dkist_processing_core.events.notice import NoticeIssued
from dkist_processing_core.notify.fields import Secret
from dkist_processing_core.notify.notices import IDEMPOTENCY_KEY
from dkist_processing_core.notify.routes import Webhook
from dkist_processing_core.notify.wording import lines_of, title_of
from dkist_processing_core.text import clean_line, redact

_LONGEST_TEXT, _LONGEST_ANSWER = 12_000, 200
# Answers after which a later try may succeed, although they are of the 4xx.
_LATER, _SERVER_ERROR = (408, 425, 429), 500
# Mattermost, Rocket.Chat and Discord read these in messages of Slack's form.
_MENTION = re.compile(r"@(?=channel\b|all\b|here\b|everyone\b)", re.IGNORECASE)
_IN_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class _NoFileOfPasswords(AuthBase):
    """Keeps `requests` from sending what a file `.netrc` has for the host."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def send(webhook: Webhook, notice: NoticeIssued) -> str:
    """
    Send a notice, and return the answer as a text.

    Raises:
        NotDeliveredError, RetryLaterError: It was not delivered; a later try may succeed.
        GiveUpError: The receiver refuses it, and will refuse it again.
        ConfigurationError: A secret is missing.
    """
    url = _plain(webhook.url)
    headers = {name: _plain(value) for name, value in webhook.headers.items()}
    secrets = [url, *headers.values()]
    body, content_type = _body(webhook, notice)
    headers |= {"Content-Type": content_type, IDEMPOTENCY_KEY: notice.id}
    try:
        answer = requests.post(
            url,
            body,
            headers=headers,
            timeout=webhook.timeout,
            # A receiver that has moved would get a GET without the notice.
            allow_redirects=False,
            auth=_NoFileOfPasswords(),
            verify=True if webhook.ca is None else str(webhook.ca),
            stream=True,
        )
    except (requests.RequestException, OSError, ValueError) as error:
        # Its text has the address, which may be a secret.
        msg = f"the webhook cannot be reached: {_reason(error)}"
        raise NotDeliveredError(msg) from None
    with answer:
        if answer.ok and not answer.is_redirect:
            return f"HTTP {answer.status_code}"
        found = f"the webhook answered HTTP {answer.status_code}{_text_of(answer, secrets)}"
        is_lasting = answer.status_code < _SERVER_ERROR and answer.status_code not in _LATER
        if is_lasting:
            expected = "an address that has not moved" if answer.is_redirect else "an answer 2xx"
            msg = f"{found}, expected {expected}; correct the route or its receiver, and retry the dead letter"
            raise GiveUpError(msg)
        if (seconds := _retry_after(answer)) is not None:
            raise RetryLaterError(found, seconds)
        raise NotDeliveredError(found)


def _plain(value: str | Secret) -> str:
    return value if isinstance(value, str) else value.read()


def _body(webhook: Webhook, notice: NoticeIssued) -> tuple[bytes, str]:
    if webhook.format == "cloudevents":
        return encode(notice), CONTENT_TYPE
    return msgspec.json.encode({"text": slack_text(notice)}), "application/json; charset=utf-8"


def slack_text(notice: NoticeIssued) -> str:
    """Return a notice as a text in which no name or message is markup."""
    title = f"*{_escaped(title_of(notice)).replace('*', chr(0x2217))}*"
    text = "\n".join([title, *map(_escaped, lines_of(notice))])
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1].rpartition(chr(10))[0]}\n…"


def _escaped(line: str) -> str:
    return _MENTION.sub("@\N{ZERO WIDTH SPACE}", line).translate(_IN_SLACK)


def _reason(error: Exception) -> str:
    """Return the kind of an error of the network, without the texts in which libraries put addresses."""
    kinds: list[tuple[type[Exception], str]] = [
        (ValueError, "its address or a header cannot be used"),
        (requests.exceptions.SSLError, "its certificate is not accepted, or TLS has failed"),
        (requests.exceptions.ProxyError, "the proxy does not connect"),
        (requests.exceptions.ConnectTimeout, "no connection within the time limit"),
        (requests.exceptions.Timeout, "no answer within the time limit"),
        (requests.exceptions.ConnectionError, "no connection, or it broke"),
        (OSError, "a file or the network cannot be used"),
    ]
    return next((text for kind, text in kinds if isinstance(error, kind)), "an unexpected error")


def _text_of(answer: requests.Response, secrets: list[str]) -> str:
    try:
        text = next(answer.iter_content(4 * _LONGEST_ANSWER), b"").decode("utf-8", "replace")
    except (requests.RequestException, OSError):
        return ""
    line = clean_line(" ".join(redact(text, also=secrets).split()))[:_LONGEST_ANSWER]
    return f" ({line})" if line else ""


def _retry_after(answer: requests.Response) -> float | None:
    """Return the pause that the receiver asks for, in seconds or as a date (RFC 9110, section 10.2.3)."""
    text: Any = answer.headers.get("Retry-After")
    with suppress(TypeError, ValueError):
        return max(0.0, float(text))
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return None
