"""
The API: each documented path is called, and its answer has the documented schema.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from jsonschema import Draft202012Validator

from dkist_processing_core.dashboard.access import Role
from dkist_processing_core.runs import kept_reports, run_view
from dkist_processing_core.runs.as_json import run_json
from tests.dashboard.serving import Answer, Site, running
from tests.stored import ENDED, RUNNING, ended_run, running_run

SECOND = "scheduled__2026-11-22T12:00:00+00:00"
OF_ENDED = {"workflow": "l0_to_l1_visp", "version": "1.2.3", "id": ENDED}
FAMILY = "5f0ac1d2e3b4a596"
CALLS: dict[str, list[dict[str, Any]]] = {
    "/api/v1/now": [{}],
    "/api/v1/runs": [{}, {"state": "failed", "workflow": "l0_*", "recipe": 7, "limit": 1, "first": 1}],
    "/api/v1/run": [OF_ENDED, {**OF_ENDED, "at": "2026-11-22T12:00:20Z"}],
    "/api/v1/attempt": [{**OF_ENDED, "task": "Calibrate", "attempt": 2}, {**OF_ENDED, "task": "ParseL0", "attempt": 1}],
    "/api/v1/workflow": [{"name": "l0_to_l1_visp"}],
    "/api/v1/failures": [{}, {"family": FAMILY}],
    "/api/v1/bus": [{}],
    "/api/v1/compare": [
        {"workflow": "l0_to_l1_visp", "a": ENDED, "a_version": "1.2.3", "b": SECOND, "b_version": "1.2.3"}
    ],
}
WRONG: list[tuple[str, int, str]] = [
    ("/api/v1/run", 400, "workflow and id is missing in the address"),
    ("/api/v1/run?workflow=x&id=y", 404, "the store has no run y of x"),
    ("/api/v1/run?workflow=x&id=y&at=noon", 400, "found at='noon', expected 90m, 24h, 7d, or a time"),
    ("/api/v1/runs?limit=0", 400, "found limit='0', expected a whole number from 1 to 1000"),
    ("/api/v1/runs?limit=1001", 400, "found limit='1001'"),
    ("/api/v1/runs?first=-1", 400, "found first='-1'"),
    ("/api/v1/runs?state=lost", 400, "found state='lost', expected one of running"),
    ("/api/v1/runs?since=yesterday", 400, "found since='yesterday'"),
    ("/api/v1/runs?recipe=%D9%A7", 400, "found recipe="),
    ("/api/v1/now?limit=1", 400, "found the parameter 'limit', expected one of none"),
    ("/api/v1/workflow?name=none", 404, "the store has no run of the workflow 'none'"),
    ("/api/v1/failures?family=none", 404, "the store has no failure of the family 'none'"),
    ("/api/v1/nothing", 404, "GET /api/v1/nothing: Not Found"),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A dashboard that has three runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKIST_CORE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        with running() as site:
            site.publish(*ended_run(), *ended_run(SECOND), *running_run())
            yield site


@pytest.fixture(scope="module")
def document(filled: Site) -> Any:
    """The OpenAPI document."""
    return filled.get("/openapi.json").json


def is_valid(document: Any, answer: Answer, path: str, method: str = "get") -> None:
    """Fail unless an answer has the schema that is documented for its status."""
    content = document["paths"][path][method]["responses"][str(answer.status)]["content"]
    schema = content[answer.headers["Content-Type"]]["schema"]
    # The references in it are those of the document.
    Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json)


def test_the_document_is_one_of_openapi(document: Any) -> None:
    """Its schemas are valid, each reference has a target, and each parameter is declared once."""
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = {text.partition('"')[0] for text in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]}
    operations = [operation for path in document["paths"].values() for operation in path.values()]

    assert document["openapi"] == "3.1.0"
    assert references <= set(schemas)
    assert len({each["operationId"] for each in operations}) == len(operations)
    for each in operations:
        names = [parameter["name"] for parameter in each.get("parameters", ())]
        assert len(names) == len(set(names))
        assert all(parameter["description"] for parameter in each.get("parameters", ()))


def test_every_documented_path_is_called(document: Any) -> None:
    """A new path needs a call here."""
    reading = {path for path, operations in document["paths"].items() if "get" in operations}

    assert reading == set(CALLS)


@pytest.mark.parametrize(("path", "query"), [(path, query) for path, calls in CALLS.items() for query in calls])
def test_an_answer_has_its_schema(path: str, query: dict[str, Any], filled: Site, document: Any) -> None:
    """Nothing in it is undocumented, as the types forbid unknown fields."""
    answer = filled.get(path, **query)

    assert answer.status == 200, answer.text
    is_valid(document, answer, path)


@pytest.mark.parametrize(("address", "status", "detail"), WRONG)
def test_a_wrong_request_gets_a_problem(address: str, status: int, detail: str, filled: Site) -> None:
    """The problem says what was found and what was expected."""
    answer = filled.get(address)

    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json["status"] == status
    assert detail in answer.json["detail"]


def test_a_run_is_the_fold_of_its_reports(filled: Site) -> None:
    """The answer is equal to the JSON of the run that all reports give."""
    for reports, run_id, workflow, version in (
        (list(ended_run()), ENDED, "l0_to_l1_visp", "1.2.3"),
        (list(running_run()), RUNNING, "l1_to_l2_dlnirsp", "dev"),
    ):
        answer = filled.get("/api/v1/run", workflow=workflow, version=version, id=run_id)

        expected = json.loads(json.dumps(run_json(run_view(kept_reports(reports)))))
        assert normal(answer.json) == normal(expected)


def normal(value: Any) -> Any:
    """Return JSON values with times in one form."""
    if isinstance(value, dict):
        return {name: normal(each) for name, each in value.items()}
    if isinstance(value, list):
        return [normal(each) for each in value]
    return value.replace(".000000Z", "Z").replace(".000Z", "Z") if isinstance(value, str) else value


def test_lists_are_cut_and_counted(filled: Site) -> None:
    """The place of the first one and the number of all are in the answer."""
    found = filled.get("/api/v1/runs", limit=1, first=1).json

    assert (found["first"], found["total"], len(found["runs"])) == (1, 3, 1)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"ids": ["g1", "d1"]}', "application/json", 200),
        ('{"ids": "g1"}', "application/json", 400),
        ("nonsense", "application/json", 400),
        ('{"ids": ["g1"]}', "text/plain", 400),
    ],
)
@pytest.mark.parametrize("action", ["retry", "discard"])
def test_dead_letters_are_changed_by_json_only(
    action: str, body: str, content_type: str, status: int, filled: Site, document: Any
) -> None:
    """Ids that name nothing are passed over; a form of another site cannot send this type."""
    path = f"/api/v1/dead-letters/{action}"

    answer = filled.request("POST", path, body, {"Content-Type": content_type})

    assert answer.status == status, answer.text
    is_valid(document, answer, path, "post")
    assert status != 200 or answer.json == {"count": 0, "obstacles": {}}


def test_readers_change_nothing() -> None:
    """In the read-only mode, operators neither."""
    with running(is_read_only=True) as site:
        headers = {"Content-Type": "application/json"}
        refused = site.request("POST", "/api/v1/dead-letters/discard", '{"ids": ["g1"]}', headers)
        form = site.request("POST", "/bus/letters", urlencode({"action": "discard", "name": "g1"}))

    assert refused.status == form.status == 403
    assert Role.OPERATOR not in refused.text
