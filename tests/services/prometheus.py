"""
A private Prometheus server: the system's package, run on a free loopback port, with the settings of a test.

Not here: the settings, rules and targets of a test.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from tests.services.processes import listeners, wait_for_end
from tests.services.server import Server
from tests.services.sockets import LOOPBACK, free_ports

T = TypeVar("T")

_PROGRAM = Path("/usr/bin/prometheus")
_PROMTOOL = Path("/usr/bin/promtool")
_INSTALL = Path(__file__).with_name("install_packages.sh")
_POLL_SECONDS = 0.1
_ASK_SECONDS = 10.0


class MissingPrometheusError(RuntimeError):
    """
    The package is not installed; the message states the package to install.
    """


class PrometheusError(RuntimeError):
    """
    The server failed, did not answer, or refused a query; the message states which.
    """


def require_prometheus() -> str:
    """
    Return the server's program, or raise the installer's sentence if it is missing.
    """
    check = subprocess.run([_INSTALL, "--check", "prometheus"], capture_output=True, text=True, check=False)
    if check.returncode != 0:
        raise MissingPrometheusError(check.stderr.strip())
    return str(_PROGRAM) if _PROGRAM.exists() else "prometheus"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """
    Run promtool, and return its exit status and output.
    """
    require_prometheus()
    program = _PROMTOOL if _PROMTOOL.exists() else "promtool"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


class PrometheusServer(Server):
    """
    A private server, which scrapes and evaluates as its settings require; its data is lost when it ends.
    """

    _error = PrometheusError

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """
        Choose the port, and the folder for settings, data and the log.
        """
        super().__init__()
        self.host = LOOPBACK
        (self.port,) = free_ports(1)
        self.folder = folder
        self.settings = settings
        # A proxy in the environment must not receive these requests.
        self._opener = build_opener(ProxyHandler({}))

    @property
    def _logs(self) -> list[Path]:
        return [self.folder / "output.log"]

    def start(self, timeout: float = 200.0) -> None:
        """
        Start the server unless it runs, and return when it answers.

        Raises:
            MissingPrometheusError: the package is not installed.
            PrometheusError: the server ended or did not answer in time.
        """
        if self.is_running:
            return
        program = require_prometheus()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = self.folder / "prometheus.yaml"
        settings.write_text(json.dumps(self.settings))  # JSON is YAML
        deadline = time.monotonic() + timeout
        options = {
            "config.file": settings,
            "storage.tsdb.path": self.folder / "data",
            "web.listen-address": f"{self.host}:{self.port}",
            "log.level": "warn",
        }
        command = ["setpriv", "--pdeathsig", "KILL", program, *(f"--{name}={value}" for name, value in options.items())]
        self._begin([*command, "--enable-feature=exemplar-storage"], self.folder)
        while not self._answers():
            ended = not wait_for_end([self.pid], _POLL_SECONDS)
            if ended or time.monotonic() > deadline:
                self.close()
                raise PrometheusError(f"the server {'ended' if ended else 'did not answer in time'}{self._log_tail()}")
        self._assert_loopback_only()

    def close(self) -> None:
        """
        End the server; a second call has no effect.
        """
        self._kill()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """
        Return the series of an instant query, with `metric` and `value`.

        Raises:
            PrometheusError: the server refuses the expression.
        """
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """
        Return the exemplars of the series that an expression selects, of the last hour.
        """
        now = time.time()
        series: list[dict[str, Any]] = self._ask("query_exemplars", query=expression, start=now - 3600, end=now + 60)
        return [exemplar for each in series for exemplar in each["exemplars"]]

    def targets(self) -> dict[str, str]:
        """
        Return the health of each scraped job: `up`, `down` or `unknown`.
        """
        return {each["labels"]["job"]: each["health"] for each in self._ask("targets")["activeTargets"]}

    def firing(self) -> set[str]:
        """
        Return the names of the alerts that fire.
        """
        return {each["labels"]["alertname"] for each in self._ask("alerts")["alerts"] if each["state"] == "firing"}

    def wait_for(self, predicate: Callable[["PrometheusServer"], T], timeout: float = 100.0) -> T:
        """
        Wait until the predicate gives a true value, and return that value.

        Raises:
            TimeoutError: it did not in time; the message has the last value, the targets and the alerts.
        """
        deadline = time.monotonic() + timeout
        while not (answer := predicate(self)):
            if not wait_for_end([self.pid], _POLL_SECONDS):
                raise PrometheusError(f"the server ended{self._log_tail()}")
            if time.monotonic() > deadline:
                state = f"targets: {self.targets()}, firing: {self.firing()}"
                raise TimeoutError(f"not within {timeout} s; last: {answer!r}; {state}")
        return answer

    def _ask(self, resource: str, **parameters: object) -> Any:
        url = f"http://{self.host}:{self.port}/api/v1/{resource}?{urlencode(parameters)}"
        try:
            with self._opener.open(url, timeout=_ASK_SECONDS) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            with error:
                reason = json.load(error)["error"]
            raise PrometheusError(f"{resource} {parameters}: {reason}") from error

    def _answers(self) -> bool:
        # Another server may hold the port: this one has ended then, or is about to.
        url = f"http://{self.host}:{self.port}/-/ready"
        with suppress(URLError, OSError), self._opener.open(url, timeout=_ASK_SECONDS):
            return bool(listeners({self.pid}))
        return False
