"""
The files that a data centre deploys agree with each other, with the programs that read them, and with this library.

Not here: Prometheus with these rules on real processes (test_scraped).
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from dkist_processing_core.metrics import declarations
from dkist_processing_core.settings.configuration import DKISTProcessingCoreConfiguration
from tests.deployed import DASHBOARDS, FOLDER, PROMETHEUS, RULES, alerts, metrics_in, queries, read_yaml, records
from tests.running import ROOT
from tests.services.prometheus import promtool
from tests.test_document_names import unknown_words

COMPOSE = read_yaml("compose.yaml")
COLLECTOR = read_yaml("collector/config.yaml")
COMPONENTS = read_yaml("collector/components.yaml")
HOW_TO = ROOT / "docs" / "how-to" / "deploy-telemetry.md"
KINDS = ("extensions", "receivers", "processors", "exporters")
# Ports that a service of the compose file opens for the others only.
INSIDE = {"rabbitmq": {15692}, "jaeger": {4317}, "collector": {8888, 8889, 13133}, "collect": {9464}, "watch": {9467}}
# The services that run `dkist-core`.
OURS = ("collect", "dashboard", "watch", "relay")

each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)
each_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])


def paths_in(settings: Any, allowed: set[str], above: str = "") -> Iterator[str]:
    """Yield the dotted paths of settings, down to those that are allowed."""
    for name, value in (settings or {}).items():
        path = f"{above}{name}"
        if isinstance(value, dict) and path not in allowed:
            yield from paths_in(value, allowed, f"{path}.")
        else:
            yield path


class TestCollector:
    """The configuration of the OpenTelemetry Collector, without a collector."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_component_and_setting_is_in_the_list(self, kind: str) -> None:
        """A misspelt component or setting is in no list."""
        unknown: dict[str, list[str]] = {}
        for name, settings in COLLECTOR[kind].items():
            allowed = COMPONENTS[kind].get(name.partition("/")[0])
            found = ["the component"] if allowed is None else [*set(paths_in(settings, set(allowed))) - set(allowed)]
            unknown |= {name: found} if found else {}

        assert COLLECTOR[kind]
        assert unknown == {}

    def test_the_settings_of_the_service_are_in_the_list(self) -> None:
        """The same is true for the service."""
        allowed = set(COMPONENTS["service"])

        assert set(paths_in(COLLECTOR["service"], allowed)) - allowed == set()
        assert set(COLLECTOR) == {*KINDS, "service"}

    def test_each_member_of_a_pipeline_is_defined_and_each_component_used(self) -> None:
        """A pipeline for each signal receives, limits the memory first, and exports."""
        service = COLLECTOR["service"]
        used = {kind: {name for each in service["pipelines"].values() for name in each[kind]} for kind in KINDS[1:]}

        assert used | {"extensions": set(service["extensions"])} == {kind: set(COLLECTOR[kind]) for kind in KINDS}
        assert set(service["pipelines"]) == {"traces", "metrics", "logs"}
        assert {each["processors"][0] for each in service["pipelines"].values()} == {"memory_limiter"}

    def test_counters_of_tasks_are_kept_as_long_as_they_are_served(self) -> None:
        """The series of a task's process is cumulative, and does not disappear before the next scrape."""
        stale = COLLECTOR["processors"]["deltatocumulative"]["max_stale"]

        assert "deltatocumulative" in COLLECTOR["service"]["pipelines"]["metrics"]["processors"]
        assert COLLECTOR["exporters"]["prometheus"]["metric_expiration"] == stale
        assert COLLECTOR["exporters"]["prometheus"]["enable_open_metrics"] is True

    def test_what_was_accepted_is_on_disk(self) -> None:
        """The queue to Jaeger is stored, and no processor acknowledges what only the memory has."""
        queue = COLLECTOR["exporters"]["otlp/jaeger"]["sending_queue"]

        assert queue["storage"] in COLLECTOR["service"]["extensions"]
        assert "batch" not in COLLECTOR["processors"]
        mounts = [mount.split(":")[1] for mount in COMPOSE["services"]["collector"]["volumes"]]
        files = [COLLECTOR["extensions"]["file_storage"]["directory"], COLLECTOR["exporters"]["file/logs"]["path"]]
        assert all(any(Path(file).is_relative_to(mount) for mount in mounts) for file in files)


class TestPrometheus:
    """The configuration, rules and alerts."""

    @pytest.mark.prometheus
    def test_promtool_accepts_configuration_targets_and_rules(self) -> None:
        """Prometheus would start with them."""
        checked = promtool("check", "config", PROMETHEUS / "prometheus.yaml")

        assert checked.returncode == 0, checked.stderr
        assert "rules found" in checked.stdout

    @pytest.mark.prometheus
    def test_the_unit_tests_of_the_alerts_pass(self) -> None:
        """They run as the documents print it."""
        (command,) = re.findall(r"^ +promtool (.+)$", HOW_TO.read_text(), flags=re.MULTILINE)

        tested = promtool(*(ROOT / word if "/" in word else word for word in command.split()))

        assert tested.returncode == 0, tested.stdout + tested.stderr

    @each_alert
    def test_each_alert_has_a_unit_test_in_which_it_begins_and_ends(self, alert: dict[str, Any]) -> None:
        """It does not fire before its cause, fires with it, and ends after it."""
        tests = read_yaml(PROMETHEUS / "tests" / "alerts.yaml")["tests"]
        checks = [check for test in tests for check in test["alert_rule_test"] if check["alertname"] == alert["alert"]]

        fires = [
            bool(check.get("exp_alerts")) for check in sorted(checks, key=lambda each: int(each["eval_time"][:-1]))
        ]

        assert (fires[0], any(fires), fires[-1]) == (False, True, False)

    @each_alert
    def test_each_alert_states_what_to_do(self, alert: dict[str, Any]) -> None:
        """It has a summary, a description, a command that exists, and a section of the documentation."""
        notes = alert["annotations"]
        site, _, section = notes["runbook_url"].partition("#")
        headings = re.findall(r"^### (\w+)$", HOW_TO.read_text(), flags=re.MULTILINE)
        commands = [notes["command"], *re.findall(r"`([^`]+)`", notes["description"])]
        ours = [command.removeprefix("dkist-core ") for command in commands if command.startswith("dkist-core ")]
        without_values = [re.sub(r"'[^']*'|(?<=--since )\w+|(?<=--silent )\w+", "", command) for command in ours]

        assert set(notes) == {"summary", "description", "command", "runbook_url"}
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert site.endswith("/how-to/deploy-telemetry.html")
        assert section in {heading.lower() for heading in headings}
        assert {command: unknown for command in without_values if (unknown := list(unknown_words(command)))} == {}

    def test_each_section_is_for_an_alert(self) -> None:
        """The documentation has no section for an alert that does not exist, and the order of the file."""
        headings = re.findall(r"^### (\w+)$", HOW_TO.read_text(), flags=re.MULTILINE)

        assert headings == [alert["alert"] for alert in alerts()]

    def test_an_alert_fires_for_each_fault_of_delivery(self) -> None:
        """Failures, pending events, lag, dead letters, refused events and lost telemetry call an operator."""
        read = set().union(*(metrics_in(alert["expr"]) for alert in alerts()))

        assert read >= {
            "dkist_core:attempt_failed:ratio1h",
            "dkist_core_outbox_pending",
            "dkist_core_outbox_set_aside",
            "dkist_core_consumer_lag_seconds",
            "dkist_core_inbox_messages",
            "dkist_core_telemetry_dropped_total",
        }


class TestDashboards:
    """The dashboards, without Grafana."""

    @each_dashboard
    def test_each_panel_asks_a_question_and_can_be_read(self, name: str) -> None:
        """A panel has a title with a question mark, a description, and a number and a place that no other one has."""
        panels = DASHBOARDS[name]["panels"]
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells

            assert panel["title"].endswith("?")
            assert panel["description"].endswith(".")
            assert panel["type"] == "text" or panel["fieldConfig"]["defaults"]["unit"], panel["title"]

        assert len({panel["id"] for panel in panels}) == len(panels) <= 18
        assert {x for x, _ in taken} == set(range(24))
        assert len(taken) == 24 * (1 + max(y for _, y in taken))

    @each_dashboard
    def test_each_variable_is_defined_and_used(self, name: str) -> None:
        """Queries, links and texts use the variables of the dashboard, and Grafana's own ones."""
        dashboard = DASHBOARDS[name]
        defined = {variable["name"] for variable in dashboard["templating"]["list"]}
        own = {"__rate_interval", "__range", "__data", "__value", "__url_time_range"}
        text = yaml.dump(dashboard["panels"])

        used = set(re.findall(r"\$\{?(\w+)", text)) - own

        assert used == defined

    @each_dashboard
    def test_each_data_source_is_one_that_is_provided(self, name: str) -> None:
        """A query names the variable of a data source, whose type Grafana gets from the provisioning."""
        dashboard = DASHBOARDS[name]
        provided = {
            each["type"] for each in read_yaml("grafana/provisioning/datasources/dkist-core.yaml")["datasources"]
        }
        variables = {
            f"${{{each['name']}}}": each["query"]
            for each in dashboard["templating"]["list"]
            if each["type"] == "datasource"
        }
        named = [target["datasource"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        named += [panel["datasource"] for panel in dashboard["panels"] if "datasource" in panel]

        assert {(each["uid"], each["type"]) for each in named} == set(variables.items())
        assert set(variables.values()) <= provided

    @each_dashboard
    def test_each_link_leads_to_a_dashboard_with_the_variables_that_it_sets(self, name: str) -> None:
        """The dashboards link each other, and rows link to the run."""
        by_uid = {dashboard["uid"]: dashboard for dashboard in DASHBOARDS.values()}
        urls = [link["url"] for link in DASHBOARDS[name]["links"]]
        urls += re.findall(r"/d/[^\s\"']+", yaml.dump(DASHBOARDS[name]["panels"], width=10_000))

        uids = set()
        for url in (url for url in urls if url.startswith("/d/")):
            uid = urlsplit(url).path.removeprefix("/d/")
            variables = {variable["name"] for variable in by_uid[uid]["templating"]["list"]}
            assert set(re.findall(r"var-(\w+)=", url)) <= variables
            uids.add(uid)

        assert uids | {DASHBOARDS[name]["uid"]} == set(by_uid)

    @pytest.mark.prometheus
    def test_prometheus_can_parse_each_query(self, tmp_path: Path) -> None:
        """Each expression is that of a rule, which promtool accepts."""
        found = [query for dashboard in DASHBOARDS.values() for _, query in queries(dashboard, workflow="a")]
        rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(found)]
        (tmp_path / "rules.yaml").write_text(yaml.dump({"groups": [{"name": "queries", "rules": rules}]}))

        checked = promtool("check", "rules", tmp_path / "rules.yaml")

        assert checked.returncode == 0, checked.stderr
        assert f"{len(found)} rules found" in checked.stdout

    def test_each_metric_is_one_that_is_declared(self) -> None:
        """A query of a name that no process serves would show nothing, and an alert on it would never fire."""
        used = [query for dashboard in DASHBOARDS.values() for _, query in queries(dashboard)]
        used += [rule["expr"] for rule in [*alerts(), *records()]]
        read = {name for expression in used for name in metrics_in(expression) if ":" not in name}

        ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in read - {"up"} if not name.startswith("rabbitmq_")}

        declared = (
            *declarations.OF_ATTEMPTS,
            *declarations.OF_CONSUMERS,
            *declarations.OF_RELAY,
            *declarations.OF_WATCH,
            *declarations.OF_DASHBOARD,
            *declarations.OF_RECONCILIATION,
        )
        assert ours - {metric.series_name for metric in declared} == set()
        assert len(ours) > 15

    def test_dashboards_and_alerts_use_the_records_that_exist(self) -> None:
        """A record that nothing reads would be evaluated for nothing."""
        used = [query for dashboard in DASHBOARDS.values() for _, query in queries(dashboard)]
        used += [rule["expr"] for rule in [*alerts(), *records()]]

        read = {name for expression in used for name in metrics_in(expression) if ":" in name}

        assert read == {record["record"] for record in records()}

    def test_a_mark_leads_to_its_trace(self) -> None:
        """The label of an exemplar names the trace, which the data source of traces shows."""
        sources = {
            each["uid"]: each for each in read_yaml("grafana/provisioning/datasources/dkist-core.yaml")["datasources"]
        }
        (link,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]

        assert link["name"] == "trace_id"
        assert sources[link["datasourceUid"]]["type"] == "jaeger"
        assert sources["jaeger"]["jsonData"]["tracesToMetrics"]["datasourceUid"] == "prometheus"
        marked = [
            target for each in DASHBOARDS.values() for panel in each["panels"] for target in panel.get("targets", [])
        ]
        assert any(target.get("exemplar") for target in marked)


def published_port(port: str) -> int:
    """Return the port inside a container of a published one, with the same number outside."""
    _, outside, inside = port.rsplit(":", 2)
    assert outside == inside
    return int(inside)


class TestCompose:
    """The compose file, without containers."""

    def test_each_file_that_it_names_is_there(self) -> None:
        """Mounted files and folders, and those of the image."""
        mounts = [mount.split(":")[0] for each in COMPOSE["services"].values() for mount in each.get("volumes", [])]
        build = COMPOSE["services"]["collect"]["build"]

        missing = [mount for mount in mounts if mount.startswith(".") and not (FOLDER / mount).exists()]

        assert missing == []
        assert {mount for mount in mounts if not mount.startswith((".", "$"))} == set(COMPOSE["volumes"])
        assert (FOLDER / build["context"] / build["dockerfile"]).is_file()

    def test_it_has_the_services_of_the_documentation(self) -> None:
        """All of them have an image with a version, and start again after a failure, except for a preparation."""
        services = COMPOSE["services"]
        lasting = {name for name, service in services.items() if "restart" in service}

        assert lasting == {"rabbitmq", "postgres", "collector", "jaeger", "prometheus", "grafana", *OURS}
        assert set(services) - lasting == {"collector-volume"}
        assert [name for name, each in services.items() if ":" not in each["image"] and "build" not in each] == []

    def test_each_address_in_the_files_is_that_of_a_service(self) -> None:
        """Prometheus, Grafana, the collector and the store of runs find each other by name and port."""
        texts = [(FOLDER / "compose.yaml").read_text(), (FOLDER / "collector" / "config.yaml").read_text()]
        texts += [path.read_text() for path in (FOLDER / "grafana" / "provisioning").rglob("*.yaml")]
        texts += [path.read_text() for path in (PROMETHEUS / "targets").iterdir()]
        plain = "\n".join(re.sub(r"#.*", "", text) for text in texts)
        services = COMPOSE["services"]
        found = {(name, int(port)) for name, port in re.findall(r"\b([a-z]+):(\d{4,5})\b", plain)}
        found |= {("rabbitmq", int(port)) for port in re.findall(r'"mesh_port": (\d+)', plain)}

        ports = {
            (name, port)
            for name, service in services.items()
            for port in {*map(published_port, service.get("ports", [])), *INSIDE.get(name, ())}
        }

        assert found - ports == set()
        assert {name for name, _ in found} >= {"rabbitmq", "collector", "jaeger", "prometheus", "collect", "watch"}

    def test_the_collectors_ports_are_those_of_its_configuration(self) -> None:
        """Tasks find it at the usual ports, and Prometheus at two others."""
        text = (FOLDER / "collector" / "config.yaml").read_text()
        published = set(map(published_port, COMPOSE["services"]["collector"]["ports"]))
        opened = {int(port) for port in re.findall(r"endpoint: 0\.0\.0\.0:(\d+)", text)}

        assert published == {4317, 4318}
        (reader,) = COLLECTOR["service"]["telemetry"]["metrics"]["readers"]
        assert opened | {reader["pull"]["exporter"]["prometheus"]["port"]} == published | INSIDE["collector"]

    def test_no_port_is_open_to_others_by_default(self) -> None:
        """Without TLS, a port is for this host alone, until an operator names an address."""
        ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]

        assert {port.rsplit(":", 2)[0] for port in ports} == {"127.0.0.1", "${TELEMETRY_ADDRESS:-127.0.0.1}"}

    def test_its_variables_are_those_of_the_example(self) -> None:
        """A password has no default, and none is in the file."""
        text = (FOLDER / "compose.yaml").read_text()
        example = (FOLDER / "example.env").read_text()
        named = dict(re.findall(r"\$\{(\w+)(:[-?])", text))
        set_there = dict(re.findall(r"^(\w+)=(.*)$", example, flags=re.MULTILINE))

        secrets = {secret["environment"] for secret in COMPOSE["secrets"].values()}

        assert {*named, *secrets} == set(set_there)
        assert {name for name, kind in named.items() if kind == ":?"} == {
            name for name in set_there if name.endswith("PASSWORD")
        }
        assert all(not value for name, value in set_there.items() if name.endswith("PASSWORD") or name in secrets)

    @pytest.mark.parametrize("service", OURS)
    def test_the_settings_of_our_services_are_settings(self, service: str) -> None:
        """The library reads each variable, and accepts its value."""
        environment = COMPOSE["services"][service]["environment"]
        values = {
            name: re.sub(r"\$\{\w+:-([^}]*)\}|\$\{\w+:\?[^}]*\}", r"\1", each) for name, each in environment.items()
        }
        known = {name.upper() for name in DKISTProcessingCoreConfiguration.model_fields} | {"PGPASSWORD"}

        settings = DKISTProcessingCoreConfiguration.model_validate(
            {name.lower(): value for name, value in values.items() if value}
        )

        assert set(environment) - known == set()
        # The relay is in the network of its host.
        assert settings.mesh_config["interservice-bus"].host in {*COMPOSE["services"], "127.0.0.1"}
        assert settings.otel_metrics_exporter == "none"

    @pytest.mark.parametrize("service", OURS)
    def test_the_command_of_our_services_exists(self, service: str) -> None:
        """The image starts `dkist-core` with it."""
        command = COMPOSE["services"][service]["command"]

        assert list(unknown_words(" ".join(word for word in command if not word[0].isdigit()))) == []

    def test_the_plugins_of_rabbitmq_are_installed_with_it(self) -> None:
        """The names are those of the plugins that Debian's RabbitMQ has."""
        text = re.sub(r"%.*", "", (FOLDER / "rabbitmq" / "enabled_plugins").read_text())
        match = re.fullmatch(r"\s*\[([\w,]+)\]\.\s*", text)

        assert match is not None
        assert match[1].split(",") == ["rabbitmq_management", "rabbitmq_prometheus"]


def test_the_image_is_built_from_files_that_are_enough(tmp_path: Path) -> None:
    """
    The library is built from what `.dockerignore` lets through, and nothing else of the folder gets into the image.
    """
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for name in allowed:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)

    (wheel,) = (tmp_path / "dist").glob("*.whl")

    names = zipfile.ZipFile(wheel).namelist()
    assert "dkist_processing_core/collect/__init__.py" in names
    assert lines[1] == "*"
    parsed = DockerfileParser(str(FOLDER / "Dockerfile"), env_replace=False).structure
    steps = [(each["instruction"], each["value"]) for each in parsed if each["instruction"] != "COMMENT"]
    assert ("COPY", ". /source") in steps
    assert steps[-2:] == [("USER", "10001"), ("ENTRYPOINT", '["dkist-core"]')]


def test_what_is_only_parsed_states_it() -> None:
    """
    A file that the tests do not run has the words "Only parsed" in its text; a dashboard has not been drawn.
    """
    files = [Path(folder) / name for folder, _, names in os.walk(FOLDER) for name in names]
    run = {*RULES, *(PROMETHEUS / "tests").iterdir(), PROMETHEUS / "prometheus.yaml"}
    data = {*(FOLDER / "schemas").iterdir(), *(PROMETHEUS / "targets").iterdir()}
    without_text = {FOLDER / name for name in ("README.md", "asyncapi.json", "ids.json", "example.env")}
    lists = {FOLDER / "Dockerfile.dockerignore", FOLDER / "collector" / "components.yaml"}
    drawn = set((FOLDER / "grafana" / "dashboards").iterdir())

    parsed = set(files) - run - data - without_text - lists - drawn - {FOLDER / ".env"}

    assert parsed
    assert [path for path in parsed if "Only parsed" not in path.read_text()] == []
    assert all("Grafana itself has not drawn it" in dashboard["description"] for dashboard in DASHBOARDS.values())


def test_the_readme_names_each_file() -> None:
    """
    Each file or its folder is in the table.
    """
    named = re.findall(r"`([^`]+)`", (FOLDER / "README.md").read_text())
    files = [Path(folder) / name for folder, _, names in os.walk(FOLDER) for name in names]

    paths = [FOLDER / name for name in named]

    assert [path for path in paths if "/" in str(path.relative_to(FOLDER)) and not path.exists()] == []
    missing = [file for file in files if not any(file.is_relative_to(path) for path in paths)]
    assert {file.name for file in missing} - {".env"} == {"README.md"}
