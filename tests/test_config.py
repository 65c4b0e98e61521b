"""
Settings: read from the environment, checked when they are read, and documented.

`python -m tests.test_config` prints docs/reference/settings.md.
"""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator, model_validator

from dkist_processing_core import config
from dkist_processing_core.config import (
    UNKNOWN_SERVICE,
    DKISTProcessingCoreConfiguration,
    MeshService,
)
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.settings.example import example_environment
from dkist_processing_core.settings.origin import _other_owner, _others_of
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.settings.wording import expectation
from tests.generated import generated_by
from tests.strategies import texts

ROOT = Path(__file__).parents[1]
FIELDS = DKISTProcessingCoreConfiguration.model_fields
CANARY = "canary-hunter22"
BROKER = {"interservice-bus": {"mesh_address": "broker.example", "mesh_port": 5671}}

# Wrong values of each variable that can have one.
WRONG = {
    "DKIST_CORE_TRUST_DOTENV": ["perhaps"],
    "MESH_CONFIG": [
        "nonsense",
        "[]",
        "null",
        '{"a":' * 100_000,
    ],
    "ISB_EXCHANGE": ["x" * 256],
    "ISB_EVENT_EXCHANGE": ["x" * 256],
    "ISB_QUEUE_TYPE": ["stream", "Quorum"],
    "DKIST_CORE_LOG_FORMAT": ["xml", "JSON"],
    "ISB_ARCHIVE_MAX_BYTES": ["99999999", "5 GB", "1.5"],
    "EVENT_FLUSH_TIMEOUT": ["-1", "nan", "inf", "soon"],
    "DKIST_CORE_SAMPLE_SECONDS": ["-1", "nan", "inf", "often"],
    "RETRY_CONFIG": ["nonsense", "[]", '{"retry_delay": "long"}', '{"retry_jitter": [1]}'],
    "PIP_TIMEOUT": ["-1", "x", "1.5"],
    "PIP_RETRIES": ["-1", "x"],
    "DKIST_CORE_ENVIRONMENTS_MAX_DAYS": ["-1", "nan", "inf", "a month"],
    "DKIST_CORE_ENVIRONMENTS_MAX_BYTES": ["-1", "20 GB", "1.5"],
    "IS_NOTEBOOK_EXECUTION_ENVIRONMENT": ["perhaps"],
    "OTEL_TRACES_EXPORTER": ["zipkin", "otlp,zipkin", "otlp,none", ","],
    "OTEL_METRICS_EXPORTER": ["prometheus"],
    "OTEL_LOGS_EXPORTER": ["file"],
    "DKIST_CORE_AIRFLOW_URL": ["airflow.example", "ftp://airflow", "http://", "http://[::1", "http://airflow/?a=b"],
    "DKIST_CORE_DASHBOARD_PORT": ["-1", "65536", "http"],
    "DKIST_CORE_DASHBOARD_READ_ONLY": ["perhaps"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["ftp://collector:4317", "http://", "http://[::1"],
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ["tcp://collector:4317"],
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ["://collector"],
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": ["file:///tmp/x"],
    "OTEL_EXPORTER_OTLP_PROTOCOL": ["http/json"],
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ["thrift"],
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": ["grpc,http/protobuf"],
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": ["x"],
}
_AT_BUS = '{"interservice-bus": {"mesh_address": %s, "mesh_port": %s}}'
_HOST = "a host name or an address"
_PORT = "a whole number from 1 to 65535"
_ADDRESS = '{"mesh_address": "broker.example", "mesh_port": 5672}'
# Wrong parts of MESH_CONFIG, what the message shows of each, and what it names as expected.
WRONG_PARTS = {
    '{"interservice-bus": 1}': ('1 as "interservice-bus"', f"an object as {_ADDRESS}"),
    '{"theirs": null}': ('null as "theirs"', f"an object as {_ADDRESS}"),
    '{"interservice_bus": {"mesh_address": "b", "mesh_port": 1}}': ('"interservice_bus"', '"interservice-bus"'),
    '{"Interservice-Bus": {"mesh_address": "b", "mesh_port": 1}}': ('"Interservice-Bus"', '"interservice-bus"'),
    '{"interservice-buss": {"mesh_address": "b", "mesh_port": 1}}': ('"interservice-buss"', '"interservice-bus"'),
    '{"intreservice-bus": {"mesh_address": "b", "mesh_port": 1}}': ('"intreservice-bus"', '"interservice-bus"'),
    '{"interservice-bus": {"mesh_adress": "b", "mesh_port": 1}}': (
        '"mesh_adress" in "interservice-bus"',
        '"mesh_address"',
    ),
    '{"interservice-bus": {"host": "b", "port": 1}}': (
        '"host", "port" in "interservice-bus"',
        '"mesh_address" and "mesh_port"',
    ),
    '{"interservice-bus": {"mesh_port": 5672}}': ('no "mesh_address" in "interservice-bus"', _ADDRESS),
    '{"theirs": {"mesh_address": "b"}}': ('no "mesh_port" in "theirs"', _ADDRESS),
    _AT_BUS % ('""', 5672): ('"mesh_address": "" in "interservice-bus"', _HOST),
    _AT_BUS % ('"amqp://b"', 5672): ('"mesh_address": "amqp://b" in "interservice-bus"', _HOST),
    _AT_BUS % ('"b:5672"', 5672): ('"mesh_address": "b:5672" in "interservice-bus"', _HOST),
    _AT_BUS % ('"b/vhost"', 5672): ('"mesh_address": "b/vhost" in "interservice-bus"', _HOST),
    _AT_BUS % (5, 5672): ('"mesh_address": 5 in "interservice-bus"', _HOST),
    _AT_BUS % ('"b"', 65536): ('"mesh_port": 65536 in "interservice-bus"', _PORT),
    _AT_BUS % ('"b"', -1): ('"mesh_port": -1 in "interservice-bus"', _PORT),
    _AT_BUS % ('"b"', 0): ('"mesh_port": 0 in "interservice-bus"', _PORT),
    _AT_BUS % ('"b"', "true"): ('"mesh_port": true in "interservice-bus"', _PORT),
    _AT_BUS % ('"b"', '"five"'): ('"mesh_port": "five" in "interservice-bus"', _PORT),
    _AT_BUS % ('"b"', "1.5"): ('"mesh_port": 1.5 in "interservice-bus"', _PORT),
    '{"theirs": {"mesh_address": "b", "mesh_port": 1}, "theirs": {"mesh_address": "c", "mesh_port": 1}}': (
        '"theirs" twice',
        "it once",
    ),
    _AT_BUS % ('"b", "mesh_address": "c"', 1): ('"mesh_address" twice', "it once"),
}
# Any text is valid: only the broker, the collector or the file system can check it.
ANY_TEXT = [
    "BUILD_VERSION",
    "ISB_USERNAME",
    "ISB_PASSWORD",
    "ISB_VHOST",
    "ISB_TLS_CA",
    "ISB_TLS_CERT",
    "ISB_TLS_KEY",
    "ISB_TLS_SERVER_NAME",
    "DKIST_CORE_AIRFLOW_USERNAME",
    "DKIST_CORE_AIRFLOW_PASSWORD",
    "DKIST_CORE_AIRFLOW_TOKEN_FILE",
    "DKIST_CORE_DASHBOARD_HOST",
    "DKIST_CORE_DASHBOARD_LOG_URL",
    "DKIST_CORE_DASHBOARD_READ_TOKEN_FILE",
    "DKIST_CORE_DASHBOARD_TOKEN_FILE",
    "DKIST_CORE_DASHBOARD_TRACE_URL",
    "DKIST_CORE_DASHBOARD_TRUSTED_PROXIES",
    "DKIST_CORE_DASHBOARD_USER_HEADER",
    "DKIST_CORE_ENVIRONMENTS_DIR",
    "DKIST_CORE_EXPECT",
    "DKIST_CORE_INBOX",
    "DKIST_CORE_NOTIFY",
    "DKIST_CORE_STATE_DIR",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "DKIST_SERVICE_VERSION",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    "OTEL_RESOURCE_ATTRIBUTES",
]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove every setting, and change to a folder without `.env`."""
    for name in FIELDS:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


# Correct values


def test_without_any_variable_the_defaults_hold() -> None:
    """Without settings, a task runs on a laptop: on the embedded journal, without telemetry."""
    settings = DKISTProcessingCoreConfiguration()

    assert {name: getattr(settings, name) for name in FIELDS} == {name: field.default for name, field in FIELDS.items()}
    assert not settings.names_broker
    assert (settings.isb_mesh_service.host, settings.isb_mesh_service.port) == ("localhost", 5672)
    assert (settings.build_version, settings.isb_vhost, settings.event_flush_timeout) == ("dev", "/", 2.0)


def test_each_variable_reaches_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is named as its field, in capitals."""
    given_values = {
        "BUILD_VERSION": "1.2.3",
        "MESH_CONFIG": json.dumps(BROKER),
        "ISB_PASSWORD": CANARY,
        "ISB_QUEUE_TYPE": "quorum",
        "ISB_TLS_CA": "/etc/ca.pem",
        "EVENT_FLUSH_TIMEOUT": "0.5",
        "PIP_RETRIES": "0",
        "OTEL_SDK_DISABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example:4317",
    }
    for name, value in given_values.items():
        monkeypatch.setenv(name, value)

    settings = DKISTProcessingCoreConfiguration.read()

    assert settings.names_broker
    assert (settings.isb_mesh_service.host, settings.isb_mesh_service.port) == ("broker.example", 5671)
    assert (settings.build_version, settings.isb_password, settings.isb_queue_type) == ("1.2.3", CANARY, "quorum")
    assert (settings.isb_tls_ca, settings.event_flush_timeout) == (Path("/etc/ca.pem"), 0.5)
    assert (settings.pip_retries, settings.otel_sdk_disabled) == (0, True)
    assert settings.otel_exporter_otlp_endpoint == "https://collector.example:4317"


@pytest.mark.parametrize("name", FIELDS)
def test_an_empty_variable_counts_as_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's specification requires it, and `NAME=` in a file of settings means it."""
    monkeypatch.setenv(name.upper(), "")

    assert FIELDS[name].default == getattr(DKISTProcessingCoreConfiguration(), name)


def test_keywords_outrank_the_environment_and_that_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The source nearer to the code takes precedence."""
    (tmp_path / ".env").write_text("PIP_TIMEOUT=1\nPIP_RETRIES=1\nISB_VHOST=file\n")
    monkeypatch.setenv("PIP_TIMEOUT", "2")
    monkeypatch.setenv("PIP_RETRIES", "2")

    settings = DKISTProcessingCoreConfiguration(pip_timeout=3)

    assert (settings.pip_timeout, settings.pip_retries, settings.isb_vhost) == (3, 2, "file")


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    """A user who can write it would decide where events and credentials go."""
    file = tmp_path / ".env"
    file.write_text("ISB_VHOST=file\n")
    file.chmod(mode)

    sentence = re.escape(f".env: found {file}, which others can write to (mode {mode:04o}), expected a file of ")
    for read in (DKISTProcessingCoreConfiguration, DKISTProcessingCoreConfiguration.read):
        with pytest.raises(ConfigurationError, match=f"^{sentence}"):
            read()
    file.chmod(0o644)
    assert DKISTProcessingCoreConfiguration.read().isb_vhost == "file"


def test_a_file_of_another_user_is_refused() -> None:
    """It is read from the current folder, where another user may have put it; a file of root is accepted."""

    def owned_by(uid: int) -> os.stat_result:
        return os.stat_result((0o100644, 1, 1, 1, uid, 0, 0, 0, 0, 0))

    assert _others_of(owned_by(os.geteuid() + 54321)) == f"belongs to uid {os.geteuid() + 54321}"
    assert [_others_of(owned_by(uid)) for uid in (0, os.geteuid())] == [None, None]


def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    """It would choose which of this user's own files is read; this user's own link is accepted."""
    (tmp_path / "own").write_text("ISB_VHOST=file\n")
    (tmp_path / ".env").symlink_to("own")
    assert DKISTProcessingCoreConfiguration.read().isb_vhost == "file"

    # Only root can change the owner of a link.
    link = tmp_path / ".env"
    if os.geteuid() == 0:
        os.chown(link, 54321, 54321, follow_symlinks=False)
        with pytest.raises(
            ConfigurationError, match=rf"^\.env: found {link}, which is a link that belongs to uid 54321"
        ):
            DKISTProcessingCoreConfiguration.read()
    else:
        given = os.stat_result((0o120777, 1, 1, 1, os.geteuid() + 54321, 0, 0, 0, 0, 0))
        assert _other_owner(given) == f"belongs to uid {os.geteuid() + 54321}"


ENVIRONMENTS = "DKIST_CORE_ENVIRONMENTS_DIR=envs\n"
INBOX = "DKIST_CORE_INBOX=postgresql://core@elsewhere/runs\n"
MESH = f"MESH_CONFIG='{json.dumps(BROKER)}'\n"


@pytest.mark.parametrize(
    ("file", "variables", "destination", "credential"),
    [
        (MESH, {"ISB_PASSWORD": CANARY}, "MESH_CONFIG", "ISB_PASSWORD"),
        (MESH + "DKIST_CORE_TRUST_DOTENV=1\n", {"ISB_USERNAME": "me"}, "MESH_CONFIG", "ISB_USERNAME"),
        (MESH + "ISB_PASSWORD=other\n", {"isb_password": CANARY}, "MESH_CONFIG", "ISB_PASSWORD"),
        (MESH, {"ISB_TLS_KEY": "/k.pem"}, "MESH_CONFIG", "ISB_TLS_KEY"),
        ("ISB_TLS_CA=ca.pem\n", {"ISB_PASSWORD": CANARY}, "ISB_TLS_CA", "ISB_PASSWORD"),
        ("ISB_TLS_SERVER_NAME=mine.example\n", {"ISB_PASSWORD": CANARY}, "ISB_TLS_SERVER_NAME", "ISB_PASSWORD"),
        (INBOX, {"PGPASSWORD": CANARY}, "DKIST_CORE_INBOX", "PGPASSWORD"),
        (
            "DKIST_CORE_AIRFLOW_URL=https://elsewhere\n",
            {"DKIST_CORE_AIRFLOW_PASSWORD": CANARY},
            "DKIST_CORE_AIRFLOW_URL",
            "DKIST_CORE_AIRFLOW_PASSWORD",
        ),
        (ENVIRONMENTS, {"ISB_PASSWORD": CANARY}, "DKIST_CORE_ENVIRONMENTS_DIR", "ISB_PASSWORD"),
        (ENVIRONMENTS, {"ARCHIVE_TOKEN": CANARY}, "DKIST_CORE_ENVIRONMENTS_DIR", "ARCHIVE_TOKEN"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c.example:4317\n",
            {"OTEL_EXPORTER_OTLP_HEADERS": f"api-key={CANARY}"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        (
            """MESH_CONFIG={"otlp-logs-endpoint": {"mesh_address": "c.example", "mesh_port": 4317}}\n""",
            {"OTEL_EXPORTER_OTLP_LOGS_HEADERS": f"api-key={CANARY}"},
            "MESH_CONFIG",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
        ),
    ],
)
def test_no_credential_of_the_environment_goes_where_a_file_says(
    file: str,
    variables: dict[str, str],
    destination: str,
    credential: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One error names both sources, and not the secret; the permission for it counts only in the environment."""
    (tmp_path / ".env").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        DKISTProcessingCoreConfiguration.read()

    assert str(refused.value).startswith(f"{destination}: found in {tmp_path / '.env'}, and {credential} in the envi")
    assert CANARY not in str(refused.value)
    monkeypatch.setenv("DKIST_CORE_TRUST_DOTENV", "1")
    assert DKISTProcessingCoreConfiguration.read().dkist_core_trust_dotenv


@pytest.mark.parametrize(
    ("file", "variables"),
    [
        (MESH + f"ISB_USERNAME=me\nISB_PASSWORD={CANARY}\n", {}),
        (f"ISB_PASSWORD={CANARY}\n", {"MESH_CONFIG": json.dumps(BROKER)}),
        (MESH, {"MESH_CONFIG": json.dumps(BROKER), "ISB_PASSWORD": CANARY}),
        (MESH, {"ISB_VHOST": "/here", "ISB_PASSWORD": ""}),
        ("MESH_CONFIG={}\n", {"ISB_PASSWORD": CANARY}),
        (f"ISB_TLS_CA=ca.pem\nISB_PASSWORD={CANARY}\n", {}),
        (ENVIRONMENTS, {"DKIST_CORE_ENVIRONMENTS_DIR": "here", "ISB_PASSWORD": CANARY}),
        (ENVIRONMENTS, {"GPG_KEY": "0123456789ABCDEF"}),
    ],
)
def test_a_file_may_name_a_broker_and_its_credentials(
    file: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Both of one source may go together, and a credential of the file goes to the broker that the environment names.
    """
    (tmp_path / ".env").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert DKISTProcessingCoreConfiguration.read() == DKISTProcessingCoreConfiguration()


def test_a_file_may_hold_what_is_not_ours(tmp_path: Path) -> None:
    """Projects share one `.env`: unknown keys belong to other programs."""
    (tmp_path / ".env").write_text("SOMEBODY_ELSES=1\nBUILD_VERSION=7\n# a comment\n")

    assert DKISTProcessingCoreConfiguration().build_version == "7"


@pytest.mark.parametrize("endpoint", ["http://collector.example:99999", "https://c.example:port/x", "c.example:99999"])
def test_an_endpoint_with_a_wrong_port_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, as for any wrong value."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)

    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        DKISTProcessingCoreConfiguration.read()


def test_an_endpoint_may_be_an_address_alone() -> None:
    """For gRPC the specification allows host and port without a scheme."""
    settings = DKISTProcessingCoreConfiguration(otel_exporter_otlp_endpoint="collector.example:4317")

    assert settings.otel_exporter_otlp_endpoint == "collector.example:4317"


def test_retrying_is_configured_as_clients_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults and variable are those of the earlier releases."""
    default = DKISTProcessingCoreConfiguration().retry_config
    monkeypatch.setenv("RETRY_CONFIG", '{"retry_tries": 3, "retry_jitter": [2, 3], "unknown": 1}')

    changed = DKISTProcessingCoreConfiguration().retry_config

    assert (default.retry_delay, default.retry_backoff, default.retry_jitter) == (1, 2, (1, 10))
    assert (default.retry_max_delay, default.retry_tries) == (300, -1)
    assert (changed.retry_tries, changed.retry_jitter, changed.retry_delay) == (3, (2, 3), 1)


# Wrong values


def test_every_variable_is_either_checked_or_any_text() -> None:
    """The lists of this test are complete."""
    assert sorted([*WRONG, *ANY_TEXT]) == sorted(name.upper() for name in FIELDS)


@pytest.mark.parametrize(
    ("variable", "value"),
    [pytest.param(name, value, id=f"{name}={value[:20]}") for name, values in WRONG.items() for value in values],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence: the variable, the found and the expected value; and no text of pydantic."""
    monkeypatch.setenv(variable, value)
    shown = repr(value if len(value) <= 120 else f"{value[:120]}…")

    with pytest.raises(ConfigurationError) as caught:
        DKISTProcessingCoreConfiguration.read()

    assert str(caught.value) == f"{variable}: found {shown}, expected {expectation(FIELDS[variable.lower()])}"


@pytest.mark.parametrize("value", WRONG_PARTS)
def test_a_wrong_part_of_mesh_config_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The message shows the wrong part, and not the whole of a long text."""
    monkeypatch.setenv("MESH_CONFIG", value)
    found, expected = WRONG_PARTS[value]

    with pytest.raises(ConfigurationError) as caught:
        DKISTProcessingCoreConfiguration.read()

    assert str(caught.value) == f"MESH_CONFIG: found {found}, expected {expected}"


@pytest.mark.parametrize("port", ["5672", '"5672"', '" 5672 "', "5672.0"])
def test_the_port_may_be_a_text(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    """Release 7.x accepts these forms."""
    monkeypatch.setenv("MESH_CONFIG", _AT_BUS % ('"b"', port))

    assert DKISTProcessingCoreConfiguration.read().isb_mesh_service.port == 5672


@pytest.mark.parametrize("name", ["interservice-bus-api", "service-bus", "bus", "interservice"])
def test_a_mesh_without_a_broker_is_valid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A name that differs by more than a typing error is a client's."""
    monkeypatch.setenv("MESH_CONFIG", f'{{"{name}": {{"mesh_address": "b", "mesh_port": 1}}}}')

    assert not DKISTProcessingCoreConfiguration.read().names_broker


def test_several_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a user would correct one after the other, with a new process each time."""
    monkeypatch.setenv("ISB_QUEUE_TYPE", "stream")
    monkeypatch.setenv("PIP_TIMEOUT", "x")
    monkeypatch.setenv("MESH_CONFIG", '{"a": {"mesh_port": "x"}, "b": 1}')

    with pytest.raises(
        ConfigurationError, match=r"^MESH_CONFIG: found .*; ISB_QUEUE_TYPE: found 'stream', .*; PIP_TIMEOUT: found 'x'"
    ) as caught:
        DKISTProcessingCoreConfiguration.read()

    assert str(caught.value).count("MESH_CONFIG") == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MESH_CONFIG", f'{{"interservice-bus": "amqp://user:{CANARY}@host"}}'),
        ("MESH_CONFIG", f'{{"password": "{CANARY}"}}'),
        ("MESH_CONFIG", '{"interservice-bus": {"mesh_address": "amqp://core:canary@127.0.0.1", "mesh_port": 1}}'),
        ("MESH_CONFIG", '{"interservice-bus": {"mesh_address": "core:canary@127.0.0.1", "mesh_port": 1}}'),
        ("MESH_CONFIG", '{"interservice-bus": {"mesh_address": "core:a/canary@b", "mesh_port": 1}}'),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"ftp://user:{CANARY}@collector"),
        ("ISB_QUEUE_TYPE", CANARY),
        ("RETRY_CONFIG", CANARY),
    ],
)
def test_no_secret_is_in_a_message(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a password in the wrong place nor one in a URL is printed."""
    monkeypatch.setenv("ISB_PASSWORD", CANARY)
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=f"^{variable}: found ") as caught:
        DKISTProcessingCoreConfiguration.read()

    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_wrong_secret_is_not_shown() -> None:
    """A variable with the name of a secret is never quoted."""
    with pytest.raises(
        ConfigurationError, match=r"^ISB_PASSWORD: found a value that is not shown, expected a password$"
    ):
        DKISTProcessingCoreConfiguration(isb_password=[CANARY])


def test_a_wrong_value_in_the_file_is_shown_like_any_other(tmp_path: Path) -> None:
    """The message names the source of the value."""
    (tmp_path / ".env").write_text("ISB_QUEUE_TYPE=stream\n")

    with pytest.raises(ConfigurationError, match=r"^ISB_QUEUE_TYPE: found 'stream', expected classic or quorum$"):
        DKISTProcessingCoreConfiguration.read()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """The error is the one that all settings raise."""
    (tmp_path / ".env").write_bytes(b"BUILD_VERSION=\xff\xfe\n")

    with pytest.raises(ConfigurationError, match=r"^\.env: found a file that cannot be read \(UnicodeDecodeError\)"):
        DKISTProcessingCoreConfiguration.read()


@given(st.sampled_from([*WRONG, *ANY_TEXT]), texts().filter(lambda text: "\x00" not in text))
def test_no_value_raises_anything_else(variable: str, value: str) -> None:
    """Any value of an environment is accepted or refused by name."""
    with pytest.MonkeyPatch.context() as patch:
        # Bytes that are not UTF-8 reach Python as surrogates of this range; others cannot be in an environment.
        patch.setenv(variable, re.sub("[\ud800-\udfff]", "\udcff", value))
        try:
            settings = DKISTProcessingCoreConfiguration.read()
        except ConfigurationError as error:
            assert str(error).startswith(f"{variable}: found ")  # noqa: PT017 - or it is taken
        else:
            assert isinstance(settings, DKISTProcessingCoreConfiguration)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "fe80::1%eth0", "rabbit_1", "broker.example", "bröker"])
def test_a_service_is_named_by_a_host_or_an_address(host: str) -> None:
    """Every host to which a socket can connect is accepted."""
    assert MeshService(host=host, port=1).host == host


def test_an_address_that_is_none_is_in_no_error() -> None:
    """A service that is created by hand does not show it either."""
    with pytest.raises(ValueError, match="not a host name or address") as caught:
        MeshService(host=f"amqp://core:{CANARY}@127.0.0.1", port=1)

    assert CANARY not in f"{caught.value!s} {caught.value!r}"


# Values of telemetry's variables, by the specification


@pytest.mark.parametrize(
    ("value", "expected"),
    [("OTLP", "otlp"), ("otlp, Console", "otlp,console"), ("console,console", "console"), ("None", "none")],
)
def test_exporters_are_listed_in_any_case(value: str, expected: str) -> None:
    """The specification defines lists, and leaves the case of their values open."""
    assert DKISTProcessingCoreConfiguration(otel_traces_exporter=value).otel_traces_exporter == expected


def test_a_protocol_is_named_in_any_case() -> None:
    """The case is ignored, as for exporters."""
    settings = DKISTProcessingCoreConfiguration(otel_exporter_otlp_protocol="HTTP/Protobuf")

    assert settings.otel_exporter_otlp_protocol == "http/protobuf"


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("TRUE", True), ("false", False), ("maybe", False), ("1", False)]
)
def test_only_true_disables_telemetry(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """Any other value means false, by the specification."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", value)

    assert DKISTProcessingCoreConfiguration.read().otel_sdk_disabled is expected


# Lenient reading


def test_read_leniently_what_events_do_not_need_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The complaint is the sentence that a strict reading would raise."""
    for name, value in {"PIP_TIMEOUT": "x", "RETRY_CONFIG": "[]", "OTEL_TRACES_EXPORTER": "zipkin"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_RETRIES", "7")

    settings, complaint = DKISTProcessingCoreConfiguration.read_leniently()

    assert (settings.pip_timeout, settings.pip_retries, settings.otel_traces_exporter) == (15, 7, None)
    assert settings.retry_config == FIELDS["retry_config"].default
    assert complaint is not None
    assert [name in complaint for name in ("PIP_TIMEOUT", "RETRY_CONFIG", "OTEL_TRACES_EXPORTER")] == [True] * 3


class ClientConfiguration(DKISTProcessingCoreConfiguration):
    """Settings of a client, which creates them while its modules are imported."""

    gain: int = 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("PIP_RETRIES", "many"),
        ("EVENT_FLUSH_TIMEOUT", "soon"),
    ],
)
def test_a_client_is_imported_with_a_wrong_value_that_its_events_do_not_need(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str
) -> None:
    """OpenTelemetry's specification requires it for unknown values: a warning, and the default."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("GAIN", "3")

    settings = ClientConfiguration()

    default = DKISTProcessingCoreConfiguration.model_fields[variable.lower()].get_default()
    assert (getattr(settings, variable.lower()), settings.gain) == (default, 3)
    (warning,) = caplog.records
    assert warning.getMessage().startswith(
        f"ClientConfiguration has a default instead: {variable}: found '{value}', expected "
    )


def test_an_empty_variable_is_a_value_to_a_client_and_none_to_us(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fields of clients behave as in 7.x; this includes the file `.env`."""

    class Settings(DKISTProcessingCoreConfiguration):
        label: str = "unlabelled"
        colour: str = "grey"

    monkeypatch.setenv("LABEL", "")
    monkeypatch.setenv("ISB_USERNAME", "")
    (tmp_path / ".env").write_text("COLOUR=\nISB_VHOST=\n")
    monkeypatch.chdir(tmp_path)

    settings = Settings()

    assert (settings.label, settings.colour) == ("", "")
    assert (settings.isb_username, settings.isb_vhost) == ("guest", "/")


def test_a_client_s_settings_are_a_table_for_its_documents() -> None:
    """For every field: the variable, by its alias if it has one, and pydantic's description."""

    class Settings(DKISTProcessingCoreConfiguration):
        gain: int = Field(default=1, description="one | two", validation_alias="DETECTOR_GAIN")

    markdown = Settings().model_fields_to_markdown_table().splitlines()
    restructured = Settings().model_fields_to_restructured_text_table().splitlines()

    known = str(Settings.model_fields["gain"])
    assert "default=1" in known
    assert markdown[0].startswith("| Environment Variable ")
    assert [cell.strip() for cell in re.split(r"(?<!\\)\|", markdown[-1])[1:3]] == [
        "DETECTOR_GAIN",
        known.replace("|", r"\|"),
    ]
    assert len({len(line) for line in markdown}) == 1
    assert len(markdown) == len(Settings.model_fields) + 2
    assert restructured[:4] == [".. list-table::", "   :widths: 10 90", "   :header-rows: 1", ""]
    assert restructured[-2:] == ["   * - DETECTOR_GAIN", f"     - {known}"]
    assert "   * - MESH_CONFIG" in restructured


@pytest.mark.parametrize(
    ("variable", "value"),
    [("GAIN", "much"), ("MESH_CONFIG", "[]"), ("ISB_QUEUE_TYPE", "stream")],
)
def test_a_client_is_told_what_its_events_or_itself_cannot_do_without(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """One error names its value, even if another wrong value only needs a warning."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")

    with pytest.raises(ConfigurationError, match=f"{variable}: found .*"):
        ClientConfiguration()


def test_a_client_s_check_of_several_fields_is_heard_after_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs when each field is valid by itself, and its objection is the only error."""

    class Settings(ClientConfiguration):
        @model_validator(mode="after")
        def refuse(self) -> "Settings":
            msg = "gain and bias do not go together"
            raise ValueError(msg)

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")

    with pytest.raises(ConfigurationError, match=r"^gain and bias do not go together$"):
        Settings()


def test_a_client_s_own_words_are_not_passed_over() -> None:
    """A wrong argument is the program's mistake, and not a setting of the host."""
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER: found 'zipkin'"):
        ClientConfiguration(otel_traces_exporter="zipkin")


def test_where_a_client_s_own_service_is_reached_is_the_client_s_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 7.x, any address and port; the library's own services are checked in addition."""
    foreign = '"object-store": {"mesh_address": "https://objects.example/bucket", "mesh_port": 70000}'
    monkeypatch.setenv("MESH_CONFIG", f'{{{foreign}, "interservice-bus": {{"mesh_address": "b", "mesh_port": 1}}}}')

    service = DKISTProcessingCoreConfiguration().service_mesh_detail("object-store")

    assert (service.host, service.port) == ("https://objects.example/bucket", 70000)
    monkeypatch.setenv("MESH_CONFIG", f'{{{foreign}, "interservice-bus": {{"mesh_address": "b", "mesh_port": 70000}}}}')
    with pytest.raises(ConfigurationError, match="MESH_CONFIG"):
        DKISTProcessingCoreConfiguration()


def test_read_leniently_nothing_is_wrong_where_nothing_is() -> None:
    """There is no complaint."""
    assert DKISTProcessingCoreConfiguration.read_leniently() == (DKISTProcessingCoreConfiguration(), None)


@pytest.mark.parametrize("variable", ["MESH_CONFIG", "ISB_EXCHANGE"])
def test_read_leniently_a_wrong_bus_is_refused_all_the_same(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events must not go to another bus than the intended one."""
    monkeypatch.setenv(variable, "x" * 256)
    monkeypatch.setenv("PIP_TIMEOUT", "x")

    with pytest.raises(ConfigurationError, match=f"^{variable}: found .*; PIP_TIMEOUT: found 'x'"):
        DKISTProcessingCoreConfiguration.read_leniently()


def test_read_leniently_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """It may be the file that names the broker."""
    (tmp_path / ".env").write_bytes(b"BUILD_VERSION=\xff\xfe\n")

    with pytest.raises(ConfigurationError, match=r"^\.env"):
        DKISTProcessingCoreConfiguration.read_leniently()


# No secret is shown


def test_the_secrets_of_the_settings_are_known(tmp_path: Path) -> None:
    """Values of the file are not in the environment; a default of five characters is not a secret."""
    before = secrets_in(DKISTProcessingCoreConfiguration())
    (tmp_path / ".env").write_text(f"ISB_PASSWORD={CANARY}\n")

    assert (before, secrets_in(DKISTProcessingCoreConfiguration()), secrets_in(None)) == ([], [CANARY], [CANARY])


def test_no_password_is_in_any_text_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither repr nor str nor the log shows it; every setting is logged."""
    monkeypatch.setenv("ISB_PASSWORD", CANARY)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{CANARY}@collector:4317")
    caplog.set_level(logging.INFO)

    settings = DKISTProcessingCoreConfiguration()
    settings.log_configurations()

    assert settings.isb_password == CANARY
    assert CANARY not in caplog.text
    assert CANARY not in f"{settings} {settings!r}"
    assert {name for name in FIELDS if f"{name}: " in caplog.text} == set(FIELDS)


class Credential(BaseModel):
    """A client's credentials for an archive."""

    client_id: str
    client_secret: str


class InstrumentSettings(DKISTProcessingCoreConfiguration):
    """The settings of a pipeline, as clients define them."""

    archives: list[Credential] = Field(default=[Credential(client_id="me", client_secret=CANARY)])

    archive_password: str = CANARY
    camera_count: int = Field(default=2, ge=1)
    archive_key: int = 1
    wavelengths: list[float] = Field(default=[630.2])

    @field_validator("camera_count")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            msg = "cameras come in pairs"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "InstrumentSettings":
        if self.camera_count == 4 and self.wavelengths == []:
            msg = "four cameras need a wavelength"
            raise ValueError(msg)
        return self


def test_a_subclass_shows_no_password_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Its author need not know how to hide a field."""
    caplog.set_level(logging.INFO)
    settings = InstrumentSettings()

    settings.log_configurations()

    assert CANARY not in f"{settings} {settings!r} {caplog.text}"
    assert "camera_count: 2" in caplog.text
    assert "archives: [{'client_id': 'me', 'client_secret': '[redacted]'}]" in caplog.text


def test_a_subclass_logs_its_own_settings_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Each pipeline logs at its import, and its base has logged its own settings."""
    caplog.set_level(logging.INFO)

    InstrumentSettings().log_configurations(log_parent_configurations=False)

    assert [line.split(":")[0] for line in caplog.messages] == [
        "archives",
        "archive_password",
        "camera_count",
        "archive_key",
        "wavelengths",
    ]


# Clients


def test_a_subclass_adds_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them has a variable, and the base's fields stay."""
    monkeypatch.setenv("CAMERA_COUNT", "6")
    monkeypatch.setenv("WAVELENGTHS", "[1, 2]")
    monkeypatch.setenv("MESH_CONFIG", json.dumps(BROKER))

    settings = InstrumentSettings()

    assert (settings.camera_count, settings.wavelengths, settings.names_broker) == (6, [1.0, 2.0], True)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"CAMERA_COUNT": "x"}, "^CAMERA_COUNT: found 'x', but Input should be a valid integer"),
        ({"CAMERA_COUNT": "3"}, r"^CAMERA_COUNT: found '3', but cameras come in pairs$"),
        ({"CAMERA_COUNT": "4", "WAVELENGTHS": "[]"}, r"^four cameras need a wavelength$"),
        ({"ARCHIVE_KEY": CANARY}, "^ARCHIVE_KEY: found a value that is not shown, expected another$"),
        ({"ARCHIVES": f'[{{"client_secret": "{CANARY}"}}]'}, "^ARCHIVES: found a value that is not shown, expected "),
        ({"WAVELENGTHS": "red"}, '^the settings cannot be read: .*"wavelengths"'),
        ({"CAMERA_COUNT": "x", "PIP_RETRIES": "x"}, "^PIP_RETRIES: found 'x', .*; CAMERA_COUNT: found 'x'"),
    ],
)
def test_a_subclass_is_checked_in_the_same_way(
    values: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error, whichever class declared the field."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=complaint):
        InstrumentSettings()


@pytest.mark.parametrize(
    "name", ["isb_connection_retryer", "isb_producer_connection_parameters", "isb_publish_exchange"]
)
def test_what_is_for_talus_needs_talus(name: str) -> None:
    """It is the clients' library: the values for it are tested in tests/published."""
    settings = DKISTProcessingCoreConfiguration()

    with pytest.raises(ImportError, match=r"is a class of talus, which is not installed here: install it with pip"):
        getattr(settings, name)

    assert settings.isb_queue_arguments == {"x-queue-type": "classic"}


def test_settings_can_be_copied_with_changes() -> None:
    """A client copies a notebook's settings into a pipeline's, and patches the number of processors."""
    settings = DKISTProcessingCoreConfiguration()

    changed = settings.model_copy(update={"is_notebook_execution_environment": True})

    assert (settings.is_notebook_execution_environment, changed.is_notebook_execution_environment) == (False, True)
    assert settings.cpu_count == getattr(os, "process_cpu_count", lambda: len(os.sched_getaffinity(0)))()
    assert isinstance(DKISTProcessingCoreConfiguration.cpu_count, property)


class ForeignMeshService(BaseModel):
    """Another package's class for a service."""

    mesh_address: str = "127.0.0.1"
    mesh_port: int = 0

    @property
    def host(self) -> str:
        """The host."""
        return self.mesh_address

    @property
    def port(self) -> int:
        """The port."""
        return self.mesh_port


def test_an_unknown_service_equals_that_of_another_package() -> None:
    """A client falls back to its own default if ours, on the left, equals that package's."""
    settings = DKISTProcessingCoreConfiguration(mesh_config=BROKER)

    unknown = settings.service_mesh_detail(service_name="object-store")
    known = settings.service_mesh_detail(service_name="interservice-bus")

    assert unknown.__eq__(ForeignMeshService())
    assert not known.__eq__(ForeignMeshService())
    assert unknown != "127.0.0.1:0"
    assert unknown == UNKNOWN_SERVICE


def test_services_are_equal_by_host_and_port() -> None:
    """They can be elements of a set."""
    first, again = MeshService(host="h", port=1), MeshService.model_validate({"mesh_address": "h", "mesh_port": 1})

    assert first == again
    assert len({first, again, MeshService(host="h", port=2)}) == 2


# Import


def python(program: str, **variables: str) -> str:
    """Return the output of a new interpreter."""
    made = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return made.stdout


def test_importing_reads_no_setting() -> None:
    """A wrong variable raises where the settings are read, with its name, and not where the package is imported."""
    program = """if True:
        import dkist_processing_core, dkist_processing_core.config as config
        from dkist_processing_core import TaskBase, Workflow
        print("core_configurations" in vars(config))
        try:
            config.core_configurations
        except config.ConfigurationError as error:
            print(error)
    """

    lines = python(program, MESH_CONFIG="nonsense").splitlines()

    assert lines[0] == "False"
    assert lines[1].startswith("MESH_CONFIG: found 'nonsense', expected a JSON object")


def test_the_settings_of_the_process_are_made_once() -> None:
    """`core_configurations` is read at its first use, and is the same from then on."""
    program = """if True:
        import os
        from dkist_processing_core import config
        os.environ["BUILD_VERSION"] = "set after the import"
        first = config.core_configurations
        os.environ["BUILD_VERSION"] = "set too late"
        from dkist_processing_core.config import core_configurations
        print(core_configurations is first, first.build_version)
    """

    assert python(program) == "True set after the import\n"


def test_the_module_has_no_other_lazy_name() -> None:
    """A misspelt name is an AttributeError, as in other modules."""
    with pytest.raises(AttributeError, match="has no attribute 'core_configuration'"):
        config.core_configuration  # noqa: B018 - asking is the point


# Documents


@generated_by(".venv/bin/python -m dkist_processing_core.settings.example > config/example.env")
def test_the_example_environment_is_in_step() -> None:
    """config/example.env is what `python -m dkist_processing_core.settings.example` prints."""
    assert (ROOT / "config" / "example.env").read_text() == example_environment()


def test_the_example_environment_is_a_file_of_settings(tmp_path: Path) -> None:
    """With every line uncommented it holds the defaults."""
    lines = re.findall(r"^# ([A-Z_]+=.*)$", example_environment(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text("\n".join(lines))

    assert len(lines) == len(FIELDS)
    assert DKISTProcessingCoreConfiguration(_env_file=None) == DKISTProcessingCoreConfiguration()


def settings_page() -> str:
    """Return the page that documents every setting."""
    introduction = """\
# Settings

Each setting is an environment variable. The settings are read and checked when a task, a workflow or a command
begins, never at import. They are also read from a file `.env` in the current folder; the environment takes
precedence over it. An empty variable counts as not set.

A wrong value raises one `ConfigurationError`. It names every wrong variable, the value that was found and the
values that are expected. A secret is never shown.

Pipelines add fields of their own by a subclass of `dkist_processing_core.config.DKISTProcessingCoreConfiguration`.
The file `config/example.env` holds all settings as a start.

## When the settings are read

The settings of a run are read once: by `Workflow.run`, or by the engine's `on_execute` callback, or by the
launcher. They are passed on to the task's process, which takes them before it loads any code of the author. The
settings of a task that is called directly are read when the task is constructed, by `TaskBase.__init__`.

Later changes by the author's code (to `HOME`, `MESH_CONFIG`, the current folder or the file `.env`) do not change
where the task reports. A relative path is relative to the folder that was the current one when the settings were
read. `core_configurations` and a client's own settings are read when they are created, as in 7.x.

## When a file `.env` is refused

A file that belongs to another user than this one or root, or that others can write to, raises a
`ConfigurationError`. A task then runs without events. With the umask 002, the default of some hosts, a new file has
mode 0664, so its group can write to it: `chmod g-w .env`. A `.env` that is a link is read if the link belongs to
this user or to root.

A file must not decide where secrets of the environment are sent. So it is refused if it sets one of these while the
environment holds one of those:

| the file sets | the environment holds |
|---|---|
| the broker in `MESH_CONFIG` | `ISB_USERNAME`, `ISB_PASSWORD` or `ISB_TLS_KEY`, which would be sent there |
| `ISB_TLS_CA` or `ISB_TLS_SERVER_NAME` | the same variables, since the file would decide which broker is trusted |
| a collector | `OTEL_EXPORTER_OTLP_HEADERS` or `OTEL_EXPORTER_OTLP_CLIENT_KEY`, which would be used there |
| `DKIST_CORE_INBOX` | `PGPASSWORD`, `PGPASSFILE` |
| `DKIST_CORE_AIRFLOW_URL` | `DKIST_CORE_AIRFLOW_PASSWORD`, `DKIST_CORE_AIRFLOW_TOKEN_FILE` |
| `DKIST_CORE_ENVIRONMENTS_DIR` | any secret, since the programs in that folder would be run with it |

Put both in the same place, or set `DKIST_CORE_TRUST_DOTENV=1` in the environment. `dkist-core doctor` names the
variables that are read from the file.
"""
    sections = [introduction]
    for name, field in FIELDS.items():
        default = re.findall(rf"^# {name.upper()}=(.*)$", example_environment(), flags=re.MULTILINE)[0]
        shown = f"`{default}`" if default else "not set"
        sections.append(
            f"## `{name.upper()}`\n\n{field.description}\n\nExpected: {expectation(field)}.  \nDefault: {shown}.\n"
        )
    return "\n".join(sections)


def test_each_variable_of_tls_is_described_to_turn_it_on() -> None:
    """A user who sets only the key learns that TLS is then required."""
    described = {name: field.description or "" for name, field in FIELDS.items() if name.startswith("isb_tls_")}

    assert described
    assert [name for name, text in described.items() if not text.endswith("it turns TLS on.")] == []


@generated_by(".venv/bin/python -m tests.test_config > docs/reference/settings.md")
def test_the_page_of_settings_is_in_step() -> None:
    """docs/reference/settings.md documents every field."""
    assert (ROOT / "docs" / "reference" / "settings.md").read_text() == settings_page()


if __name__ == "__main__":
    sys.stdout.write(settings_page())
