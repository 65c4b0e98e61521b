"""
The token of Airflow's REST API: requested with a user and a password, without a login, or read from a file.

It is kept in memory alone. Not here: the requests that use it (airflow_api).
"""

import contextlib
from pathlib import Path

import msgspec

from dkist_processing_core.errors import ConfigurationError, EngineUnreachableError
from dkist_processing_core.reconcile.http_client import HttpClient
from dkist_processing_core.settings.interface import Settings

_PATH = "/auth/token"
_CREATED = (200, 201)
_REFUSED = (400, 401, 403)
_OF_FILE = "DKIST_CORE_AIRFLOW_TOKEN_FILE"
_OF_USER = "DKIST_CORE_AIRFLOW_USERNAME and DKIST_CORE_AIRFLOW_PASSWORD"


class _Created(msgspec.Struct):
    access_token: str


class TokenSource:
    """Where the tokens of one Airflow come from."""

    def __init__(self, client: HttpClient, settings: Settings) -> None:
        """
        Store how tokens are obtained; none is requested yet.

        Raises:
            ConfigurationError: The settings name no source, or two.
        """
        self._client = client
        self._username = settings.dkist_core_airflow_username
        self._password = settings.dkist_core_airflow_password
        self._file = _absolute(settings)
        self._token: str | None = None
        self._is_new = False
        if (self._username is None) is not (self._password is None):
            given, missing = "USERNAME", "PASSWORD"
            if self._username is None:
                given, missing = missing, given
            msg = f"DKIST_CORE_AIRFLOW_{missing}: found nothing, expected it together with DKIST_CORE_AIRFLOW_{given}"
            raise ConfigurationError(msg)
        if self._file is not None and self._username is not None:
            msg = f"{_OF_FILE}: found beside {_OF_USER}, expected one of them; unset the others"
            raise ConfigurationError(msg)

    @property
    def what(self) -> str:
        """What is refused if a token is."""
        return f"the token in the file of {_OF_FILE}" if self._file is not None else "the token that it gave"

    @property
    def remedy(self) -> str:
        """What a person can do if a token is refused."""
        return "replace it by a valid one" if self._file is not None else "see its log"

    def begin_round(self) -> None:
        """Allow one renewal, and read a file again."""
        self._is_new = False
        if self._file is not None:
            self._token = None

    def token(self) -> str:
        """
        Return a token.

        Raises:
            EngineUnreachableError: Airflow gives none, or the file has none.
        """
        if self._token is None:
            self._token = self._requested() if self._file is None else self._read(self._file)
            self._is_new = True
        return self._token

    def renew(self) -> bool:
        """Drop a token that was refused, and return True; return False if it was new in this round."""
        if self._is_new:
            return False
        self._token = None
        return True

    def _read(self, file: Path) -> str:
        try:
            token = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = (error.strerror or "it cannot be read") if isinstance(error, OSError) else "it is no UTF-8 text"
            msg = f"{_OF_FILE}: found a file that cannot be used ({reason}), expected one with a token"
            raise EngineUnreachableError(msg) from None
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            msg = f"{_OF_FILE}: found a file without a token, expected one with a single token"
            raise EngineUnreachableError(msg)
        return token

    def _requested(self) -> str:
        where = self._client.address
        if self._username is None:
            answer = self._client.request("GET", _PATH)
            who, remedy = "a request without a login", f"set {_OF_USER}, or {_OF_FILE}"
        else:
            body = {"username": self._username, "password": self._password}
            answer = self._client.request("POST", _PATH, json=body)
            who, remedy = "the user of DKIST_CORE_AIRFLOW_USERNAME", f"correct {_OF_USER}"
        if answer.status in _REFUSED:
            msg = f"Airflow at {where} gives {who} no token ({answer.status}); {remedy}"
            raise EngineUnreachableError(msg)
        if answer.status in _CREATED:
            with contextlib.suppress(UnicodeDecodeError, msgspec.MsgspecError):
                return msgspec.json.decode(answer.body, type=_Created).access_token
        msg = f"{where} answered a request for {_PATH} with {answer.summary}, expected a token; {answer.remedy}"
        raise EngineUnreachableError(msg)


def _absolute(settings: Settings) -> Path | None:
    file = settings.dkist_core_airflow_token_file
    if file is None:
        return None
    try:
        return settings.absolute(file)
    except LookupError:
        msg = f"{_OF_FILE}: found a path below a folder that does not exist, expected the path of a file"
        raise ConfigurationError(msg) from None
