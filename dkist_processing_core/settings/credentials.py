"""
Which destination a credential may be sent to, depending on the source that names the credential and the destination.

A user who can put a file `.env` into a folder controls the settings of programs that run there. A credential that only
the environment holds is therefore not sent to an address in such a file, nor to a server with a certificate that such a
file trusts. It is not passed to programs in a folder that such a file names either. The environment can allow all of
this. Not here: whether the file itself may be read (origin), and the settings (configuration).
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping

from dkist_processing_core.text.redaction import is_secret_name

OPT_IN = "dkist_core_trust_dotenv"
_BROKER = "interservice-bus"
_OF_BROKER = ("isb_username", "isb_password", "isb_tls_key")
_AUTHENTICATES_BROKER = ("isb_tls_ca", "isb_tls_server_name")
_ENVIRONMENTS = "dkist_core_environments_dir"
_INBOX = "dkist_core_inbox"
_OF_DATABASE = ("pgpassword", "pgpassfile")
_AIRFLOW = "dkist_core_airflow_url"
_OF_AIRFLOW = ("dkist_core_airflow_password", "dkist_core_airflow_token_file")
# The fingerprint of the key that signs Python's releases; every official Docker image for Python sets it.
_PUBLIC = frozenset({"gpg_key"})
_ENDPOINT = r"otel_exporter_otlp_(?:\w+_)?endpoint"
_OF_COLLECTOR = r"otel_exporter_otlp_(?:\w+_)?(?:headers|client_key)"
_YES = frozenset({"1", "true", "yes", "on", "t", "y"})


def objection(
    environ: Mapping[str, str | None], dotenv: Mapping[str, str | None], given: Collection[str], file: str
) -> str | None:
    """
    Return a message that names a credential of the environment that would be sent to an address in the file.

    Return None if there is no such credential, or if sending it is allowed.

    Args:
        environ: the variables, by their names in small letters.
        dotenv: the values in the file, by their names in small letters.
        given: the names of the settings that a caller passes, which take precedence over both.
        file: the path of the file.

    """
    if (environ.get(OPT_IN) or "").strip().lower() in _YES:
        return None
    decided = {name: value for name, value in dotenv.items() if value and name not in given and not environ.get(name)}
    found = [*_found(decided, {name for name, value in environ.items() if value and name not in given})]
    if not found:
        return None
    names, credentials = ({name.upper(): None for name in each} for each in zip(*found, strict=True))
    destination, credential = ", ".join(names), ", ".join(credentials)
    return (
        f"{destination}: found in {file}, and {credential} in the environment, which would go to an address in "
        f"the file; expected both in the same place: set {destination} in the environment, or {credential} in the "
        f"file, or allow it by {OPT_IN.upper()}=1 in the environment"
    )


def _found(decided: Mapping[str, str | None], variables: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each destination that the file names, with a credential of the environment that would be sent there."""
    mesh = _services(decided.get("mesh_config"))
    brokers = ["mesh_config"] if _BROKER in mesh else []
    brokers += [name for name in _AUTHENTICATES_BROKER if name in decided]
    for broker in brokers:
        yield from ((broker, name) for name in _OF_BROKER if name in variables)
    if _ENVIRONMENTS in decided:
        credentials = (name for name in variables if name in _OF_BROKER or is_secret_name(name.upper()))
        yield from ((_ENVIRONMENTS, name) for name in sorted(credentials) if name not in _PUBLIC)
    if _INBOX in decided:
        yield from ((_INBOX, name) for name in _OF_DATABASE if name in variables)
    if _AIRFLOW in decided:
        yield from ((_AIRFLOW, name) for name in _OF_AIRFLOW if name in variables)
    collectors = [name for name in decided if re.fullmatch(_ENDPOINT, name)]
    collectors += ["mesh_config"] if any(name.startswith("otlp-") for name in mesh) else []
    for collector in collectors:
        yield from ((collector, name) for name in variables if re.fullmatch(_OF_COLLECTOR, name))


def _services(text: str | None) -> Collection[str]:
    try:
        services = json.loads(text or "{}")
    except (ValueError, RecursionError):
        # The code that reads this setting reports the error.
        return ()
    return [str(name) for name in services] if isinstance(services, dict) else ()
