"""
The entry to the project: Makefile, lock files, CI and hooks agree with each other and with the documents.

Not here: the work of the targets, which is the rest of the suite.
"""

import ast
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import conftest
from tests.claims import claimed
from tests.generated import generated_by

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
# The pins of a published pipeline are a limit for a lock, and not a lock.
FROZEN = ROOT / "requirements" / "clients-frozen.txt"
LOCKS = sorted(set((ROOT / "requirements").glob("*.txt")) - {FROZEN})
# The peers of the benchmarks have a separate environment: one of them conflicts with the library's requirements. The
# Airflow of the tests has one, so that its limits do not affect the development tools. The published pipelines have
# one, because they pin all their requirements.
PEERS = ROOT / "requirements" / "peers.txt"
AIRFLOW = ROOT / "requirements" / "airflow.txt"
CLIENTS = ROOT / "requirements" / "clients.txt"
APART = [PEERS, AIRFLOW, CLIENTS]
PACKAGES = ROOT / "requirements" / "package-lock.json"
LIBRARYS_LOCKS = [lock for lock in LOCKS if lock not in APART]

# The content of each lock in addition to the base requirements: extras, and one dependency group.
LOCKED_SETS = {
    "demo": ["consumer", "dashboard", "examples"],
    "test": ["consumer", "dashboard", "examples", "test"],
    "dev": ["consumer", "dashboard", "examples", "test", "docs", "lint"],
    "airflow": ["airflow"],
}

PINNED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; [^#]+?)?(?: --hash=sha256:[0-9a-f]{64})+")


def recipe(target: str) -> list[str]:
    """Return the commands that a target of the Makefile runs, as they are written."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", MAKEFILE, flags=re.MULTILINE)
    assert found, f"The Makefile has no target {target}."
    return [line.removeprefix("\t") for line in found[1].splitlines()]


def entries(lock: Path) -> list[str]:
    """Return the requirements of a lock file, each on one line."""
    lines = re.sub(r"\s*\\\n\s*", " ", lock.read_text()).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pins(lock: Path) -> dict[str, str]:
    """Return the version of each distribution that a lock file names."""
    return {found["name"]: found["version"] for entry in entries(lock) if (found := PINNED.fullmatch(entry))}


def declared(group: str) -> list[str]:
    """Return the requirements that pyproject.toml lists under an extra or a dependency group."""
    groups = PYPROJECT["project"]["optional-dependencies"] | PYPROJECT["dependency-groups"]
    listed: list[str] = groups[group]
    # An extra may have another one in it.
    return [each for each in listed if not each.startswith("dkist-processing-core[")]


def declared_in_locks() -> list[tuple[str, str]]:
    """Pair each lock with each requirement that it must satisfy."""
    base: list[str] = PYPROJECT["project"]["dependencies"]
    build: list[str] = PYPROJECT["build-system"]["requires"]
    return [("uv", requirement) for requirement in build] + [
        (lock, requirement)
        for lock, groups in LOCKED_SETS.items()
        for requirement in [*base, *(name for group in groups for name in declared(group))]
    ]


def outside_make(**settings: str) -> dict[str, str]:
    """Return an environment without the variables of a make that may run this suite."""
    ours = ("MAKE", "MFLAGS", "RABBITMQ_SUITES")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | settings


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_target_that_a_document_names_exists(document: str) -> None:
    """A make command in the documents does the work that they describe."""
    text = (ROOT / document).read_text()

    named = re.findall(r"(?:`|^ {4,}|^\$ )make ([a-z]+)", text, flags=re.MULTILINE)

    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    assert set(named) <= targets


def test_every_command_that_writes_a_generated_file_exists() -> None:
    """The test of a generated file, and CONTRIBUTING, name the command that writes it."""
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))

    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## The documentation")[2].partition("\n## ")[0]
    documented = re.findall(r"^\|.*\| `([^`]+)`[^|]*\|$", section, flags=re.MULTILINE)
    named = re.findall(r'@generated_by\("(.+)"\)', written)

    assert len(set(named)) >= 10
    assert set(documented) <= set(named)
    assert [command for command in named if not exists(command)] == []


def exists(command: str) -> bool:
    """Return True if a command is a target of the Makefile, or runs a file or a module of the repository."""
    match command.split():
        case ["make", target, *_]:
            return re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE) is not None
        case [".venv/bin/python", "-m", module, *_]:
            return runs_as_program(module)
        case [".venv/bin/python", path, *_]:
            return (ROOT / path).exists()
    return False


def runs_as_program(module: str) -> bool:
    """Return True if `python -m` finds a module, and the module does something then."""
    path = ROOT.joinpath(*module.split("."))
    return (path / "__main__.py").exists() or "__main__" in path.with_suffix(".py").read_text()


@pytest.mark.on_failure("Run: make lock")
def test_a_failure_states_what_its_test_advises(request: pytest.FixtureRequest) -> None:
    """The sentence is added to the message, and to that of no other test."""
    run = conftest.pytest_runtest_call(request.node)
    next(run)

    with pytest.raises(AssertionError, match="1 == 2") as failed:
        run.throw(AssertionError("1 == 2"))

    assert failed.value.__notes__ == ["Run: make lock"]


def test_help_lists_every_target() -> None:
    """Plain make describes each target in one line."""
    phony = set(re.findall(r"^\.PHONY: (.*)", MAKEFILE, flags=re.MULTILINE)[0].split()) - {"FORCE"}

    shown = subprocess.run(["make"], cwd=ROOT, env=outside_make(), capture_output=True, text=True, check=True).stdout

    assert phony == set(re.findall(r"^make ([a-z]+) +\S", shown, flags=re.MULTILINE))


def test_settings_of_the_users_shell_do_not_reach_what_make_runs(tmp_path: Path) -> None:
    """The demo and the suite are the same in a shell that is configured for a real bus and collector."""
    probe = tmp_path / "probe.mk"
    probe.write_text("probe:\n\t@env\n")
    shell = {
        "BUILD_VERSION": "1.2.3",
        "DKIST_CORE_RUN_ID": "another",
        "ISB_PASSWORD": "hidden",
        "MESH_CONFIG": "{}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "elsewhere",
        "TRACEPARENT": "00-0-0-01",
    }

    ran = subprocess.run(
        ["make", "--file", "Makefile", "--file", probe, "probe"],
        cwd=ROOT,
        env=outside_make(**shell, KEPT="kept"),
        capture_output=True,
        text=True,
        check=True,
    )

    assert {line.partition("=")[0] for line in ran.stdout.splitlines()} & {*shell, "KEPT"} == {"KEPT"}


@generated_by("make lock")
@pytest.mark.parametrize("lock", [*LOCKS, PACKAGES], ids=lambda lock: lock.name)
def test_lock_file_holds_no_address(lock: Path) -> None:
    """The source of packages depends on the machine: a lock names no index, host or path."""
    found = re.findall(r".*(?:://|--(?:extra-)?index-url|--find-links| @ |(?<=\s)/).*", lock.read_text())

    assert found == []


@generated_by("make lock")
@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_file_pins_every_requirement_by_version_and_hash(lock: Path) -> None:
    """The installed packages are the locked ones, bit for bit."""
    loose = [entry for entry in entries(lock) if not PINNED.fullmatch(entry)]

    assert loose == []
    assert pins(lock)


@generated_by("make lock")
def test_javascript_packages_are_locked_by_version_and_hash() -> None:
    """The lock names each requirement at its version, and the hash of each package."""
    named = json.loads(PACKAGES.with_name("package.json").read_text())["dependencies"]

    locked = json.loads(PACKAGES.read_text())["packages"]

    assert locked.pop("")["dependencies"] == named
    assert {name: locked[f"node_modules/{name}"]["version"] for name in named} == named
    assert all(package["integrity"].startswith("sha512-") for package in locked.values())


@generated_by("make lock")
@pytest.mark.parametrize("lock", LIBRARYS_LOCKS, ids=lambda lock: lock.name)
def test_lock_files_agree_on_every_version(lock: Path) -> None:
    """Any lock may be installed over any other in one environment."""
    everything = pins(ROOT / "requirements" / "dev.txt")

    differing = {name: version for name, version in pins(lock).items() if everything.get(name, version) != version}

    assert differing == {}


@generated_by("make lock")
def test_published_pipelines_are_locked_to_what_they_pin() -> None:
    """If they pin a version, the lock has the same."""
    frozen = dict(line.split("==") for line in FROZEN.read_text().splitlines() if line[:1] != "#")

    locked = pins(CLIENTS)

    expected = {canonicalize_name(name): version for name, version in frozen.items()}
    assert {name: locked[name] for name in expected if name in locked} == {
        name: version for name, version in expected.items() if name in locked
    }
    assert expected.keys() & locked.keys()


@generated_by("make lock")
@pytest.mark.parametrize("name", ["pika", "pydantic"])
def test_peers_run_on_the_librarys_versions_of_what_both_use(name: str) -> None:
    """A benchmark compares the library with its peers, and not two releases of pika."""
    expected = pins(ROOT / "requirements" / "dev.txt")[name]

    assert pins(PEERS)[name] == expected


@generated_by("make lock")
@pytest.mark.parametrize("lock", APART, ids=lambda lock: lock.name)
def test_everything_that_is_named_beside_a_lock_is_locked(lock: Path) -> None:
    """The peers of the benchmarks, the Airflow of the tests, and published pipelines are installed from locks."""
    named = [Requirement(line) for line in lock.with_suffix(".in").read_text().splitlines() if line[:1] != "#"]

    locked = pins(lock)

    missing = [
        str(wanted)
        for wanted in named
        if not wanted.specifier.contains(locked.get(canonicalize_name(wanted.name), "none"), prereleases=True)
    ]
    assert missing == []


@generated_by("make lock")
@pytest.mark.parametrize(("lock", "requirement"), declared_in_locks())
def test_declared_requirement_is_locked_at_a_version_it_allows(lock: str, requirement: str) -> None:
    """A dependency that is added or raised in pyproject.toml is locked again, by make lock."""
    wanted = Requirement(requirement)

    version = pins(ROOT / "requirements" / f"{lock}.txt").get(canonicalize_name(wanted.name), "none")

    assert version != "none"
    assert wanted.specifier.contains(version, prereleases=True)


@pytest.mark.parametrize("requirement", PYPROJECT["project"]["dependencies"])
def test_base_requirement_is_spelled_as_clients_look_it_up(requirement: str) -> None:
    """
    Clients look up the part before the comparison among installed distributions: dashes, a lower limit, no marker.
    """
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*>=[0-9]+(\.[0-9]+)*", requirement)


def test_hooks_are_local_and_run_the_pieces_of_lint() -> None:
    """A commit hook downloads nothing and checks the same as make lint."""
    text = (ROOT / ".pre-commit-config.yaml").read_text()

    assert set(re.findall(r"repo: *(\S+)", text)) == {"local"}
    assert set(re.findall(r"language: *(\S+)", text)) == {"system"}
    assert recipe("lint") == re.findall(r"entry: *(.+)", text)


@pytest.mark.parametrize("failing", ["neither", "lint", "test"])
def test_ci_runs_lint_and_test_and_nothing_else(tmp_path: Path, failing: str) -> None:
    """A contributor can run the checks of CI by the same two commands; CI fails if one of them does, and shows both."""
    script = shutil.copytree(ROOT / ".ci", tmp_path / ".ci") / "run"
    write_command(tmp_path / "commands" / "make", 'echo "made $@" | tee -a calls; test "$1" != "$FAILING"')
    path = f"{tmp_path / 'commands'}:{os.environ['PATH']}"

    ran = subprocess.run(
        [script], env=os.environ | {"PATH": path, "FAILING": failing}, capture_output=True, text=True, check=False
    )

    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "made .venv/.stamp-dev .venv/.stamp-test"
    assert sorted(calls[1:]) == ["made lint", "made test"]
    assert set(calls) <= set(ran.stdout.splitlines())
    assert (ran.returncode == 0) is (failing == "neither")


def write_command(path: Path, script: str) -> None:
    """Write a program for the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run_suite(
    directory: Path,
    *arguments: str,
    selected: str = "",
    pytest_: str,
    name: str = "on_each_python.sh",
    environments: str = "first second",
    **settings: str,
) -> subprocess.CompletedProcess[str]:
    """
    Run the suite in the environments `first` and `second`, with a shell script in place of pytest.

    The arguments select tests with the marks `selected`. The file `prepared` gets the names of what is made for them.
    """
    script = directory / "tests" / name
    write_command(script, (ROOT / "tests" / name).read_text())
    marks = {
        mark: mark in selected.split() for mark in (*MARKS, "versions", "prometheus", "strace", "node", "chromium")
    }
    asks = f"""
        import sys
        for each in sys.argv[1:sys.argv.index("--")]:
            if eval(each, {marks}):
                print(each)
    """
    (directory / "asks.py").write_text(textwrap.dedent(asks))
    for python in (f"{directory}/{environment}/bin/python" for environment in ("first", "second")):
        asked = f'shift 2; exec {sys.executable} {directory}/asks.py "$@"'
        write_command(Path(python), f"if [ $2 = tests.parts ]; then {asked}; fi\n{pytest_}")
    for path in ("commands/make", "tests/services/install_packages.sh", "tests/services/fetch_rabbitmq.sh"):
        does = f'echo "$(basename $0) $*" | sed "s/--silent //" >>{directory}/prepared'
        write_command(directory / path, f'{does}; case $0 in *fetch*) echo "$*" ;; esac')
    return subprocess.run(
        ["bash", script, *environments.split(","), *arguments],
        env=outside_make(PATH=f"{directory}/commands:{os.environ['PATH']}", **settings),
        capture_output=True,
        text=True,
        check=False,
    )


def streams(directory: Path, **settings: str) -> tuple[dict[str, list[str]], str]:
    """
    Return the mark expressions with which the suite is run in each of two environments, and the output.

    The processes that divide one part among them count as one run.
    """
    directory.mkdir(exist_ok=True)
    counts = 'case $5 in --claims=*) mkdir "${5#*=}/counted" 2>/dev/null || exit 0 ;; esac'
    script = f'{counts}; printf "%s\\n" "$4" >>"${{0%/bin/python}}/marks"'
    ran = run_suite(directory, pytest_=script, **settings)
    assert ran.returncode == 0
    return {name: (directory / name / "marks").read_text().splitlines() for name in ("first", "second")}, ran.stdout


MARKS = ("soak", "quiet", "airflow", "clients", "once", "rabbitmq")
SOAK = "first/bin/python,sid"
WITH_A_BROKER = "rabbitmq and not soak and not airflow and not clients"


@pytest.mark.parametrize(
    ("marks", "first", "second"),
    [
        (set(), 1, 1),
        ({"rabbitmq"}, 1, 1),
        ({"once"}, 1, 0),
        ({"once", "rabbitmq"}, 1, 0),
        ({"quiet"}, 1, 1),
        ({"quiet", "once"}, 1, 0),
        ({"airflow"}, 1, 0),
        ({"airflow", "rabbitmq"}, 1, 0),
        ({"airflow", "once"}, 1, 0),
        ({"airflow", "quiet"}, 1, 0),
        ({"clients"}, 1, 0),
        ({"clients", "once"}, 1, 0),
        ({"clients", "once", "rabbitmq"}, 1, 0),
        ({"soak"}, 0, 0),
        ({"soak", "airflow"}, 0, 0),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else None,
)
@pytest.mark.parametrize("coverage", ["", "1"], ids=["plain", "measured"])
def test_every_test_runs_once_where_it_belongs(
    tmp_path: Path, marks: set[str], first: int, second: int, coverage: str
) -> None:
    """No test is left out between the parts of a run, or run by two of them."""
    found, printed = streams(tmp_path, CLIENTS=".venv-clients", COVERAGE=coverage)

    counts = {
        name: sum(eval(each, {mark: mark in marks for mark in MARKS}) for each in expressions)
        for name, expressions in found.items()
    }
    assert counts == {"first": first, "second": second}
    assert "Python 3.13" not in printed


def run_quick(directory: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the suite as `make quick` does, on three processors, with a shell script in place of Python."""
    script = directory / "tests" / "quick.sh"
    commands = directory / "commands"
    for folder in (script.parent, commands):
        folder.mkdir()
    script.write_text((ROOT / "tests" / "quick.sh").read_text())
    for name, does in {"python": python, "nproc": "echo 3"}.items():
        (commands / name).write_text(f"#!/bin/sh\n{does}\n")
        (commands / name).chmod(0o755)
    environment = outside_make(PATH=f"{commands}:{os.environ['PATH']}")
    return subprocess.run(
        ["bash", script, commands / "python"], env=environment, capture_output=True, text=True, check=False
    )


def test_quick_runs_what_starts_no_process_in_as_many_processes_as_there_are_processors(tmp_path: Path) -> None:
    """Tests that measure time or take minutes are left out."""
    marks = [*MARKS, "processes", "node"]

    ran = run_quick(tmp_path, 'printf \'%s|%s\\n\' "$5" "$7"')

    printed = ran.stdout.partition("\nResults:\n")[0]
    ((expression, claims),) = {tuple(line.split("|")) for line in printed.splitlines()}
    left_out = {mark for mark in marks if not eval(expression, {each: each == mark for each in marks})}
    assert ran.returncode == 0
    assert printed.count("--claims=") == 3
    assert not Path(claims.removeprefix("--claims=")).exists()
    assert left_out == {"airflow", "clients", "node", "processes", "quiet", "rabbitmq", "soak"}
    assert eval(expression, dict.fromkeys(marks, False))


@pytest.mark.parametrize("statuses", [(1, 0, 5), (0, 1, 5), (5, 0, 1)])
def test_a_failure_in_any_process_fails_quick(tmp_path: Path, statuses: tuple[int, int, int]) -> None:
    """A process that found no test is not a failure."""
    # The claims of the three processes decide their statuses.
    ends = "".join(
        f'mkdir "${{7#*=}}/{number}" 2>/dev/null && end {status}; ' for number, status in enumerate(statuses)
    )
    end = 'end() { [ $1 != 1 ] || echo "FAILED tests/x.py::test_y"; echo "1 of a process"; exit $1; }'
    ran = run_quick(tmp_path, f"{end}; {ends}")

    assert ran.returncode == 1
    assert ran.stdout.count("1 of a process") == 2 * 3  # each process, and the list of results
    failed = r"\nFailed:\n  build/quick\.[123]\.log: exit status 1\n  FAILED tests/x\.py::test_y\n\Z"
    assert re.search(failed, ran.stdout)


def test_processes_with_one_folder_of_claims_run_each_test_once(tmp_path: Path) -> None:
    """A failing test fails one of them."""
    (tmp_path / "claims").mkdir()
    module = tmp_path / "test_numbers.py"
    module.write_text(
        "import pytest\n"
        '@pytest.mark.parametrize("number", range(40))\n'
        "def test_number(number):\n"
        "    assert number != 7\n"
    )
    options = ["-v", "-p", "tests.conftest", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    command: list[str | Path] = [sys.executable, "-m", "pytest", *options, f"--claims={tmp_path / 'claims'}", module]

    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = "".join(process.communicate()[0] for process in processes)

    ran = re.findall(r"::test_number\[(\d+)\] (\w+)", printed)
    assert sorted(ran) == sorted((str(number), "FAILED" if number == 7 else "PASSED") for number in range(40))
    assert sorted(process.returncode for process in processes) == [0, 0, 1]


class Named:
    """A test of which only the name matters."""

    def __init__(self, nodeid: str) -> None:
        """Keep the name."""
        self.nodeid = nodeid


def test_a_process_begins_a_module_that_no_other_has_begun_and_then_helps(tmp_path: Path) -> None:
    """Fixtures of a module are mostly set up once, and all processes end together."""
    tests: list[Any] = [Named(f"{module}.py::test_{number}") for module in "ab" for number in range(3)]
    one, other = claimed(tests, tmp_path), claimed(tests, tmp_path)

    begun = [next(one).nodeid, next(other).nodeid, next(one).nodeid]
    helped = [next(each).nodeid for each in (other, other, other)]

    assert begun == ["a.py::test_0", "b.py::test_0", "a.py::test_1"]
    assert helped == ["b.py::test_1", "b.py::test_2", "a.py::test_2"]
    assert [*one, *other] == []


def test_published_pipelines_are_left_out_where_their_python_is_not(tmp_path: Path) -> None:
    """One sentence states it, and all other tests run."""
    found, printed = streams(tmp_path, CLIENTS="")

    runs_clients = [each for each in found["first"] if eval(each, {mark: mark == "clients" for mark in MARKS})]
    assert runs_clients == []
    assert any(eval(each, {mark: mark == "airflow" for mark in MARKS}) for each in found["first"])
    assert printed.count("Python 3.13 is not installed: ") == 1


@pytest.mark.parametrize("marks", ["versions", "versions once"])
def test_what_a_version_of_the_broker_can_change_runs_on_each_suite(tmp_path: Path, marks: str) -> None:
    """
    On the system's RabbitMQ in the first environment, and on that of the suites in the last one.
    """
    found, _ = streams(tmp_path, RABBITMQ_SUITES="one two")

    counts = {
        name: sum(eval(each, {mark: mark in marks.split() for mark in (*MARKS, "versions")}) for each in expressions)
        for name, expressions in found.items()
    }
    assert counts == {"first": 1, "second": 2}
    assert found["second"].count("versions and not soak and not quiet") == 2


def test_without_another_rabbitmq_each_python_runs_what_its_version_can_change(tmp_path: Path) -> None:
    """
    A system that is not Debian has no suites, and a machine may have one Python.
    """
    both, _ = streams(tmp_path / "both")
    one = run_suite(
        tmp_path / "one",
        environments="first",
        pytest_='printf "%s\\n" "$RABBITMQ_SUITE|$4" >>"${0%/bin/python}/marks"',
        RABBITMQ_SUITES="one",
    )

    marks = {mark: mark == "versions" for mark in (*MARKS, "versions")}
    suites = [line.split("|") for line in lines_of(tmp_path / "one" / "first" / "marks")]
    assert [sum(eval(each, marks) for each in both[name]) for name in ("first", "second")] == [1, 1]
    assert one.returncode == 0
    assert sorted(suite for suite, part in suites if eval(part, marks)) == ["", "one"]


def test_the_times_and_the_work_of_all_parts_are_shown_before_their_results(tmp_path: Path) -> None:
    """The part that ends last decides the time of a run."""
    does = "echo 'processor time: 7 s'; echo '5 passed in 1.0s'"

    ran = run_suite(tmp_path, pytest_=does, CLIENTS=".venv-clients")

    _, times = ran.stdout.split("\nTimes:\n")
    lines = times.partition("\nResults:\n")[0].splitlines()
    assert len(lines) == 9
    assert [line for line in lines if not re.fullmatch(r"  build/[a-z.1234-]+\.log: 0:0\d to 0:\d\d, 7 s", line)] == []


def test_the_tests_that_run_once_are_divided_unless_some_are_selected(tmp_path: Path) -> None:
    """One process would end minutes after the others."""
    does = 'case $5 in --claims=*) echo "$5"; ls -d "${5#*=}" ;; esac; echo "5 passed in 1.0s"'

    whole = run_suite(tmp_path / "whole", pytest_=does, CLIENTS=".venv-clients").stdout
    part = run_suite(
        tmp_path / "part", "tests/test_a.py", selected="once", pytest_=does, CLIENTS=".venv-clients"
    ).stdout

    folders = re.findall(r"^--claims=(\S+)\n\1$", whole, flags=re.MULTILINE)
    assert (len(folders), len(set(folders))) == (3, 1)
    assert not Path(folders[0]).exists()
    logs = [f"build/test.once-{process}.log" for process in (1, 2, 3)]
    assert re.findall(r"build/test\.once\S*(?=: 5 passed)", whole) == logs
    assert "--claims" not in part


def test_runs_take_turns(tmp_path: Path) -> None:
    """On one processor, one of them runs beside the first environment's at a time."""
    write_command(tmp_path / "commands" / "nproc", "echo 1")
    alone = f'mkdir {tmp_path}/turn || echo "2 at once"; {sys.executable} -c pass; rmdir {tmp_path}/turn'
    does = f'case "$0$4" in *first*" and once") {alone} ;; esac'

    ran = run_suite(tmp_path, pytest_=f"{does}; echo '5 passed in 1.0s'", CLIENTS=".venv-clients")

    assert ran.returncode == 0
    assert ran.stdout.count("5 passed in 1.0s") > 9
    assert "2 at once" not in ran.stdout


def test_what_failed_in_any_environment_stands_in_the_last_lines(tmp_path: Path) -> None:
    """The end of a long run's output names the tests that failed."""
    fails = "printf '\\033[31mFAILED\\033[0m tests/test_a.py::test_b - assert 1 == 2\\n1 failed in 2.0s\\n'; exit 1"
    does = f"case $0 in *second*) {fails} ;; esac; echo '===== 5 passed in 1.0s ====='"

    ran = run_suite(tmp_path, pytest_=does, CLIENTS=".venv-clients")

    assert ran.returncode == 1
    _, said = ran.stdout.split("\nFailed:\n")
    assert said.splitlines() == [
        f"  {line}"
        for name in ("build/testsecond.log", "build/quietsecond.log")
        for line in (f"{name}: exit status 1", "FAILED tests/test_a.py::test_b - assert 1 == 2")
    ]


@pytest.mark.parametrize(
    ("selected", "results", "prepared"),
    [
        ("once", ["test.once"], []),
        ("quiet once", ["quietfirst"], []),
        ("quiet", ["quietfirst", "quietsecond"], ["make second/.stamp-test"]),
        ("", ["testfirst", "testsecond"], ["make second/.stamp-test"]),
        ("once strace", ["test.once"], ["install_packages.sh"]),
        ("once prometheus", ["test.once"], ["install_packages.sh"]),
        ("once node", ["test.once"], ["install_packages.sh", "make .node/.stamp"]),
        ("rabbitmq once", ["test.once"], ["install_packages.sh"]),
        ("airflow", ["test.airflow"], ["install_packages.sh", "make .venv-airflow/.stamp-airflow"]),
        ("clients", ["test.clients"], ["install_packages.sh", "make .venv-clients/.stamp-clients"]),
        (
            "versions rabbitmq",
            ["testfirst", "test.rabbitmq-trixie"],
            ["fetch_rabbitmq.sh trixie", "install_packages.sh", "make second/.stamp-test"],
        ),
        (
            "versions rabbitmq once",
            ["test.once", "test.rabbitmq-trixie"],
            ["fetch_rabbitmq.sh trixie", "install_packages.sh"],
        ),
        ("rabbitmq", ["testfirst", "testsecond"], ["install_packages.sh", "make second/.stamp-test"]),
    ],
)
def test_a_selection_makes_what_it_needs_and_ends_with_its_results(
    tmp_path: Path, selected: str, results: list[str], prepared: list[str]
) -> None:
    """The marks of the selected tests decide which environments and services are made, and which runs take place."""
    settings = {"CLIENTS": ".venv-clients", "RABBITMQ_SUITES": "trixie"}

    ran = run_suite(tmp_path, "tests/test_a.py", selected=selected, pytest_="echo '1 passed in 0.1s'", **settings)

    made = (tmp_path / "prepared").read_text().splitlines() if prepared else []
    assert sorted({each.strip() for each in made}) == prepared
    assert (tmp_path / "prepared").exists() == bool(prepared)
    ended = [f"  build/{name}.log: 1 passed in 0.1s" for name in results]
    last = ran.stdout.splitlines()[-len(results) :]
    assert sorted(last) == sorted(ended) if len(results) > 1 else last == ["1 passed in 0.1s"]


def test_the_whole_suite_makes_all_environments(tmp_path: Path) -> None:
    """Without arguments, nothing is asked about the tests."""
    run_suite(tmp_path, pytest_="echo '1 passed in 0.1s'", CLIENTS=".venv-clients", RABBITMQ_SUITES="trixie")

    made = (tmp_path / "prepared").read_text().splitlines()
    assert sorted({each.strip() for each in made}) == [
        "fetch_rabbitmq.sh trixie",
        "install_packages.sh",
        "make .node/.stamp",
        "make .venv-airflow/.stamp-airflow",
        "make .venv-clients/.stamp-clients",
        "make second/.stamp-test",
    ]


def test_a_selection_of_nothing_is_one_sentence(tmp_path: Path) -> None:
    """It fails, since a misspelt name would otherwise look like success."""
    ran = run_suite(tmp_path, "-k", "misspelt", selected="soak", pytest_="exit 5", CLIENTS=".venv-clients")

    assert ran.returncode == 5
    assert ran.stdout == ""
    assert ran.stderr == "No test was selected by: -k misspelt. The tests marked `soak` run by make soak.\n"


@pytest.mark.parametrize(
    ("marks", "made", "runs"),
    [
        ("soak", [], ["soak"]),
        ("soak rabbitmq", ["install_packages.sh"], ["soak"]),
        ("soak prometheus", ["install_packages.sh"], ["soak"]),
        ("soak rabbitmq versions", ["install_packages.sh", "fetch_rabbitmq.sh sid"], ["soak", "soak and versions"]),
        ("soak airflow", ["install_packages.sh", "make .venv-airflow/.stamp-airflow"], ["soak"]),
        ("rabbitmq", ["install_packages.sh", "fetch_rabbitmq.sh sid"], [WITH_A_BROKER]),
        ("rabbitmq airflow", [], []),
    ],
)
def test_the_long_tests_make_what_the_selected_ones_need(
    marks: str, made: list[str], runs: list[str], tmp_path: Path
) -> None:
    """An Airflow takes minutes to install."""
    script = 'printf "%s\\n" "$4" >>"${0%/bin/python}/marks"'
    ran = run_suite(tmp_path, "tests/x.py", selected=marks, pytest_=script, name="soak.sh", environments=SOAK)

    prepared, marked = tmp_path / "prepared", tmp_path / "first" / "marks"
    assert ran.returncode == (0 if runs else 5)
    assert [each.strip() for each in lines_of(prepared)] == made
    assert lines_of(marked) == runs
    assert ran.stderr.startswith("No test of make soak was selected by: tests/x.py.") is not bool(runs)


def lines_of(file: Path) -> list[str]:
    """Return the lines of a file, none if it does not exist."""
    return file.read_text().splitlines() if file.exists() else []


def parts_of(*arguments: str) -> list[str]:
    """Return the parts of the suite that have a test among the selected ones."""
    parts = ["once", "not once", "quiet", "airflow", "strace and not soak", "soak"]
    command = [sys.executable, "-m", "tests.parts", *parts, "--", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def test_the_parts_of_a_selection_are_those_of_its_tests() -> None:
    """The arguments of pytest select as in a run: by file, name and mark. Those of `make soak` are selected too."""
    modules = [f"tests/test_{name}.py" for name in ("sync", "airflow_config")]

    assert parts_of(*modules) == ["once", "not once", "airflow", "strace and not soak"]
    assert parts_of(*modules, "-m", "airflow", "-k", "setting") == ["once", "airflow"]
    assert parts_of("tests/test_deaths.py") == ["not once", "quiet", "soak"]


LEFT_OUT = """
import sys
from contextlib import redirect_stdout
import pytest

class Plugin:
    def pytest_collection_finish(self, session):
        self.items = session.items

plugin = Plugin()
with redirect_stdout(sys.stderr):
    pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider"], plugins=[plugin])
from tests import conftest
from tests.parts import is_in_part
parts = sys.argv[1:]
found = {part: {item.path for item in plugin.items if is_in_part(item, part)} for part in parts}
modules = {item.path for item in plugin.items}
for part in parts:
    kept = {path for path in modules if conftest.may_be_in_part(path, part)}
    print(len(found[part]), len(modules - kept), sorted(map(str, found[part] - kept)))
"""


@pytest.mark.timeout(1800)  # reads the whole suite, while other processes do so too
def test_a_module_that_a_part_does_not_read_has_no_test_of_it(tmp_path: Path) -> None:
    """Each part reads fewer modules than there are, and all those with its tests."""
    first, second = (
        set(found) for found in streams(tmp_path, CLIENTS=".venv-clients", RABBITMQ_SUITES="one")[0].values()
    )

    ran = subprocess.run(
        [sys.executable, "-c", LEFT_OUT, *sorted(first | second)], cwd=ROOT, capture_output=True, text=True, check=True
    )

    lines = ran.stdout.splitlines()
    assert len(lines) == len(first | second) >= 7
    assert [line for line in lines if not re.fullmatch(r"[1-9]\d* [1-9]\d* \[\]", line)] == []


def create_environment(directory: Path, *, python: str) -> subprocess.CompletedProcess[str]:
    """Create an environment with a shell script as interpreter, where apt-get installs nothing."""
    commands = directory / "commands"
    commands.mkdir()
    for name, script in {"stub-python": python, "apt-get": "exit 0"}.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    return subprocess.run(
        [ROOT / "requirements" / "environment.sh", "create", directory / "environment", "stub-python"],
        env=outside_make(PATH=f"{commands}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=False,
    )


def test_too_old_a_python_is_refused_with_one_sentence(tmp_path: Path) -> None:
    """On a machine without a supported Python, it states which one to install."""
    refused = create_environment(tmp_path, python="exit 1")

    assert refused.returncode == 1
    assert refused.stdout == ""
    assert re.fullmatch(r"Install Python 3\.11 or later .* none of these is one: stub-python\.\n", refused.stderr)


def test_a_python_without_ensurepip_is_refused_with_one_sentence(tmp_path: Path) -> None:
    """If Debian's package for virtual environments is missing and cannot be installed, its name is stated."""
    lacking = 'case "$2" in *ensurepip*) exit 1 ;; *print*) echo 3.12 ;; esac'

    refused = create_environment(tmp_path, python=lacking)

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("Install python3.12-venv (as root: apt-get install python3.12-venv)")
    assert not (tmp_path / "environment").exists()


def test_each_distribution_that_the_library_imports_is_declared() -> None:
    """What only another requirement brings could be missing with that one's next release."""
    groups = [PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"].values()]
    requirements = {canonicalize_name(Requirement(each).name) for group in groups for each in group}
    installed = {
        module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()
    }
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "dkist_processing_core").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    # Pydantic pins its core, and each instrumentor requires wrapt: without one, it is not imported.
    others = {"dkist_processing_core", "pydantic_core", "wrapt"}

    undeclared = {name for name in (imported & set(installed)) - others if not installed[name] & requirements}

    assert undeclared == set()


# Stands for `dkist-core`, as the demo calls it: the second run fails, and the dashboard lasts until Ctrl-C.
DEMO_STUB = """\
echo "called: $*"
case "$1 $4" in
    dashboard*) exec {python} -c '{waits}' ;;
    'run 2') exit 1 ;;
esac
"""
WAITS_FOR_CTRL_C = """\
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("waiting", flush=True)
signal.sigwait([signal.SIGINT])
print("ended", flush=True)
"""


def demo_in(folder: Path, *, port: int = 8088) -> list[str]:
    """Return the command that runs the recipe of `make demo` with a stub of `dkist-core`."""
    write_command(folder / "stub", DEMO_STUB.format(python=sys.executable, waits=WAITS_FOR_CTRL_C))
    lines = "".join(f"\t{line}\n" for line in recipe("demo")).replace("8088", str(port))
    (folder / "Makefile").write_text(
        f"SHELL := /bin/bash\n.SHELLFLAGS := -euo pipefail -c\nDEMO = {folder}/stub\ndemo:\n{lines}"
    )
    return ["make", "--directory", str(folder), "demo"]


def test_the_demo_ends_by_itself_without_a_terminal(tmp_path: Path) -> None:
    """It names the command that shows its runs."""
    ran = subprocess.run(
        demo_in(tmp_path), env=outside_make(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )

    called = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("called:")]
    assert (ran.returncode, called) == (0, ["run", "timeline", "run"])
    assert f"To see both runs in a browser: {tmp_path}/stub dashboard" in ran.stdout.splitlines()


@pytest.mark.parametrize("is_taken", [False, True])
def test_the_demo_keeps_the_dashboard_open_in_a_terminal(tmp_path: Path, *, is_taken: bool) -> None:
    """Ctrl-C ends it with exit code 0. Where its port is taken, it has any other one."""
    terminal, its_end = pty.openpty()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not is_taken:
            server.close()
        # The terminal becomes that of the new session, whose processes it interrupts.
        command = ["setsid", "--ctty", *demo_in(tmp_path, port=port)]
        demo = subprocess.Popen(command, env=outside_make(), stdin=its_end, stdout=its_end, stderr=its_end)
        os.close(its_end)
        shown = ""
        while "waiting" not in shown:
            shown += os.read(terminal, 4096).decode()
        os.write(terminal, b"\x03")
        while "ended" not in shown:
            shown += os.read(terminal, 4096).decode()

    assert demo.wait() == 0
    os.close(terminal)
    assert f"called: dashboard --port {0 if is_taken else port}" in shown
