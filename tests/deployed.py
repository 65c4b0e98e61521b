"""
The files of `telemetry/` that a data centre deploys, as values, for their tests.

Not here: the tests (test_deployed_files, test_scraped), and the files for other implementations (test_telemetry_files).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.running import ROOT

FOLDER = ROOT / "telemetry"
PROMETHEUS = FOLDER / "prometheus"
RULES = sorted((PROMETHEUS / "rules").iterdir())
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "grafana" / "dashboards").iterdir())}
# The windows of the dashboards depend on the page in Grafana.
_WINDOWS = {"$__rate_interval": "1h", "$__range": "1h"}


def read_yaml(path: str | Path) -> Any:
    """
    Return the content of a file in `telemetry/`.
    """
    return yaml.safe_load((FOLDER / path).read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    """
    Return the alerts, in the order of their file.
    """
    groups = read_yaml(PROMETHEUS / "rules" / "alerts.yaml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def records() -> list[dict[str, Any]]:
    """
    Return the recording rules.
    """
    groups = read_yaml(PROMETHEUS / "rules" / "recording.yaml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def jobs() -> list[str]:
    """
    Return the names of the jobs that Prometheus scrapes.
    """
    return [job["job_name"] for job in read_yaml("prometheus/prometheus.yaml")["scrape_configs"]]


def queries(dashboard: dict[str, Any], **variables: str) -> Iterator[tuple[str, str]]:
    """
    Yield title and expression of each query to Prometheus, with the values of the dashboard's variables.
    """
    values = _WINDOWS | {f"${name}": value for name, value in variables.items()}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            if target["datasource"]["type"] == "prometheus":
                expression = target["expr"]
                for name, value in values.items():
                    expression = re.sub(rf"{re.escape(name)}\b", value, expression)
                yield panel["title"], expression


def metrics_in(expression: str) -> set[str]:
    """
    Return the names of the metrics and records that an expression reads.
    """
    without_text = re.sub(r'"[^"]*"', "", expression)
    without_labels = re.sub(r"\{[^}]*\}|\b(by|on|without|ignoring) *\([^)]*\)", " ", without_text)
    return set(re.findall(r"\b[a-z][\w:]*_[\w:]+\b(?! *\()", without_labels)) | set(
        re.findall(r"\bup\b", without_labels)
    )
