"""
One request to a collector over HTTP, and its outcome.

It is imported when the collector has accepted a connection: the import of requests takes 0.1 s. Not here: which
requests are repeated (otlp.delivery).
"""

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version

import requests

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.otlp.answers import PROTOBUF, accepted_by, message_of, one_line
from dkist_processing_core.otlp.destination import Signal, shown_endpoint
from dkist_processing_core.otlp.options import (
    COMPRESSIONS,
    CONNECT_SECONDS,
    Options,
    options_of,
    provided_session,
    url_of,
)
from dkist_processing_core.otlp.outcome import (
    DENYING_STATUSES,
    RETRYABLE_STATUSES,
    Denied,
    Outcome,
    Refused,
    Unavailable,
)
from dkist_processing_core.process.uninstrumented import silence
from dkist_processing_core.settings.interface import Settings

_TOO_LARGE = "too large"
# An answer has a few bytes. The rest of a longer one is not read.
_LONGEST_ANSWER = 65536


class HttpExporter:
    """Sends the requests of one signal; the connection is kept open between them."""

    def __init__(self, settings: Settings, signal: Signal) -> None:
        """
        Open no connection.

        Raises:
            ConfigurationError: A variable has an unusable value.
        """
        silence("urllib3.connectionpool", "urllib3.util.retry")
        options = options_of(settings, signal)
        session = provided_session(settings, signal)
        if session is not None and not isinstance(session, requests.Session):
            msg = f"found credentials of the type {type(session).__name__}, expected a requests.Session"
            raise ConfigurationError(msg)
        self._signal = signal
        self._url = url_of(settings, signal)
        self._where = shown_endpoint(settings, signal)
        self._session = session or requests.Session()
        self._compress = COMPRESSIONS[options.compression]
        self._timeout = min(CONNECT_SECONDS, options.timeout), options.timeout
        # These are given to each request: the environment would have priority over the session's own values.
        self._verify = True if options.certificate is None else str(options.certificate)
        self._certificates = _certificates_in(options)
        self._headers = {
            "User-Agent": f"dkist-processing-core/{version('dkist-processing-core')}",
            **options.headers,
            "Content-Type": PROTOBUF,
        }
        if options.compression != "none":
            self._headers["Content-Encoding"] = options.compression

    def send(self, body: bytes) -> Outcome:
        """Send one serialized request, and return its outcome."""
        try:
            # A header with a secret must not follow a redirection to another address.
            with self._session.post(
                self._url,
                data=self._compress(body),
                headers=self._headers,
                timeout=self._timeout,
                verify=self._verify,
                cert=self._certificates,
                allow_redirects=False,
                stream=True,
            ) as response:
                answer = response.raw.read(_LONGEST_ANSWER, decode_content=True)
        except (requests.RequestException, OSError) as error:
            return Unavailable(f"{self._where} does not answer: {_cause_of(error)}")
        except Exception as error:  # noqa: BLE001 - urllib3 raises its own errors while an answer is read
            return Unavailable(f"{self._where} gives an unreadable answer: {type(error).__name__}")
        return self._outcome(response, answer)

    def _outcome(self, response: requests.Response, answer: bytes) -> Outcome:
        status = response.status_code
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            content_type = response.headers.get("Content-Type", "")
            found = accepted_by(self._signal, answer, content_type)
            kind = one_line(content_type) or "no Content-Type"
            return found or Denied(f"{self._where} answers {status} with {kind}, and a collector with {PROTOBUF}")
        reason = f"{self._where} answers {status} {response.reason or ''}".rstrip()
        if status < HTTPStatus.BAD_REQUEST:
            return Unavailable(f"{reason}, and a redirection is not followed; correct the endpoint")
        message = message_of(answer)
        message = one_line(answer.decode(errors="replace")) if message is None else message
        reason = f"{reason}: {message}" if message else reason
        if status in RETRYABLE_STATUSES:
            return Unavailable(reason, _seconds_of(response.headers.get("Retry-After")))
        if status in DENYING_STATUSES:
            return Denied(reason)
        # The OpenTelemetry Collector answers 400 to a body above its limit.
        is_too_large = status == HTTPStatus.BAD_REQUEST and _TOO_LARGE in message.lower()
        return Refused(reason, is_too_large or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def cancel(self) -> None:
        """Close the connections that are not in use: a request that another thread is sending goes on."""
        self._session.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _certificates_in(options: Options) -> tuple[str, str] | str | None:
    """Return the files of the client's certificate and key; the file of the certificate may also hold the key."""
    if options.client_certificate is None:
        return None
    certificate, key = str(options.client_certificate), options.client_key
    return certificate if key is None else (certificate, str(key))


def _seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds in a header Retry-After (RFC 9110, 10.2.3); None if there is none, or an unknown form."""
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time.time())


def _cause_of(error: BaseException) -> str:
    """Return the innermost cause of an error: the outer ones repeat the whole URL, which may hold a secret."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or one_line(str(error)) or type(error).__name__
