"""
Requests to Airflow over HTTP, each with a limit on its time and on its size, and a limit on their number.

Not here: what is requested, and the meaning of the answers (airflow_api, airflow_token).
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from dkist_processing_core.errors import EngineApiError, EngineUnreachableError

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 20.0
# The whole answer: a server that sends a byte now and then would keep within the limit of each read.
_ANSWER_SECONDS = 60.0
_MOST_BYTES = 64 << 20
_CHUNK = 1 << 16
_MULTIPLE_CHOICES, _BAD_REQUEST, _SERVER_ERROR = 300, 400, 500
# Of a proxy whose server is away, and of a server that starts or is overloaded.
_AWAY = (502, 503, 504)
_CHECK = "correct DKIST_CORE_AIRFLOW_URL, which is the address without /api/v2"


class RequestsUsedUpError(EngineApiError):
    """No request is left in this round; the next one continues."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its whole body."""

    status: int
    content_type: str
    body: bytes
    location: str | None = None
    at: datetime | None = None
    """The time of the answer, in UTC, by the clock of the server; None if it gives none."""

    @property
    def summary(self) -> str:
        """The status and the kind of the content."""
        where = f" to {self.location}" if self.location else ""
        return f"{self.status}{where} ({self.content_type or 'no content type'})"

    @property
    def remedy(self) -> str:
        """What a person can do about an answer that was not expected."""
        if self.status >= _SERVER_ERROR:
            return "it may be starting; see its log if this continues"
        return _CHECK


class _Bearer(requests.auth.AuthBase):
    """The token of a request; with it, requests takes no password from a file .netrc."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class HttpClient:
    """Requests to one server; proxies and certificate authorities are those of the environment."""

    def __init__(self, address: str, *, most_requests: int) -> None:
        """Store the address, and the limit on the number of requests in a round."""
        self.address = address
        self._most_requests = most_requests
        self.requests_left = most_requests
        self._session = requests.Session()

    def begin_round(self) -> None:
        """Allow the whole number of requests again."""
        self.requests_left = self._most_requests

    def request(self, method: str, path: str, *, token: str | None = None, json: Any = None) -> Answer:
        """
        Return the answer to a request, with any status.

        Raises:
            EngineUnreachableError: There is no answer.
            RequestsUsedUpError: No request is left in this round.
        """
        if self.requests_left <= 0:
            msg = f"{self._most_requests} requests were sent to Airflow at {self.address}; the next round continues"
            raise RequestsUsedUpError(msg)
        self.requests_left -= 1
        try:
            # A redirection, as to a page for logging in, would take the token to another place.
            with self._session.request(
                method,
                f"{self.address}{path}",
                auth=_Bearer(token),
                json=json,
                headers={"Accept": "application/json"},
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                is_redirection = _MULTIPLE_CHOICES <= response.status_code < _BAD_REQUEST
                answer = Answer(
                    response.status_code,
                    response.headers.get("Content-Type", "").partition(";")[0].strip(),
                    self._body(response),
                    response.headers.get("Location", "").partition("?")[0] if is_redirection else None,
                    _time_in(response.headers.get("Date", "")),
                )
        except (requests.RequestException, OSError, ValueError) as error:
            msg = f"Airflow at {self.address} does not answer: {_reason(error)}"
            raise EngineUnreachableError(msg) from None
        if answer.status in _AWAY:
            msg = f"Airflow at {self.address} does not answer: found {answer.summary}; {answer.remedy}"
            raise EngineUnreachableError(msg)
        return answer

    def _body(self, response: requests.Response) -> bytes:
        until, body = time.monotonic() + _ANSWER_SECONDS, bytearray()
        for chunk in response.iter_content(_CHUNK):
            body += chunk
            if len(body) > _MOST_BYTES or time.monotonic() > until:
                msg = f"its answer is longer than {_MOST_BYTES >> 20} MiB or takes longer than {_ANSWER_SECONDS:g} s"
                raise ValueError(msg)
        return bytes(body)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _time_in(date: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _reason(error: BaseException) -> str:
    """Return the reason of a failed request in a few words: the texts of requests hold objects and addresses."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the connection by TLS failed; the certificate may not be one that REQUESTS_CA_BUNDLE trusts"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, requests.ConnectionError):
        return "the connection failed, or was closed without an answer"
    return str(error) if type(error) is ValueError else f"the request failed ({type(error).__name__})"
