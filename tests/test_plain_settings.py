"""
The settings read without pydantic: equal to those of the settings class, or left to that class.

Not here: the values that the settings class accepts (test_config).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.settings.declarations import DECLARATIONS
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.settings.without_pydantic import read_without_pydantic
from tests.test_config import WRONG, WRONG_PARTS

RIGHT = {
    "MESH_CONFIG": [
        '{"interservice-bus": {"mesh_address": "broker.example", "mesh_port": 5672}}',
        '{"otlp-traces-endpoint": {"mesh_address": "::1", "mesh_port": 0, "more": 1}}',
        '{"theirs": {"mesh_address": "any/thing", "mesh_port": 99999}, "interservice-bus": {"host": "h", "port": 1}}',
        '{"theirs": {"mesh_address": "\\ud800", "mesh_port": true}}',
        '{"\\ud800": {"mesh_address": "a", "mesh_port": 1}}',
        '{"interservice-bus": {"mesh_address": "b", "mesh_port": true}}',
        '{"interservice-bus": {"mesh_address": "b", "mesh_port": "5672"}}',
        *WRONG_PARTS,
    ],
    "RETRY_CONFIG": ['{"retry_tries": 3}'],
    "OTEL_TRACES_EXPORTER": ["otlp", " OTLP , console", "none", "otlp,otlp"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["https://collector.example:4317/path", "collector:4317"],
    "OTEL_EXPORTER_OTLP_PROTOCOL": ["grpc", " HTTP/Protobuf "],
    "ISB_QUEUE_TYPE": ["quorum"],
}
PLAIN_TEXTS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "true",
        "TRUE",
        "off",
        "2.5",
        "1e3",
        "007",
        "1_000",
        " 5 ",
        "5.0",
        "100000000",
        "~/f",
        "\udc80",
        "é\n",
    ]
)


def variables() -> st.SearchStrategy[dict[str, str]]:
    """Return up to three variables with valid or invalid values."""
    texts = {
        name.upper(): st.sampled_from([*RIGHT.get(name.upper(), []), *WRONG.get(name.upper(), [])[:12]] or [""])
        | PLAIN_TEXTS
        | st.text(max_size=20)
        for name in DECLARATIONS
    } | {"isb_vhost": st.text(max_size=5), "AWS_SECRET_ACCESS_KEY": st.just("canary-hunter22")}
    return st.lists(st.one_of([st.tuples(st.just(name), each) for name, each in texts.items()]), max_size=3).map(dict)


TYPICAL = {
    "MESH_CONFIG": RIGHT["MESH_CONFIG"][0],
    "ISB_USERNAME": "core",
    "ISB_PASSWORD": "canary-hunter22",
    "ISB_QUEUE_TYPE": "quorum",
    "ISB_TLS_CA": "/etc/ca.pem",
    "EVENT_FLUSH_TIMEOUT": "0.5",
    "DKIST_CORE_STATE_DIR": "~/state",
    "BUILD_VERSION": "1.2.3",
    "PIP_RETRIES": "3",
    "OTEL_SERVICE_NAME": "l0-to-l1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4317",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    "OTEL_SDK_DISABLED": "False",
}


def origin_of(environ: dict[str, str], dotenv: dict[str, str] | None = None) -> Origin:
    """Return an origin with these values."""
    return Origin(environ, folder="/somewhere", home="/home/someone", uid=1000, dotenv=dotenv or {})


def shown(value: object) -> object:
    """Return the address of a service, whichever class holds it, and any other value unchanged."""
    if isinstance(value, dict):
        return {name: (service.host, service.port) for name, service in value.items()}
    return value


@given(variables(), st.just({}) | variables())
@example(TYPICAL, {})
@example({}, TYPICAL)
@example({"ISB_VHOST": "one", "isb_vhost": ""}, {"ISB_VHOST": "two"})
def test_both_ways_of_reading_give_equal_settings(environ: dict[str, str], dotenv: dict[str, str]) -> None:
    """Settings that are read without pydantic equal those that the settings class reads."""
    origin = origin_of(environ, dotenv)
    plain = read_without_pydantic(origin)
    if plain is None:
        return

    full = DKISTProcessingCoreConfiguration.read(origin)

    found = {name: shown(value) for name, value in plain if name != "retry_config"}
    assert found == {name: shown(value) for name, value in full if name != "retry_config"}
    assert [type(value) for value in found.values()] == [type(shown(getattr(full, name))) for name in found]
    assert (plain.names_broker, plain.model_fields_set) == (full.names_broker, full.model_fields_set)
    assert plain.isb_mesh_service == (full.isb_mesh_service.host, full.isb_mesh_service.port)
    assert plain.absolute(Path("~/x")) == full.absolute(Path("~/x"))
    assert secrets_in(plain) == secrets_in(full)


@pytest.mark.parametrize("name", [None, *TYPICAL])
def test_a_setting_in_its_usual_form_is_read_without_pydantic(name: str | None) -> None:
    """Each variable of a worker is read without pydantic."""
    environ = {} if name is None else {name: TYPICAL[name]}

    assert read_without_pydantic(origin_of(environ)) is not None


def imported_by(arguments: list[str], folder: Path, **variables: str) -> list[str]:
    """Return the modules that a program imports, and those that its child processes import."""
    environ = os.environ | {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": str(folder), **variables}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=True
    )
    return re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, flags=re.MULTILINE)


@pytest.mark.parametrize("is_launched", [False, True])
def test_neither_a_task_nor_its_launcher_imports_pydantic(tmp_path: Path, *, is_launched: bool) -> None:
    """The import of pydantic would take as long as all other work of such a process."""
    (tmp_path / "steps.py").write_text(
        "from dkist_processing_core import TaskBase\nclass NoOp(TaskBase):\n    def run(self): pass\n"
    )
    program = "from steps import NoOp; NoOp(recipe_run_id=1, workflow_name='W', workflow_version='1')()"
    attempt = {"PACKAGE": "steps", "TASK": "NoOp", "TASK_MODULE": "steps", "ATTEMPT": "1", "MAX_ATTEMPTS": "1"}
    attempt |= {"RUN_ID": "r", "WORKFLOW": "W", "VERSION": "dev", "RECIPE_RUN_ID": "1"}

    if is_launched:
        variables = {f"DKIST_CORE_{name}": value for name, value in attempt.items()}
        names = imported_by(["-m", "dkist_processing_core.launcher"], tmp_path, **variables)
    else:
        names = imported_by(["-c", program], tmp_path)

    assert {name.partition(".")[0] for name in names} & {"asyncio", "pika", "pydantic"} == set()
    assert names.count("dkist_processing_core.journal") == 1 + is_launched
