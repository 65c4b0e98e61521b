"""
The API: each documented path is called, and its answer has the documented schema.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import OpenAPIV31SpecValidator

from dkist_processing_core.dashboard.api.answers import MOST_FAILURES, MOST_FAMILIES
from dkist_processing_core.dashboard.http.access import Role
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue, WorkflowStarted, encode
from dkist_processing_core.runs import kept_reports, run_view
from dkist_processing_core.runs.as_json import run_json
from tests.dashboard.serving import Answer, Site, running
from tests.facts import failed, make, started
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
        {"workflow": "l0_to_l1_visp", "a": ENDED, "a_version": "1.2.3", "b": SECOND, "b_version": "1.2.3"},
        {"workflow": "l0_to_l1_visp", "a": ENDED, "b": SECOND},
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
    (f"/api/v1/run?workflow=l1_to_l2_dlnirsp&version=dev&id={RUNNING}&at=2099-01-01", 400, "not later than now"),
    ("/api/v1/compare?workflow=l0_to_l1_visp&a=none&b=none", 404, "the store has no run none of the workflow"),
    ("/api/v1/compare?workflow=l0_to_l1_visp&a_run=1.2.3/x&b=none", 400, "found the parameter 'a_run'"),
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
    """Fail unless an answer has the schema, and its texts the formats, that are documented for its status."""
    content = document["paths"][path][method]["responses"][str(answer.status)]["content"]
    schema = content[answer.headers["Content-Type"]]["schema"]
    # The references in it are those of the document.
    whole = {**schema, "components": document["components"]}
    OAS31Validator(whole, format_checker=oas31_format_checker).validate(answer.json)


def test_the_document_is_one_of_openapi(document: Any) -> None:
    """The official schema of OpenAPI 3.1 allows it; references have targets, and names and ids are unique."""
    found = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
    operations = [operation for path in document["paths"].values() for operation in path.values()]

    assert document["openapi"].startswith("3.1.")
    assert found == []
    assert all(parameter["description"] for each in operations for parameter in each.get("parameters", ()))


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
def test_a_wrong_request_gets_a_problem(address: str, status: int, detail: str, filled: Site, document: Any) -> None:
    """The problem states what was found and what was expected, in the form that is documented for each endpoint."""
    answer = filled.get(address)

    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json["status"] == status
    assert detail in answer.json["detail"]
    path = address.partition("?")[0]
    is_valid(document, answer, path if path in document["paths"] else "/api/v1/now")


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

    began = [run["startedAt"] for run in filled.get("/api/v1/runs").json["runs"]]

    assert (found["first"], found["total"], len(found["runs"])) == (1, 3, 1)
    assert len(began) == 3
    assert began == sorted(began, reverse=True)


def test_a_comparison_without_versions_is_of_the_last_runs_of_the_ids(filled: Site) -> None:
    """As on the page."""
    (_, without), (with_versions, _) = CALLS["/api/v1/compare"], CALLS["/api/v1/compare"]
    found = filled.get("/api/v1/compare", **without)

    assert found.body == filled.get("/api/v1/compare", **with_versions).body


def test_the_lists_of_many_have_limits_in_the_document(document: Any) -> None:
    """A client knows how long an answer can be."""
    schemas = document["components"]["schemas"]
    unlimited = [
        f"{name}.{field}"
        for name in ("Now", "Runs", "ListedRun", "Failures", "Bus")
        for field, schema in schemas[name]["properties"].items()
        if schema.get("type") == "array" and "maxItems" not in schema
    ]

    assert unlimited == []
    assert schemas["Now"]["properties"]["failures"]["maxItems"] == MOST_FAMILIES


def test_an_answer_about_the_present_is_limited_and_has_what_is_late(document: Any) -> None:
    """However many families of failures, and failures of a run, there are."""
    now = datetime.now(UTC)
    failures = [
        failed(f"task {number}", run_id="many", time=now, fingerprint=f"{number:016x}")
        for number in range(MOST_FAMILIES + 1)
    ]
    alarm: dict[str, Any] = {"reported_by": "watcher", "time": now}
    missed = make(
        WorkflowOverdue,
        run_id="",
        workflow_version="",
        expected_at=now - timedelta(hours=1),
        grace_seconds=60.0,
        **alarm,
    )
    late = make(TaskOverdue, "late", run_id="many", exceeded="silence", limit_seconds=90.0, sequence=1, **alarm)
    of_run = make(WorkflowOverdue, run_id="idle", limit_seconds=600.0, sequence=1, **alarm)
    with running() as site:
        site.publish(*failures, started("late", run_id="many", time=now), late)
        site.publish(make(WorkflowStarted, run_id="idle", reported_by="engine", time=now), of_run, missed)
        answer = site.get("/api/v1/now")
        listed = site.get("/api/v1/runs").json["runs"]

    found = answer.json
    is_valid(document, answer, "/api/v1/now")
    assert len(found["failures"]) == MOST_FAMILIES
    for runs in (found["runs"], listed):
        assert [len(run["failures"]) for run in runs if run["dagRunId"] == "many"] == [MOST_FAILURES]
    assert [each["taskName"] for each in found["overdueAttempts"]] == ["late"]
    assert [each["dagRunId"] for each in found["overdueRuns"]] == ["idle"]
    assert [(each["workflowName"], each["type"]) for each in found["missedStarts"]] == [("W", missed.type)]
    assert normal(found["missedStarts"][0]["expectedAt"]) == normal(json.loads(encode(missed))["data"]["expectedAt"])


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


def test_readers_change_nothing(document: Any) -> None:
    """In the read-only mode, operators neither."""
    path = "/api/v1/dead-letters/discard"
    with running(is_read_only=True) as site:
        refused = site.request("POST", path, '{"ids": ["g1"]}', {"Content-Type": "application/json"})
        form = site.request("POST", "/bus/letters", urlencode({"action": "discard", "name": "g1"}))

    assert refused.status == form.status == 403
    assert Role.OPERATOR not in refused.text
    is_valid(document, refused, path, "post")


def test_a_request_without_a_token_gets_the_documented_problem(tmp_path: Path, document: Any) -> None:
    """For what reads, and for what changes."""
    file = tmp_path / "token"
    file.write_text("0123456789abcdef0123456789abcdef")
    file.chmod(0o600)
    paths = (("get", "/api/v1/runs"), ("post", "/api/v1/dead-letters/retry"))
    with running(token_file=file, is_awaited=False) as site:
        found = [(site.request(method.upper(), path), path, method) for method, path in paths]

    assert [answer.status for answer, _, _ in found] == [401, 401]
    for answer, path, method in found:
        is_valid(document, answer, path, method)


def test_a_store_that_is_away_is_the_documented_problem(
    monkeypatch: pytest.MonkeyPatch, refusing_port: int, document: Any
) -> None:
    """A client learns that a later request may succeed."""
    monkeypatch.setenv("DKIST_CORE_INBOX", f"postgresql://core@127.0.0.1:{refusing_port}/store")
    with running(is_awaited=False) as site:
        answer = site.get("/api/v1/now")

    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    is_valid(document, answer, "/api/v1/now")
