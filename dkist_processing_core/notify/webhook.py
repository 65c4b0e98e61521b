"""
Delivery to a webhook: as a message for Slack and its kin, or as a CloudEvent in structured mode.

Not here: the text (wording), and further tries (inbox).
"""

import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import time
from typing import Any

import msgspec
import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_auth_from_url

from dkist_processing_core.errors import GiveUpError, NotDeliveredError, RetryLaterError
from dkist_processing_core.events import CONTENT_TYPE, encode
from dkist_processing_core.events.notice import NoticeIssued
from dkist_processing_core.notify.fields import Secret
from dkist_processing_core.notify.notices import IDEMPOTENCY_KEY
from dkist_processing_core.notify.routes import Webhook
from dkist_processing_core.notify.wording import lines_of, title_of
from dkist_processing_core.process.uninstrumented import silence, uninstrumented

_LONGEST_TEXT = 12_000
# Answers after which a later try may succeed, although they are of the 4xx.
_ACCEPTED, _LATER, _SERVER_ERROR = range(200, 300), (408, 425, 429), 500
# Mattermost, Rocket.Chat and Discord read mentions, code and links of Markdown in messages of Slack's form.
_MARKUP = re.compile(r"@|\](?=\()")
_IN_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})


class _OfAddress(AuthBase):
    """Sends user and password of the address, and keeps `requests` from sending what a file `.netrc` has."""

    def __init__(self, url: str) -> None:
        self._pair = get_auth_from_url(url)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return HTTPBasicAuth(*self._pair)(request) if any(self._pair) else request


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
    body, content_type = _body(webhook, notice)
    headers |= {"Content-Type": content_type, IDEMPOTENCY_KEY: notice.id}
    # It logs the address at the level DEBUG.
    silence("urllib3.connectionpool", "urllib3.util.retry")
    try:
        with uninstrumented():
            answer = requests.post(
                url,
                body,
                headers=headers,
                timeout=webhook.timeout,
                # A receiver that has moved would get a GET without the notice.
                allow_redirects=False,
                auth=_OfAddress(url),
                verify=True if webhook.ca is None else str(webhook.ca),
                stream=True,
            )
    except (requests.RequestException, OSError, ValueError) as error:
        # Its text has the address, which may be a secret.
        msg = f"the webhook cannot be reached: {_reason(error)}"
        raise NotDeliveredError(msg) from None
    with answer:
        if answer.status_code in _ACCEPTED:
            return f"HTTP {answer.status_code}"
        # The receiver's own text may repeat a part of the address or of a header.
        found = f"the webhook answered HTTP {_shown(answer.status_code)}"
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
    return _MARKUP.sub("\\g<0>\N{ZERO WIDTH SPACE}", line).translate(_IN_SLACK)


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


def _shown(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _retry_after(answer: requests.Response) -> float | None:
    """Return the pause that the receiver asks for, in seconds or as a date (RFC 9110, section 10.2.3)."""
    text: Any = answer.headers.get("Retry-After")
    with suppress(TypeError, ValueError):
        return max(0.0, float(text))
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return None
