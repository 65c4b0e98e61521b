"""
TLS to the broker by the ISB_TLS_* variables: our certificate, the trusted authorities, and the variable at fault.

Not here: the connection (pika_connection), and its other errors (bus.amqp.errors).
"""

import re
import socket
import ssl
from pathlib import Path
from typing import NoReturn

from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError, ConfigurationError
from dkist_processing_core.settings.interface import Settings

# OpenSSL's codes of the reasons why a certificate is not accepted (X509_V_ERR_*).
_NOT_YET_VALID, _EXPIRED, _OTHER_NAMES, _UNKNOWN_AUTHORITIES = 9, 10, (62, 64), (2, 18, 19, 20, 21)
# OpenSSL's names of the alerts by which a peer reports why it refuses our certificate.
_ALERT = re.compile(r"ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA)")
_REFUSALS = {
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it was revoked",
    "UNKNOWN_CA": "it is signed by an authority that the broker does not hold",
}
# Newer releases of OpenSSL report the second name, older ones the first.
_NOT_TLS = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE")


def is_wanted(settings: Settings) -> bool:
    """Return True if the settings turn TLS on."""
    return bool(settings.isb_tls_ca or settings.isb_tls_cert or settings.isb_tls_key or settings.isb_tls_server_name)


def server_name(settings: Settings) -> str:
    """Return the host name that the broker's certificate must contain."""
    return settings.isb_tls_server_name or settings.isb_mesh_service.host


def make_context(settings: Settings) -> ssl.SSLContext:
    """
    Return a TLS context with the certificates and the key from the files that the settings name.

    Raises:
        ConfigurationError: A file cannot be read, or is not of the kind that its variable requires.
    """
    named = (settings.isb_tls_ca, settings.isb_tls_cert, settings.isb_tls_key)
    # Several connections may be opened, with different current folders: relative paths refer to the first folder.
    ca, certificate, key = (None if path is None else settings.core_origin.folder / path for path in named)
    for variable, path in (("ISB_TLS_CA", ca), ("ISB_TLS_CERT", certificate), ("ISB_TLS_KEY", key)):
        _check_readable(variable, path)
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        msg = f"ISB_TLS_CA: found {str(ca)!r}, expected a PEM file of certificates ({_reason(error)})"
        raise ConfigurationError(msg) from error
    if certificate is None:
        if key is not None:
            msg = f"ISB_TLS_KEY: found {str(key)!r} without ISB_TLS_CERT, expected both or neither"
            raise ConfigurationError(msg)
        return context
    try:
        # Without the `password` argument OpenSSL asks for a password on the terminal, and waits.
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as error:
        files = f"{str(certificate)!r}{'' if key is None else f' and {str(key)!r}'}"
        expected = "PEM files of a certificate and the key that belongs to it"
        msg = f"ISB_TLS_CERT, ISB_TLS_KEY: found {files}, expected {expected} ({_reason(error)})"
        raise ConfigurationError(msg) from error
    return context


def _check_readable(variable: str, path: Path | None) -> None:
    try:
        if path is not None:
            Path(path).open("rb").close()
    except OSError as error:
        msg = f"{variable}: found {str(path)!r}, expected a PEM file that can be read ({error.strerror})"
        raise ConfigurationError(msg) from error


def _no_password() -> NoReturn:
    msg = "ISB_TLS_KEY: found a private key that is locked by a password, expected one that is not"
    raise ConfigurationError(msg)


def fault_of(
    error: ssl.SSLError | None, silence: BaseException | None, settings: Settings
) -> tuple[type[BusError], str] | None:
    """
    Explain a failure of TLS.

    Args:
        error: The error of the handshake, if it failed.
        silence: The error of a connection that broke before the broker had sent anything on it, if that happened. In
            TLS 1.3 a client learns only then that its certificate is refused.
        settings: The variables of TLS.

    Returns:
        The type of the error and a text that names the variable at fault; None if TLS is not the cause.
    """
    if not is_wanted(settings) or (error is None and silence is None):
        return None
    report = str(error or silence)
    text = _distrust(error, settings) or _refusal(report, settings)
    if text is None and _NOT_TLS.search(report):
        text = "does not use TLS there: check mesh_port in MESH_CONFIG, or set no ISB_TLS_* variable"
    if text is not None:
        return BusRefusedError, text
    hint = "check ISB_TLS_CERT" if settings.isb_tls_cert else "if it wants a client's certificate, set ISB_TLS_CERT"
    if error is None or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return BusUnreachableError, f"broke the connection off at the TLS handshake; {hint}"
    return BusRefusedError, f"does not agree on TLS with this client ({_reason(error)}); {hint}"


def last_alert(connection: socket.socket | None) -> ssl.SSLError | None:
    """Return the TLS alert that was received on a broken connection but not read yet; None if there is none."""
    if isinstance(connection, ssl.SSLSocket):
        try:
            connection.recv(1)
        except ssl.SSLError as error:
            return error if _ALERT.search(str(error)) else None
        except (OSError, ValueError):
            # The connection is closed or reset: the alert is lost.
            pass
    return None


def _distrust(error: ssl.SSLError | None, settings: Settings) -> str | None:
    """Return the reason why the broker's certificate is not accepted; None if that is not the error."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    code = error.verify_code
    if code in _OTHER_NAMES:
        hint = "check" if settings.isb_tls_server_name else "check mesh_address in MESH_CONFIG, or set"
        text = f"is for another name than {server_name(settings)!r} ({hint} ISB_TLS_SERVER_NAME)"
    elif code in _UNKNOWN_AUTHORITIES:
        holder = "ISB_TLS_CA does not hold" if settings.isb_tls_ca else "this system does not hold (set ISB_TLS_CA)"
        text = f"is signed by an authority that {holder}"
    elif code == _EXPIRED:
        text = "has expired, or the certificate of its authority has (ISB_TLS_CA)"
    elif code == _NOT_YET_VALID:
        text = "is not valid yet, or the clock of this host is wrong"
    else:
        text = f"is not accepted: {error.verify_message} (ISB_TLS_CA)"
    return f"cannot be trusted: its certificate {text}"


def _refusal(report: str, settings: Settings) -> str | None:
    """Return the reason why the broker refuses our certificate; None if it does not report a refusal."""
    alert = _ALERT.search(report)
    if alert is None:
        return None
    if settings.isb_tls_cert is None:
        return "wants a client's certificate: set ISB_TLS_CERT and ISB_TLS_KEY"
    refusal = _REFUSALS.get(alert[1], "it is not of the kind that the broker wants")
    return f"refuses this client's certificate (ISB_TLS_CERT): {refusal}"


def _reason(error: OSError) -> str:
    """Return OpenSSL's own text, without the reference to a line of Python's source that it contains."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error)
