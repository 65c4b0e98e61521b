"""
Environments of releases: named, built once, found quickly, repaired, and pruned.

The installations are real, from small wheels in a folder, without a network. Not here: the launcher, which runs tasks
in them.
"""

import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.environments import Environment, Environments, Requirement, folder_of
from dkist_processing_core.environments._build import _link
from dkist_processing_core.environments._key import release_of
from dkist_processing_core.environments._place import GONE, MARKER, distrust
from dkist_processing_core.environments._record import size_of
from dkist_processing_core.environments._requirement import normalised
from dkist_processing_core.environments._translation import Translation, timeout_and_retries
from dkist_processing_core.environments._variables import without_user_information
from dkist_processing_core.environments.entries import State
from dkist_processing_core.environments.limits import Limits
from dkist_processing_core.errors import DKISTProcessingCoreError, EnvironmentBuildError, EnvironmentRequestError
from dkist_processing_core.settings.origin import Origin, read_from
from tests.running import ROOT, run_command
from tests.services.processes import with_environment
from tests.services.wheels import make_index, make_wheel
from tests.strategies import texts
from tests.waiting import SECONDS, wait_until

PAGE = ROOT / "docs" / "how-to" / "environments.md"
VARIES = [
    (re.compile(r"cp\d+t?-[0-9a-f]{16}"), "KEY"),
    (re.compile(r"\d+(\.\d+)? (ms|s|[KM]?B)\b"), "MUCH"),
    (re.compile(r"uv [\d.]+"), "uv VERSION"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "TIME"),
    (re.compile(r" +"), " "),
    (re.compile(r"\s+\Z"), ""),
]
CANARY = "canary-7f3a-index"
DAY = 86400.0
PIPE = Requirement.of("small_pipeline.workflows", "1.0")
# Prepares the given environment as soon as its standard input ends, and prints the result.
PREPARE = """
import json, os, sys
from dkist_processing_core.environments import Environments, Requirement
lines = []
sys.stdin.read()
with Environments(sys.argv[1]).prepare(Requirement.of(*sys.argv[2:4]), on_output=lines.append) as environment:
    print(json.dumps([environment.folder, environment.built, lines]))
"""
HOLD = """
import os, sys, signal
from dkist_processing_core.environments import Environments, Requirement
environment = Environments(sys.argv[1]).find(Requirement.of(*sys.argv[2:4]))
print(environment.folder, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder of releases: of a pipeline, of its requirements, and of others.
    """
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        make_wheel(folder, "small-dependency", version)
    asdf = {"asdf": ["small-dependency"], "Grating_Tools": ["small-dependency"]}
    make_wheel(folder, "small-pipeline", "1.0", requires=["small-dependency"], extras=asdf)
    make_wheel(folder, "small-pipeline", "2.0", extras={**asdf, "frozen": ["small-dependency==1.0"]})
    make_wheel(folder, "small-pipeline", "3.0", requires=["nowhere-to-be-found"])
    return folder


@pytest.fixture(scope="module")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The cache of uv itself, which these tests share.
    """
    return tmp_path_factory.mktemp("uv")


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheels: Path, uv_cache: Path) -> dict[str, str]:
    """
    The variables of this test, and of its processes: no setting of this machine's pip or uv, and the wheels.
    """
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "XDG_")) and name != "XDG_RUNTIME_DIR":
            monkeypatch.delenv(name)
    chosen = {
        "HOME": str(tmp_path / "home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": wheels.as_uri(),
        "PIP_NO_INDEX": "1",
        "UV_CACHE_DIR": str(uv_cache),
        "UV_NO_CONFIG": "1",
        "DKIST_CORE_ENVIRONMENTS_DIR": str(tmp_path / "environments"),
    }
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.fixture
def cache(environ: dict[str, str], tmp_path: Path) -> Environments:
    """
    An empty cache.
    """
    return Environments(tmp_path / "environments", environ=environ)


@pytest.fixture
def other_python(tmp_path: Path) -> Path:
    """
    This Python under a name in a folder without uv.
    """
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "python").symlink_to(os.path.realpath(sys.executable))
    return folder / "python"


def numbers(cache: Environments) -> list[int]:
    """
    Return the numbers of the existing environments, complete or not.
    """
    return sorted(int(path.suffix[1:]) for path in Path(cache.folder).glob("*.[0-9]*") if path.suffix[1:].isdecimal())


def says(environment: Environment, program: str) -> str:
    """
    Return the output of a program in an environment.
    """
    return subprocess.run(
        [environment.python, "-I", "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()


def works(environment: Environment) -> bool:
    """
    Whether the pipeline in an environment can be imported.
    """
    return says(environment, "import small_pipeline; print(small_pipeline.VERSION)") == environment.requirement.version


def built(cache: Environments, version: str = "1.0", extras: tuple[str, ...] = ()) -> Path:
    """
    Return the folder of an environment that is in the cache and not in use.
    """
    with cache.prepare(Requirement.of("small-pipeline", version, extras), on_output=print) as environment:
        return environment.path


def used(path: Path, days_ago: float) -> None:
    """
    Set the time of an environment's last use to that many days ago.
    """
    moment = time.time() - days_ago * DAY
    os.utime(path / MARKER, (moment, moment))


def start(program: str, folder: str, version: str = "1.0") -> "subprocess.Popen[str]":
    """
    Start a program that uses an environment, in a new process group.
    """
    return subprocess.Popen(
        [sys.executable, "-c", program, folder, "small-pipeline", version],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


# Requirements


@pytest.mark.parametrize(
    "package", ["small-pipeline", "Small_Pipeline", "SMALL__pipeline", "small_pipeline.workflows.one"]
)
def test_one_release_has_one_name(package: str) -> None:
    """
    It is the same for the spelling of a distribution and of a module, and for any order of the extras.
    """
    found = Requirement.of(package, "1.0", ["b_2", "A", "a"])

    assert str(found) == "small-pipeline[a,b-2]==1.0"
    assert found == Requirement.of("small_pipeline", "1.0", ["a", "B.2"])
    assert len({found, Requirement.parse("Small.Pipeline[ a , b-2 ]==1.0")}) == 1


@pytest.mark.parametrize(
    ("package", "version", "extras", "complaint"),
    [
        ("", "1", [], "package .*found '', expected letters, digits"),
        ("-r", "1", [], "package .*found '-r'"),
        ("a b", "1", [], "package .*found 'a b'"),
        ("a\n", "1", [], "package"),
        ("a;b", "1", [], "package"),
        ("a@https://x", "1", [], "package"),
        ("ä", "1", [], "package"),
        ("a_", "1", [], "package"),
        (".a", "1", [], "package"),
        (None, "1", [], "package .*found None"),
        ("a", "", [], "version .*found '', expected a version"),
        ("a", "1 ", [], "version"),
        ("a", "-1", [], "version"),
        ("a", "1;python_version>'3'", [], "version"),
        ("a", "1\n--index-url=x", [], "version"),
        ("a", "1.*", [], "version"),
        ("a", "1,<2", [], "version"),
        ("a", "9" * 201, [], "version .*at most 200 characters"),
        ("a", 1, [], "version .*found 1,"),
        ("a", "1", ["b]"], r"extra .*found 'b\]'"),
        ("a", "1", ["b,c"], "extra"),
        ("a", "1", [""], "extra"),
        ("a", "1", "abc", "extras .*found 'abc', expected several texts"),
    ],
)
def test_what_cannot_be_a_release_is_refused(package: str, version: str, extras: list[str], complaint: str) -> None:
    """
    No option, marker, URL or further line reaches the installer's command line.
    """
    with pytest.raises(EnvironmentRequestError, match=f"^{complaint}") as caught:
        Requirement.of(package, version, extras)

    assert isinstance(caught.value, DKISTProcessingCoreError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("text", ["", "a", "a=1", "a[b==1", "a]==1", "a[b]c==1", "==1", "a==", "a[b]==1==2", "a>=1"])
def test_a_text_that_names_no_release_is_refused(text: str) -> None:
    """
    Of the forms of a requirement, only one with exactly one version is accepted.
    """
    with pytest.raises(EnvironmentRequestError, match="expected"):
        Requirement.parse(text)


def test_no_credentials_are_in_a_refusal() -> None:
    """
    A URL in a wrong place may hold a password.
    """
    with pytest.raises(EnvironmentRequestError) as caught:
        Requirement.of(f"https://u:{CANARY}@host/x", "1")

    assert CANARY not in str(caught.value)


def test_a_requirement_cannot_be_changed() -> None:
    """
    It is used as a key.
    """
    with pytest.raises(AttributeError, match="cannot be changed"):
        PIPE.version = "2.0"


NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True)
VERSIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,6}", fullmatch=True)
REQUIREMENTS = st.builds(Requirement, NAMES, VERSIONS, st.lists(NAMES, max_size=3))


@given(texts(), texts(), st.lists(texts(), max_size=2))
def test_any_text_is_taken_or_refused(package: str, version: str, extras: list[str]) -> None:
    """
    Any text that is accepted has a plain form.
    """
    try:
        taken = str(Requirement.of(package, version, extras))
    except EnvironmentRequestError as error:
        assert "expected" in str(error)  # noqa: PT017 - or it is taken
    else:
        assert taken.isascii()
        assert taken.isprintable()
        assert taken[0] not in "-["


@given(REQUIREMENTS)
def test_a_requirement_reads_back(requirement: Requirement) -> None:
    """
    Its text is complete, and normalising it twice changes nothing more.
    """
    assert Requirement.parse(str(requirement)) == requirement
    assert normalised(requirement.name) == requirement.name


@given(NAMES, VERSIONS, st.lists(NAMES, max_size=4), st.randoms())
def test_order_and_spelling_of_extras_make_no_difference(
    name: str, version: str, extras: list[str], chance: random.Random
) -> None:
    """
    A repeated extra makes no difference either.
    """
    others = [*extras, *extras]
    chance.shuffle(others)

    spelled = [other.upper().replace("_", ".") for other in others]

    assert Requirement(name, version, extras) == Requirement(name.upper(), version, spelled)


# The key


@given(REQUIREMENTS, REQUIREMENTS)
def test_distinct_requirements_have_distinct_keys(first: Requirement, second: Requirement) -> None:
    """
    Each key is a short and safe file name.
    """
    cache = Environments("unused", environ={"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"})
    keys = cache.key(first), cache.key(second)

    one, other = ((each.name, each.extras, release_of(each.version)) for each in (first, second))
    assert (keys[0].digest == keys[1].digest) is (one == other)
    assert (keys[0].name == keys[1].name) is (one == other)
    assert all("/" not in key.name and not key.name.startswith((".", "-")) for key in keys)


def test_a_key_can_be_read_and_is_not_long(cache: Environments) -> None:
    """
    An operator recognises the environments in the folder.
    """
    longest = cache.key(Requirement.of("a" * 200, "1" * 200, ["b" * 200]))

    assert cache.key(PIPE).name.startswith(f"small-pipeline-1.0-cp3{sys.version_info.minor}")
    assert len(f"{longest.name}.999.gone-01234567") < 255


def names(environ: dict[str, str], **changes: str) -> str:
    """
    Return the key under changed variables.
    """
    return Environments("unused", environ=environ | changes).key(PIPE).name


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PIP_INDEX_URL", "https://index.example/simple"),
        ("PIP_EXTRA_INDEX_URL", "https://index.example/simple"),
        ("PIP_PRE", "1"),
        ("PIP_SOMETHING_NEW", "1"),
        ("UV_DEFAULT_INDEX", "https://index.example/simple"),
        ("UV_EXCLUDE_NEWER", "2026-01-01"),
        ("UV_SOMETHING_NEW", "1"),
    ],
)
def test_where_it_comes_from_is_in_the_key(environ: dict[str, str], variable: str, value: str) -> None:
    """
    Another index may have a different release of that name; unknown sources count likewise.
    """
    assert names(environ, **{variable: value}) != names(environ)
    assert names(environ, **{variable: ""}) == names(environ)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PIP_TIMEOUT", "1"),
        ("PIP_RETRIES", "1"),
        ("PIP_CACHE_DIR", "/x"),
        ("PIP_CERT", "/x"),
        ("PIP_VERBOSE", "1"),
        ("PIP_TARGET", "/x"),
        ("UV_HTTP_TIMEOUT", "1"),
        ("UV_CONCURRENT_DOWNLOADS", "1"),
        ("UV_NO_PROGRESS", "1"),
        ("UV_INDEX_MINE_USERNAME", "reader"),
        ("UV_INDEX_MINE_PASSWORD", CANARY),
        ("UV_PUBLISH_TOKEN", CANARY),
        ("PIPELINES", "1"),
        ("HTTPS_PROXY", "http://proxy.example"),
        ("PIP_USER_AGENT_USER_DATA", "x"),
        ("UV_OFFLINE", "1"),
        ("UV_REFRESH", "1"),
        ("UV_FROZEN", "1"),
        ("UV_INIT_BARE", "1"),
    ],
)
def test_how_it_comes_is_not_in_the_key(environ: dict[str, str], variable: str, value: str) -> None:
    """
    Neither does a variable that is not about the installation: its change must not cause a new build.
    """
    assert names(environ, **{variable: value}) == names(environ)


def test_credentials_are_not_in_the_key(environ: dict[str, str], tmp_path: Path) -> None:
    """
    They are rotated, and give access to the same packages; in variables and in files.
    """
    configuration = tmp_path / "pip.conf"

    def by(secret: str) -> tuple[str, str]:
        url = f"https://reader:{secret}@index.example/simple"
        configuration.write_text(f"[global]\nextra-index-url = {url}\n")
        return names(environ, PIP_INDEX_URL=url), names(environ, PIP_CONFIG_FILE=str(configuration))

    assert by("first") == by("sec@nd")
    assert by("first")[1] != names(environ)
    assert names(environ, PIP_INDEX_URL="https://index.example/simple") == by("third")[0]


@pytest.mark.parametrize("variable", ["PIP_CONSTRAINT", "UV_CONSTRAINT", "UV_OVERRIDE"])
def test_what_a_constraint_file_says_is_in_the_key(environ: dict[str, str], tmp_path: Path, variable: str) -> None:
    """
    The content of the files that those files name is in it, and their location is not.
    """
    inner, outer, copy = tmp_path / "inner.txt", tmp_path / "outer.txt", tmp_path / "copy.txt"
    found = []
    for inside, outside in [("a==1", ""), ("a==2", ""), ("a==2", "b==1")]:
        inner.write_text(f"{inside}\n")
        outer.write_text(f"-c inner.txt\n{outside}\n")
        copy.write_text(outer.read_text())
        found.append(names(environ, **{variable: outer.as_uri()}))

        assert names(environ, **{variable: copy.as_uri()}) == found[-1]

    assert len({*found, names(environ)}) == 4


@pytest.mark.parametrize(
    "line", ["-cinner.txt", "--constraint inner.txt", "--requirement=inner.txt", "-r\tinner.txt # x"]
)
def test_a_constraint_file_is_found_however_it_is_named(environ: dict[str, str], tmp_path: Path, line: str) -> None:
    """
    By a URL, in a setting of any case, and by another such file.
    """
    inner, outer = tmp_path / "inner.txt", tmp_path / "an outer.txt"
    upper, configuration = tmp_path / "upper.conf", tmp_path / "pip.conf"
    outer.write_text(f"{line}\n")
    upper.write_text(f"[Global]\n[global]\n  Build_Constraint =\n    {outer.as_uri()}\n")
    configuration.write_text(f"[install]\nCONSTRAINT: {outer.as_uri()}\n")
    found = []
    for inside in ("a==1", "a==2"):
        inner.write_text(inside)
        found.append(names(environ, PIP_CONSTRAINT=outer.as_uri()))
        found += [names(environ, PIP_CONFIG_FILE=str(path)) for path in (upper, configuration)]

    assert len(set(found)) == len(found)


def test_a_constraint_file_that_is_a_pipe_keeps_nobody_waiting(environ: dict[str, str], tmp_path: Path) -> None:
    """
    Only its name counts.
    """
    os.mkfifo(tmp_path / "pipe")
    # Not `/dev/null`, as in other tests: that would turn off the files of the machine.
    (tmp_path / "empty").touch()

    assert names(environ, PIP_CONSTRAINT=str(tmp_path / "pipe")) != names(environ)
    assert names(environ, PIP_CONFIG_FILE=str(tmp_path / "pipe")) == names(
        environ, PIP_CONFIG_FILE=str(tmp_path / "empty")
    )


def test_of_a_file_of_settings_only_those_count_that_change_what_is_installed(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """
    Comments, timeouts and sections of other commands do not count.
    """
    del environ["UV_NO_CONFIG"]
    pip, uv = tmp_path / "pip.conf", tmp_path / "uv.toml"
    environ |= {"PIP_CONFIG_FILE": str(pip), "UV_CONFIG_FILE": str(uv)}

    def by(pip_text: str, uv_text: str) -> str:
        pip.write_text(pip_text)
        uv.write_text(uv_text)
        return names(environ)

    plain = by("[global]\npre = 1\n", 'prerelease = "allow"\n')
    same = by(
        "# of mine\n[list]\nformat = json\n[global]\n\ntimeout = 9\nTrusted_Host =\n  one\n  # two\n  three\nPRE: 1\n",
        '# of mine\ncache-dir = "/x"\n\nprerelease = "allow"\nhttp-timeout = 3\n',
    )

    assert same == plain
    assert by("[global]\npre = 0\n", 'prerelease = "allow"\n') != plain
    assert by("[global]\npre = 1\n", 'prerelease = "allow"\nno-binary = true\n') != plain
    listed = 'constraint-dependencies = [\n"token-library==%d",\n]\n'
    assert by("[global]\n", listed % 1) != by("[global]\n", listed % 2)


def test_a_release_has_one_environment_however_its_version_is_written(cache: Environments) -> None:
    """
    For an installer these are one release.
    """
    path = built(cache)

    for version in ("v1.0", "1", "1.0.0", "01.0"):
        with cache.prepare(Requirement.of("small-pipeline", version)) as environment:
            assert environment.path == path
            assert cache.problem_of(environment) is None


@pytest.mark.parametrize(
    "versions", [("1.0rc1", "1.0.0RC1", "1rc1"), ("1.10", "1.10.0"), ("1!1.0",), ("main",), ("1.0.dev2", "1.dev2")]
)
def test_only_spellings_of_one_version_are_one(versions: tuple[str, ...]) -> None:
    """
    An unusual version is taken literally.
    """
    assert {release_of(version) for version in versions} == {release_of(versions[0])}
    assert release_of(versions[0]) == versions[0]


def test_what_the_files_of_pip_and_uv_say_is_in_the_key(environ: dict[str, str], tmp_path: Path) -> None:
    """
    The files are the user's, the system's, the named one, and the constraints that one of them names.
    """
    plain = {name: value for name, value in environ.items() if name not in {"PIP_CONFIG_FILE", "UV_NO_CONFIG"}}
    constraint = tmp_path / "constraint.txt"
    constraint.write_text("a==1\n")
    found = [names(plain)]
    for path, text in {
        "home/.pip/pip.conf": "[global]\npre = 1\n",
        "home/.config/pip/pip.conf": "[global]\npre = 2\n",
        "home/.config/uv/uv.toml": "prerelease = 'allow'\n",
        "xdg/pip/pip.conf": f"[install]\nconstraint = {constraint.as_uri()}\n",
        "xdg/uv/uv.toml": "prerelease = 'disallow'\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        found.append(names(plain, XDG_CONFIG_DIRS=str(tmp_path / "xdg")))
    constraint.write_text("a==2\n")
    found.append(names(plain, XDG_CONFIG_DIRS=str(tmp_path / "xdg")))

    assert len(set(found)) == len(found)


@pytest.mark.processes
def test_another_interpreter_has_another_key(environ: dict[str, str], tmp_path: Path, other_python: Path) -> None:
    """
    An interpreter of another version or ABI does; the same one under another name does not.
    """
    foreign = tmp_path / "python-other"
    foreign.write_text("#!/bin/sh\necho \"cp399t ('cpython-399', '3.99.0', ['.so'], '/opt/python')\"\n")
    foreign.chmod(0o755)

    here, by_link, there = (
        Environments("unused", environ=environ, interpreter=str(python)).key(PIPE).name
        for python in (sys.executable, other_python, foreign)
    )

    assert here == by_link
    assert there != here
    assert there.startswith("small-pipeline-1.0-cp399t-")


def test_an_interpreter_that_is_none_is_named(cache: Environments, tmp_path: Path) -> None:
    """
    The error of a request for its environment names it.
    """
    with pytest.raises(EnvironmentBuildError, match=r"^the interpreter .*/nothing cannot be run"):
        Environments(cache.folder, interpreter=str(tmp_path / "nothing")).prepare(PIPE)


@given(texts(), texts())
def test_user_information_is_taken_out_of_any_text(before: str, after: str) -> None:
    """
    Text that is not part of a URL stays.
    """
    text = f"{before} https://reader:{CANARY}@index.example/ {after}"

    assert CANARY not in without_user_information(text)
    assert "://index.example/" in without_user_information(text)
    assert without_user_information(before.replace("://", "")) == before.replace("://", "")


# The folder of environments


def test_the_folder_is_named_or_in_the_cache_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    An empty variable counts as not set, and a relative XDG one as invalid, as that specification requires.
    """
    monkeypatch.chdir(tmp_path)
    home = {"HOME": "/home/one"}

    assert folder_of(home) == "/home/one/.cache/dkist-processing-core/environments"
    assert folder_of({**home, "XDG_CACHE_HOME": "/c"}) == "/c/dkist-processing-core/environments"
    assert folder_of({**home, "XDG_CACHE_HOME": "c"}) == folder_of(home)
    assert folder_of({**home, "DKIST_CORE_ENVIRONMENTS_DIR": ""}) == folder_of(home)
    assert folder_of({**home, "DKIST_CORE_ENVIRONMENTS_DIR": "/e"}) == "/e"


def test_the_folder_may_be_named_in_the_file_of_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    This holds for any setting.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PIP_TIMEOUT=3\nexport DKIST_CORE_ENVIRONMENTS_DIR='/from/file'\n")

    assert folder_of({}) == "/from/file"
    assert folder_of({"DKIST_CORE_ENVIRONMENTS_DIR": "/e"}) == "/e"


def test_programs_in_a_folder_that_a_file_names_are_given_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The folder is refused while the environment holds a secret, unless the environment allows it.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DKIST_CORE_ENVIRONMENTS_DIR=envs\nDKIST_CORE_TRUST_DOTENV=1\n")
    secret = {"ISB_PASSWORD": "hunter22"}

    with pytest.raises(EnvironmentBuildError, match=r"^DKIST_CORE_ENVIRONMENTS_DIR: found in .* and ISB_PASSWORD in"):
        folder_of(secret)

    assert folder_of({**secret, "DKIST_CORE_ENVIRONMENTS_DIR": "/e"}) == "/e"
    assert folder_of({**secret, "DKIST_CORE_TRUST_DOTENV": "1"}) == f"{tmp_path}/envs"


# Building and finding


def test_an_environment_is_built_once_and_then_found(cache: Environments) -> None:
    """
    It contains the release and its requirements, compiled, and its interpreter runs it.
    """
    assert cache.find(PIPE) is None

    with cache.prepare(PIPE, on_output=print) as first, cache.prepare(PIPE) as second:
        assert (first.built, second.built) == (True, False)
        assert first.folder == second.folder
        assert works(second)
        assert second.record["distributions"] == {"small-dependency": "2.0", "small-pipeline": "1.0"}
        assert second.record["installer"].startswith("uv ")
        assert first.seconds > second.seconds
        assert first.path.is_relative_to(cache.folder)
        assert Path(first.bin) == Path(first.python).parent
        assert [*first.path.glob("lib/python*/site-packages/__pycache__/small_pipeline.*.pyc")] != []
        assert cache.problem_of(first) is None


def test_finding_one_loads_nothing_dear(cache: Environments) -> None:
    """
    It happens before every task: the imports in addition to the package's take a few milliseconds.
    """
    built(cache)
    program = """if True:
        import sys
        import dkist_processing_core
        before = set(sys.modules)
        from dkist_processing_core.environments import Environments, Requirement
        environment = Environments(sys.argv[1]).find(Requirement.of("small-pipeline", "1.0"))
        print(environment.folder)
        print(*sorted(set(sys.modules) - before))
    """

    done = subprocess.run(
        [sys.executable, "-c", program, cache.folder], capture_output=True, text=True, check=True, cwd=ROOT
    )

    folder, loaded = done.stdout.splitlines()
    ours = {name for name in loaded.split() if name.startswith("dkist_processing_core.")}
    assert Path(folder).parent == Path(cache.folder)
    assert {name.rpartition(".")[2] for name in ours} == {
        *("environments", "errors", "exit_status", "origin", "process", "settings", "trusted_files"),
        *("_environment", "_environments", "_interpreter", "_key", "_locks", "_place", "_requirement", "_variables"),
    }
    assert set(loaded.split()) - ours <= {"__future__", "_blake2", "_hashlib", "_sha256", "_sha2", "fcntl", "hashlib",
        "importlib.machinery", "importlib._abc"}  # fmt: skip


def test_finding_one_counts_as_use(cache: Environments) -> None:
    """
    The time of its marker is the time of its last use.
    """
    path = built(cache)
    used(path, 5)

    found = cache.find(PIPE)

    assert found is not None
    found.close()
    assert time.time() - (path / MARKER).stat().st_mtime < DAY


def test_eight_processes_at_once_build_one(cache: Environments) -> None:
    """
    One of them installs; the others wait for it, and use the same environment.
    """
    processes = [start(PREPARE, cache.folder) for _ in range(8)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    found = [json.loads(process.communicate(timeout=SECONDS)[0]) for process in processes]

    assert sorted(was_built for _, was_built, _ in found) == [False] * 7 + [True]
    assert len({folder for folder, _, _ in found}) == 1
    assert sum(any(line.startswith("Installed ") for line in lines) for _, _, lines in found) == 1
    assert numbers(cache) == [1]


def test_a_build_killed_at_any_moment_leaves_nothing_that_is_used(environ: dict[str, str], tmp_path: Path) -> None:
    """
    The next process builds it again, or finds the finished one; an installer that goes on alone damages nothing.
    """
    with Environments(tmp_path / "first", environ=environ).prepare(PIPE, on_output=print) as environment:
        duration = environment.seconds + 0.2
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    unfinished = 0
    for turn in range(20):
        cache = Environments(tmp_path / f"turn-{turn}", environ=environ)
        with start(PREPARE, cache.folder) as process:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
            threading.Event().wait(chance.uniform(0, duration))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)
        found = cache.find(PIPE)
        unfinished += found is None
        with found or cache.prepare(PIPE, on_output=print) as environment:
            assert (environment.path / MARKER).exists()
            assert cache.problem_of(environment) is None
            assert works(environment)
            assert [entry.path for entry in cache.entries() if entry.record] == [environment.folder]

    assert unfinished > 0


def put_uv_beside(python: Path, first: str) -> None:
    """
    Put a uv next to a Python, which runs a command before it runs the real uv.
    """
    program = python.with_name("uv")
    program.write_text(f'#!/bin/sh\n{first}\nexec "{Path(sys.executable).with_name("uv")}" "$@"\n')
    program.chmod(0o755)


def test_an_installer_that_outlives_its_builder_is_waited_for(
    environ: dict[str, str], tmp_path: Path, other_python: Path
) -> None:
    """
    It continues to write to its folder. The next builder starts when it has ended, in another folder.
    """
    begun, go = tmp_path / "begun", tmp_path / "go"
    folder = tmp_path / "environments"
    put_uv_beside(
        other_python, f'[ "$1" != pip ] || {{ echo > "{begun}"; while [ ! -e "{go}" ]; do sleep 0.02; done; }}'
    )
    program = PREPARE.replace("(sys.argv[1])", f"(sys.argv[1], interpreter={str(other_python)!r})")
    with start(program, str(folder)) as builder:
        assert builder.stdin is not None
        builder.stdin.close()
        builder.stdin = None
        wait_until(begun.exists)
        builder.kill()
    told: list[str] = []

    def hear(line: str) -> None:
        told.append(line)
        go.touch()

    with Environments(folder, environ=environ).prepare(PIPE, on_output=hear) as environment:
        assert told[0] == "small-pipeline==1.0: waiting for the process that builds it"
        assert environment.folder.endswith(".2")
        assert works(environment)


@pytest.mark.parametrize("holder", ["sleep 60 &", "setsid sleep 60 & echo $! > {pid}"])
def test_what_an_installer_leaves_running_holds_up_nobody(
    environ: dict[str, str], tmp_path: Path, other_python: Path, holder: str
) -> None:
    """
    A process with the installer's output is ended with it, unless it has left the installer's group.
    """
    pid = tmp_path / "pid"
    put_uv_beside(other_python, f'[ "$1" != pip ] || {{ {holder.format(pid=pid)}\n}}')
    cache = Environments(tmp_path / "environments", environ=environ, interpreter=str(other_python))

    try:
        with cache.prepare(PIPE, on_output=print) as environment:
            assert environment.seconds < 40
            assert works(environment)
    finally:
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_build_that_does_not_end_is_ended(environ: dict[str, str], tmp_path: Path, other_python: Path) -> None:
    """
    This includes a build that has closed its output.
    """
    put_uv_beside(other_python, '[ "$1" != pip ] || { exec >&- 2>&-; sleep 60; }')
    cache = Environments(
        tmp_path / "environments", environ=environ, interpreter=str(other_python), limits=lambda: Limits(longest=1)
    )

    with pytest.raises(
        EnvironmentBuildError,
        match=r"^no environment of small-pipeline==1.0 could be built: uv \S+ had not ended after 1 s$",
    ):
        cache.prepare(PIPE)
    assert cache.entries() == []


def test_another_builder_is_not_waited_for_for_ever(cache: Environments) -> None:
    """
    The error names the lock.
    """
    Path(cache.folder).mkdir(mode=0o700)
    lock = Path(cache.folder) / f"{cache.key(PIPE).name}.lock"
    waiting = Environments(cache.folder, environ=cache.environ, limits=lambda: Limits(longest=0.1))
    with start("import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2); print(1, flush=True)\n"
               "sys.stdin.read()", str(lock)) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(EnvironmentBuildError, match=f"another process holds {lock}, and does not come to an end"):
            waiting.prepare(PIPE)
        holder.kill()


class _StopError(Exception):
    """
    The exception of a signal handler.
    """


def test_a_signal_ends_a_build_and_its_installer(environ: dict[str, str], tmp_path: Path, other_python: Path) -> None:
    """
    The handler's exception ends them; after that any process can build.
    """
    begun = tmp_path / "begun"
    mark = f"build-{tmp_path.name}-{os.getpid()}"
    folder = tmp_path / "environments"

    def stop(_number: int, _frame: object) -> None:
        raise _StopError

    def send() -> None:
        wait_until(begun.exists)
        os.kill(os.getpid(), signal.SIGUSR1)

    put_uv_beside(other_python, f'[ "$1" = --version ] || {{ echo > "{begun}"; sleep 60; }}')
    cache = Environments(folder, environ=environ | {"MARK_OF_BUILD": mark}, interpreter=str(other_python))
    before = signal.signal(signal.SIGUSR1, stop)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(_StopError):
            cache.prepare(PIPE)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)

    # A killed process that is not a child of this one is gone shortly after the kill; it would have slept for a minute.
    wait_until(lambda: with_environment("MARK_OF_BUILD", mark) == set())
    with Environments(folder, environ=environ).prepare(PIPE, on_output=print) as environment:
        assert works(environment)
        assert [entry.state for entry in cache.entries()] == [State.IN_USE]


@pytest.mark.parametrize("step", ["_execute_child", "__init__"])
def test_a_signal_at_the_start_of_an_installer_leaves_no_installer(
    environ: dict[str, str], tmp_path: Path, other_python: Path, step: str
) -> None:
    """
    The installer runs already, and the builder has not noted it yet.
    """
    mark = f"build-{tmp_path.name}-{os.getpid()}"
    put_uv_beside(other_python, '[ "$1" = --version ] || sleep 60')
    cache = Environments(
        tmp_path / "environments", environ=environ | {"MARK_OF_BUILD": mark}, interpreter=str(other_python)
    )

    def stop(_number: int, _frame: object) -> None:
        raise _StopError

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != subprocess.__file__ or frame.f_code.co_name != step:
            return None
        if event == "return" and with_environment("MARK_OF_BUILD", mark):
            signal.raise_signal(signal.SIGUSR1)
        return trace

    def prepare() -> None:
        sys.settrace(trace)
        cache.prepare(PIPE)

    before, tracing = signal.signal(signal.SIGUSR1, stop), sys.gettrace()
    try:
        with pytest.raises(_StopError):
            prepare()
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGUSR1, before)

    wait_until(lambda: with_environment("MARK_OF_BUILD", mark) == set())


def test_a_signal_ends_the_wait_for_another_builder(cache: Environments) -> None:
    """
    A waiting process can be interrupted while another one builds.
    """
    Path(cache.folder).mkdir(mode=0o700)
    lock = Path(cache.folder) / f"{cache.key(PIPE).name}.lock"
    told: list[str] = []

    def hear(line: str) -> None:
        told.append(line)
        raise _StopError

    with start("import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2); print(1, flush=True)\n"
               "sys.stdin.read()", str(lock)) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(_StopError):
            cache.prepare(PIPE, on_output=hear)
        holder.kill()

    assert told == ["small-pipeline==1.0: waiting for the process that builds it"]
    assert built(cache).exists()


# Content of an environment


def test_the_extra_frozen_is_asked_for_where_there_is_one(cache: Environments) -> None:
    """
    A release pins in it the versions that it was tested with.
    """
    told: list[str] = []

    with cache.prepare(Requirement.of("small-pipeline", "2.0"), on_output=told.append) as environment:
        assert environment.record["distributions"]["small-dependency"] == "1.0"
        assert environment.record["lacking"] == []
    assert [line for line in told if "no extra" in line] == []


def test_a_release_without_frozen_is_installed_with_one_warning(
    cache: Environments, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It is logged where no handler is configured.
    """
    with cache.prepare(PIPE) as environment:
        assert environment.record["lacking"] == ["frozen"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "small-pipeline==1.0: the release has no extra frozen, so its dependencies are the newest ones"
    ]


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_an_extra_that_is_none_is_warned_of_once(
    environ: dict[str, str], tmp_path: Path, other_python: Path, installer: str
) -> None:
    """
    By name, with the existing extras; the existing ones are installed. Without uv, pip does the same.
    """
    told: list[str] = []
    cache = Environments(tmp_path / "environments", environ=environ)
    if installer == "pip":
        cache = Environments(cache.folder, environ=environ | {"PATH": str(tmp_path)}, interpreter=str(other_python))

    with cache.prepare(Requirement.of("small-pipeline", "1.0", ["asdf", "ASD_F"]), on_output=told.append) as made:
        assert made.record["lacking"] == ["asd-f", "frozen"]
        assert made.record["installer"].startswith(f"{installer} ")
        assert works(made)
        assert cache.problem_of(made) is None
        assert [*made.path.glob("lib/python*/site-packages/__pycache__/small_pipeline.*.pyc")] != []
    assert [line for line in told if "no such extra" in line] == [
        "small-pipeline[asd-f,asdf]==1.0: no such extra: asd-f; it has: asdf, grating-tools"
    ]


def test_frozen_is_warned_of_once_where_it_is_asked_for(cache: Environments) -> None:
    """
    It is then an extra like any other, and still added by the library.
    """
    told: list[str] = []

    cache.prepare(Requirement.of("small-pipeline", "1.0", ["frozen"]), on_output=told.append).close()

    assert [line for line in told if "no extra" in line or "no such" in line] == [
        "small-pipeline[frozen]==1.0: the release has no extra frozen, so its dependencies are the newest ones"
    ]


def test_uv_may_be_demanded(environ: dict[str, str], tmp_path: Path, other_python: Path) -> None:
    """
    If it is missing, the error names it.
    """
    environ["PATH"] = str(tmp_path)
    cache = Environments(tmp_path / "e", environ=environ, interpreter=str(other_python), installer="uv")

    with pytest.raises(EnvironmentBuildError, match=r"^there is no uv"):
        cache.prepare(PIPE)


def recorded(
    environ: dict[str, str], tmp_path: Path, python: Path, **variables: str
) -> tuple[list[str], dict[str, str]]:
    """
    Build with some variables, and return uv's last command line and its variables.
    """
    log = tmp_path / "uv.log"
    tell = f'[ "$1" != pip ] || {{ printf "%s\\0" "$@" > "{log}"; env -0 > "{log}.env"; }}'
    put_uv_beside(python, tell)
    cache = Environments(
        tmp_path / "environments",
        environ=environ | variables,
        interpreter=str(python),
        limits=lambda: Limits(timeout=7, retries=0),
    )
    cache.prepare(PIPE, on_output=print).close()
    pairs = [entry.partition("=") for entry in Path(f"{log}.env").read_text().split("\0")]
    return log.read_text().split("\0")[:-1], {name: value for name, _, value in pairs}


def test_the_settings_of_pip_hold_for_uv(
    environ: dict[str, str], tmp_path: Path, wheels: Path, other_python: Path
) -> None:
    """
    From its variables and its files, the variables first; other users cannot read the credentials.
    """
    index = make_index(tmp_path / "index", wheels.glob("small_*.whl"))
    constraint = tmp_path / "constraint.txt"
    constraint.write_text("small-dependency<2\n")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        f"[global]\nindex-url = https://nobody.example/\nno-index = true\ntimeout = 99\nretries = 2\nfind-links =\n"
        f"    {wheels.as_uri()}\n    {tmp_path.as_uri()}/nowhere\n    /nowhere\n[install]\n"
        f"constraint = {constraint.as_uri()}\ntrusted-host = one.example\n    two.example\nonly-binary = :all:\n"
    )
    del environ["PIP_FIND_LINKS"], environ["PIP_NO_INDEX"]
    variables = {
        "PIP_CONFIG_FILE": str(configuration),
        "PIP_EXTRA_INDEX_URL": f"{index} http://reader:{CANARY}@nobody.example/simple",
        "PIP_PRE": "yes",
        "PYTHONPATH": "/nowhere",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VIRTUAL_ENV": "/nowhere",
        "PIP_TARGET": "/nowhere",
        "UV_SYSTEM_PYTHON": "1",
    }

    command, seen = recorded(environ, tmp_path, other_python, **variables)

    assert command[-3:] == ["--no-index", "--only-binary=:all:", "small-pipeline[frozen]==1.0"]
    assert "--compile-bytecode" in command
    assert CANARY not in " ".join(command)
    assert seen["UV_EXTRA_INDEX_URL"] == variables["PIP_EXTRA_INDEX_URL"]
    assert seen["UV_INDEX_URL"] == "https://nobody.example/"
    assert seen["UV_FIND_LINKS"] == wheels.as_uri()
    assert seen["UV_CONSTRAINT"] == constraint.as_uri()
    assert seen["UV_INSECURE_HOST"] == "one.example two.example"
    assert (seen["UV_INDEX_STRATEGY"], seen["UV_PRERELEASE"]) == ("unsafe-best-match", "allow")
    assert (seen["UV_HTTP_TIMEOUT"], seen["UV_HTTP_RETRIES"]) == ("99", "2")
    assert {*variables} & {*seen} == {"PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_PRE"}
    found = Environments(tmp_path / "environments", environ=environ | variables, interpreter=str(other_python)).find(
        PIPE
    )
    assert found is not None
    with found:
        assert found.record["distributions"]["small-dependency"] == "1.0"


def test_a_place_of_wheels_may_hold_a_comma_and_a_password(
    environ: dict[str, str], tmp_path: Path, wheels: Path, other_python: Path
) -> None:
    """
    It is escaped in the list of folders, so that no password is in a command line, which all users can read.
    """
    with_comma = tmp_path / "of one, two"
    with_comma.symlink_to(wheels)
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nfind-links =\n    {with_comma.as_uri().replace('%2C', ',')}\n")
    del environ["PIP_FIND_LINKS"]

    command, seen = recorded(environ, tmp_path, other_python, PIP_CONFIG_FILE=str(configuration))

    assert not [word for word in command if "find-links" in word]
    assert seen["UV_FIND_LINKS"] == with_comma.as_uri()
    url = f"https://reader:{CANARY},more@nobody.example/a,b"
    translated = Translation(environ, {"find-links": f"{url} {wheels.as_uri()}"}, Limits())
    assert translated.options == []
    assert translated.variables["UV_FIND_LINKS"] == f"{url.replace(',', '%2C')},{wheels.as_uri()}"


def test_the_patience_of_a_file_holds_unless_a_variable_says_otherwise(environ: dict[str, str]) -> None:
    """
    It applies to both installers; the library's own setting is that variable.
    """
    pip, limits = {"timeout": "9", "retries": "8"}, Limits(timeout=3, retries=2)

    assert timeout_and_retries(pip, environ, limits) == ("9", "8")
    assert timeout_and_retries(pip, environ | {"PIP_RETRIES": "2"}, limits) == ("9", "2")
    assert timeout_and_retries(pip, environ | {"PIP_TIMEOUT": "3"}, limits) == ("3", "8")
    assert timeout_and_retries({}, environ, limits) == ("3", "2")


def test_what_has_no_effect_with_uv_is_said_in_one_line(environ: dict[str, str], tmp_path: Path) -> None:
    """
    It lists settings that could change the installation and are not switched off.
    """
    told: list[str] = []
    pip = {
        "PIP_NO_DEPS": "1",
        "PIP_PREFER_BINARY": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_PROXY": "",
        "PIP_LOG": "/x",
    }
    cache = Environments(tmp_path / "environments", environ=environ | pip)

    cache.prepare(PIPE, on_output=told.append).close()

    assert [line for line in told if "without effect" in line] == [
        "without effect, since uv installs and not pip: no-deps, prefer-binary"
    ]


def test_what_uv_was_told_itself_goes_before(
    environ: dict[str, str], tmp_path: Path, wheels: Path, other_python: Path
) -> None:
    """
    This applies to each setting, in variables and in its file.
    """
    del environ["UV_NO_CONFIG"]
    (tmp_path / "uv.toml").write_text('prerelease = "disallow"\n[[index]]\nurl = "https://nobody.example/simple"\n')
    variables = {
        "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
        "UV_HTTP_TIMEOUT": "3",
        "UV_FIND_LINKS": wheels.as_uri(),
        "UV_CONSTRAINT": "",
        "PIP_FIND_LINKS": "/nowhere",
        "PIP_INDEX_URL": "https://other.example/simple",
        "PIP_PRE": "1",
    }

    _, seen = recorded(environ, tmp_path, other_python, **variables)

    assert (seen["UV_HTTP_TIMEOUT"], seen["UV_HTTP_RETRIES"]) == ("3", "0")
    assert seen["UV_FIND_LINKS"] == wheels.as_uri()
    assert {"UV_INDEX_URL", "UV_INDEX_STRATEGY", "UV_PRERELEASE"} & {*seen} == set()


def test_indexes_are_searched_as_pip_searches_them(environ: dict[str, str], tmp_path: Path, wheels: Path) -> None:
    """
    The best version of all indexes counts, not the first index with the name; an index may not have a package.
    """
    del environ["PIP_NO_INDEX"], environ["PIP_FIND_LINKS"]
    older = make_index(tmp_path / "older", wheels.glob("small_dependency-1.0-*.whl"))
    newer = make_index(tmp_path / "newer", wheels.glob("*.whl"))
    environ |= {"PIP_INDEX_URL": older, "PIP_EXTRA_INDEX_URL": newer}
    cache = Environments(tmp_path / "environments", environ=environ)

    with cache.prepare(PIPE, on_output=print) as environment:
        assert environment.record["distributions"]["small-dependency"] == "2.0"


# Failures


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_what_cannot_be_installed_is_told_without_secrets(
    environ: dict[str, str], tmp_path: Path, refusing_port: int, installer: str
) -> None:
    """
    The request, the installer and its exit status, and the last lines of its output.
    """
    del environ["PIP_NO_INDEX"], environ["PIP_FIND_LINKS"]
    environ["PIP_INDEX_URL"] = (
        f"http://reader:{CANARY}@127.0.0.1:{refusing_port}/{CANARY[:6]}/simple?apikey={CANARY}-query&pin=k9"
    )
    environ["INDEX_PASSWORD"] = "said/elsewhere"
    told: list[str] = []
    cache = Environments(
        tmp_path / "environments", environ=environ, installer=installer, limits=lambda: Limits(timeout=5, retries=0)
    )

    with pytest.raises(
        EnvironmentBuildError,
        match=rf"^no environment of small-pipeline==1.0 could be built: {installer} [\d.]+ ended ",
    ) as caught:
        cache.prepare(PIPE, on_output=told.append)

    lines = caught.value.last_lines
    assert 0 < len(lines) <= 20
    assert set(lines) <= set(told)
    assert any("small-pipeline" in line for line in lines)
    assert CANARY not in f"{caught.value!r} {lines} {told}"
    assert "pin=k9" not in f"{lines} {told}"
    assert "\n" not in str(caught.value)
    assert cache.entries() == []


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        ("exit 0", r"^small-pipeline==1.0: uv \S+ reports success, and it is not there; it may have gone elsewhere$"),
        ("kill -9 $$", r"^no environment of small-pipeline==1.0 could be built: uv \S+ ended with signal 9$"),
    ],
)
def test_an_installer_is_not_trusted(
    environ: dict[str, str], tmp_path: Path, other_python: Path, does: str, problem: str
) -> None:
    """
    It may claim success wrongly or not end by itself; no process of it is left.
    """
    put_uv_beside(other_python, f'[ "$1" != pip ] || {does}')
    cache = Environments(tmp_path / "environments", environ=environ, interpreter=str(other_python))

    with pytest.raises(EnvironmentBuildError, match=problem):
        cache.prepare(PIPE, on_output=print)

    assert cache.entries() == []


def test_a_dependency_that_is_missing_is_in_the_last_lines(cache: Environments) -> None:
    """
    The error contains the installer's message.
    """
    with pytest.raises(EnvironmentBuildError, match=r"exit status 1$") as caught:
        cache.prepare(Requirement.of("small-pipeline", "3.0"))

    assert any("nowhere-to-be-found" in line for line in caught.value.last_lines)
    assert not any("frozen" in line for line in (str(caught.value), *caught.value.last_lines))


def test_an_error_names_what_it_is_about(environ: dict[str, str], tmp_path: Path, other_python: Path) -> None:
    """
    The program that cannot be executed, or the lock, and not only the folder of environments.
    """
    program = other_python.with_name("uv")
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    cache = Environments(tmp_path / "environments", environ=environ, interpreter=str(other_python))

    with pytest.raises(EnvironmentBuildError, match=f": Exec format error: {program}$"):
        cache.prepare(PIPE)
    lock = Path(cache.folder) / f"{cache.key(PIPE).name}.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path)
    with pytest.raises(EnvironmentBuildError, match=f"{lock}: found a link, expected a regular file"):
        cache.prepare(PIPE)


def test_a_folder_in_the_place_of_a_link_is_named_before_anything_is_built(cache: Environments) -> None:
    """
    Otherwise a process would wait for a build that it cannot use.
    """
    link = Path(cache.folder) / cache.key(PIPE).name
    link.mkdir(parents=True, mode=0o700)
    Path(cache.folder).chmod(0o700)
    told: list[str] = []

    with pytest.raises(EnvironmentBuildError, match=f"^{link} is a folder, and a link .*: remove it$"):
        cache.prepare(PIPE, on_output=told.append)

    assert told == []


def test_a_size_is_what_the_disk_gives(tmp_path: Path) -> None:
    """
    Each file counts once, however many names it has; a hole counts nothing.
    """
    empty = size_of(str(tmp_path))
    with (tmp_path / "one").open("wb") as file:
        file.write(os.urandom(100_000))
        file.flush()
        os.fsync(file.fileno())
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10_000_000)

    assert 100_000 <= size_of(str(tmp_path)) - empty < 200_000


def test_a_folder_that_cannot_be_used_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    """
    A file is in its place, or the file system accepts no folder.
    """
    (tmp_path / "file").write_text("")

    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/environments")):
        cache = Environments(folder, environ=environ)
        assert cache.find(PIPE) is None
        with pytest.raises(EnvironmentBuildError, match=f"^no environment of .* can be built in {folder}: "):
            cache.prepare(PIPE)
    with pytest.raises(EnvironmentBuildError, match=r"cannot be read: Not a directory"):
        Environments(tmp_path / "file", environ=environ).entries()


def test_a_folder_where_anybody_may_write_is_not_used(cache: Environments) -> None:
    """
    The library runs code from it.
    """
    built(cache)
    Path(cache.folder).chmod(0o757)

    assert cache.find(PIPE) is None
    with pytest.raises(
        EnvironmentBuildError, match=r"belongs to uid \d+ and has mode 0757, which lets every user .*: chmod o-w it$"
    ):
        cache.prepare(PIPE)


@pytest.mark.parametrize(
    ("owner", "mode", "uid", "reason"),
    [
        (7, 0o700, 7, None),
        (7, 0o770, 7, None),
        (0, 0o755, 7, None),
        (0, 0o775, 7, "it belongs to uid 0 and has mode 0775, which lets its group write to it: chmod g-w it"),
        (7, 0o702, 7, "it belongs to uid 7 and has mode 0702, which lets every user write to it: chmod o-w it"),
        (8, 0o700, 7, "it belongs to uid 8 and has mode 0700, and only a folder of uid 7 or of root is used"),
        (8, 0o700, 0, "it belongs to uid 8 and has mode 0700, and only a folder of uid 0 or of root is used"),
    ],
)
def test_only_what_the_user_or_root_may_have_written_is_run(
    owner: int, mode: int, uid: int, reason: str | None
) -> None:
    """
    One folder is for one user; its owner may change its mode at any time.
    """
    found = os.stat_result((0o40000 | mode, 1, 1, 1, owner, owner, 0, 0, 0, 0))

    assert distrust(found, uid) == reason


def test_what_belongs_to_another_user_is_neither_found_nor_built_in(cache: Environments) -> None:
    """
    Another environment replaces it. Only root can create such a folder here; others get an error.
    """
    path = built(cache)
    try:
        os.chown(path, 12345, -1)
    except PermissionError:
        assert os.geteuid() != 0
        return

    assert cache.find(PIPE) is None
    assert built(cache) == path.with_suffix(".2")
    os.chown(cache.folder, 12345, -1)
    assert cache.find(PIPE) is None
    with pytest.raises(EnvironmentBuildError, match=r"would be run, but it belongs to uid 12345 and has mode 0700"):
        cache.prepare(PIPE)


def garbage(path: Path) -> None:
    """
    Spoil a marker by other text.
    """
    path.write_text("{}\n")


def cut(path: Path) -> None:
    """
    Spoil a marker by cutting it.
    """
    path.write_bytes(path.read_bytes()[:200])


def pipe(path: Path) -> None:
    """
    Replace a marker by a pipe without a writer.
    """
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    """
    Replace a marker by a link to a complete one.
    """
    path.rename(path.with_name("true.json"))
    path.symlink_to("true.json")


def of_another(path: Path) -> None:
    """
    Replace a marker by that of another release.
    """
    path.write_text(path.read_text().replace('{"key": "', '{"key": "0', 1))


@pytest.mark.parametrize("spoil", [garbage, cut, pipe, link, of_another])
def test_an_environment_whose_marker_is_spoilt_is_not_used(cache: Environments, spoil: Callable[[Path], None]) -> None:
    """
    A new one is built in addition.
    """
    path = built(cache)
    spoil(path / MARKER)

    assert cache.find(PIPE) is None
    with cache.prepare(PIPE, on_output=print) as environment:
        assert environment.folder == str(path.with_suffix(".2"))
        assert works(environment)


def test_a_link_that_leads_elsewhere_is_not_followed(cache: Environments, tmp_path: Path) -> None:
    """
    Neither a link out of the folder nor one to an environment that is itself a link is followed.
    """
    path = built(cache)
    key = path.with_suffix("")
    elsewhere = tmp_path / path.name
    path.rename(elsewhere)
    for target in (str(elsewhere), f"../{elsewhere.name}", path.name):
        key.unlink()
        key.symlink_to(target)
        if target == path.name:
            path.symlink_to(elsewhere)

        assert cache.find(PIPE) is None

    with cache.prepare(PIPE, on_output=print) as environment:
        assert environment.built
        assert works(environment)
    assert (elsewhere / MARKER).exists()


# Damage


def test_damage_is_found_and_mended_once(cache: Environments) -> None:
    """
    One of the processes that notice it builds again, and the others use the result.
    """
    first, second = cache.prepare(PIPE), cache.find(PIPE)
    assert second is not None
    module = next(first.path.glob("lib/python*/site-packages/small_dependency.py"))
    module.unlink()

    problem = cache.problem_of(first)
    mended, again = cache.rebuild(first, on_output=print), cache.rebuild(second)

    assert problem == f"{module} is missing"
    with mended, again:
        assert (mended.built, again.built) == (True, False)
        assert mended.folder == again.folder != second.folder
        assert cache.problem_of(mended) is None
    assert numbers(cache) in ([1, 2], [2])
    with cache.prepare(PIPE) as later:
        assert later.folder == mended.folder


def test_damage_spreads_neither_from_nor_to_the_cache_of_the_installer(cache: Environments, tmp_path: Path) -> None:
    """
    Its files are not linked into an environment, and the repair of an environment does not use them.
    """
    own = tmp_path / "uv"
    cache.environ = {**cache.environ, "UV_CACHE_DIR": str(own)}

    def spoil(folder: Path) -> None:
        for module in folder.rglob("small_pipeline.py"):
            module.write_text("")

    spoil(built(cache))
    with cache.prepare(Requirement.of("small-pipeline", "1.0", ["asdf"]), on_output=print) as sound:
        assert cache.problem_of(sound) is None
    spoil(own)
    broken = cache.prepare(Requirement.of("small-pipeline", "1.0", ["grating-tools"]), on_output=print)
    assert cache.problem_of(broken) == f"{next(broken.path.rglob('small_pipeline.py'))} has changed"
    with cache.rebuild(broken, on_output=print) as mended:
        assert cache.problem_of(mended) is None


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("rm -r bin", r"its interpreter .*/bin/python is missing or cannot be run$"),
        ("ln -sf /nowhere/python bin/python", r"its interpreter .* is missing or cannot be run$"),
        ("echo >> lib/python*/site-packages/small_pipeline.py", r"small_pipeline.py has changed$"),
        ("sed -i s/1/2/ lib/python*/site-packages/small_pipeline.py", r"small_pipeline.py has changed$"),
        ("rm pyvenv.cfg", r"pyvenv.cfg is missing$"),
        ("echo > pyvenv.cfg", r"pyvenv.cfg has changed$"),
        ("rm -r lib/python*/site-packages/small_dependency*", r"^small-dependency 2.0 is missing$"),
        (
            "rm lib/python*/site-packages/small_dep*/RECORD",
            r"^the list of files of small_dependency-2.0.dist-info cannot be",
        ),
        (
            "cd lib/python*/site-packages; mv small_dependency-{2,1}.0.dist-info",
            r"^small-dependency is of version 1.0, and",
        ),
    ],
)
def test_every_kind_of_damage_has_its_words(cache: Environments, damage: str, problem: str) -> None:
    """
    Missing bytecode is not damage.
    """
    with cache.prepare(PIPE, on_output=print) as environment:
        for compiled in environment.path.rglob("*.pyc"):
            compiled.unlink()
        assert cache.problem_of(environment) is None

        subprocess.run(["/bin/bash", "-c", damage], cwd=environment.path, check=True)

        assert re.search(problem, cache.problem_of(environment) or "no problem was found")


def test_files_of_two_distributions_are_no_damage(cache: Environments, tmp_path: Path) -> None:
    """
    One has overwritten the other's file, which was correct at the installation; later changes are damage.
    """
    wheels = tmp_path / "shared"
    make_wheel(wheels, "other-half", "1.0", files={"conftest.py": "# longer than it\n"})
    make_wheel(
        wheels, "small-pipeline", "1.0", requires=["other-half"], files={"small_pipeline.py": "", "conftest.py": "#\n"}
    )
    cache.environ = {**cache.environ, "PIP_FIND_LINKS": wheels.as_uri()}

    with cache.prepare(PIPE, on_output=print) as environment:
        assert cache.problem_of(environment) is None
        shared = next(environment.path.rglob("conftest.py"))
        shared.write_text("# neither one\n")
        assert cache.problem_of(environment) == f"{shared} has changed"


def test_what_mending_does_not_mend_is_damage_no_more(cache: Environments, tmp_path: Path) -> None:
    """
    A wheel with a wrong RECORD has it in every environment; it is not built again each time.
    """
    wheels = tmp_path / "wrong"
    make_wheel(wheels, "small-pipeline", "1.0", files={"a.py": "1", "b.py": ""}, wrongly={"a.py": "2"})
    cache.environ = {**cache.environ, "PIP_FIND_LINKS": wheels.as_uri()}
    broken = cache.prepare(PIPE, on_output=print)
    problem = cache.problem_of(broken)

    assert problem == f"{next(broken.path.rglob('a.py'))} has changed"
    assert cache.is_worth_rebuilding(broken, problem)
    with cache.rebuild(broken, problem=problem, on_output=print) as mended:
        assert cache.problem_of(mended) is None


def test_nothing_is_rebuilt_twice_a_day_for_one_problem(cache: Environments) -> None:
    """
    A package that writes into its own files has probably done so again.
    """

    def spoil(environment: Environment) -> str:
        with next(environment.path.rglob("small_pipeline.py")).open("a") as module:
            module.write("# used\n" * len(environment.folder.rpartition(".")[2]))
        return cache.problem_of(environment) or "none"

    first = cache.prepare(PIPE, on_output=print)
    problem = spoil(first)
    assert cache.is_worth_rebuilding(first, problem)
    with cache.rebuild(first, problem=problem, on_output=print) as second:
        assert not cache.is_worth_rebuilding(second, spoil(second))
        assert cache.is_worth_rebuilding(second, "another problem")
        marker = second.path / MARKER
        record = json.loads(marker.read_text())
        assert record["rebuilt_for"].startswith("lib/python")
        marker.write_text(json.dumps({**record, "made_at": "2026-01-01T00:00:00+00:00"}) + "\n")
        assert cache.is_worth_rebuilding(second, spoil(second))


# Pruning


def test_old_ones_are_pruned_and_those_in_use_are_not(cache: Environments) -> None:
    """
    An environment in use by another process stays, however long ago that process found it.
    """
    old, held, young = built(cache), built(cache, "2.0"), built(cache, "1.0", ("asdf",))
    with start(HOLD, cache.folder, "2.0") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == str(held)
        used(old, 31)
        used(held, 100)

        planned = cache.prune(max_age_days=30, max_bytes=10**12, dry_run=True)
        assert [path.exists() for path in (old, held, young)] == [True, True, True]
        removed = cache.prune(max_age_days=30, max_bytes=10**12)

        assert [entry.path for entry in planned] == [entry.path for entry in removed] == [str(old)]
        assert [entry.reason for entry in removed] == ["not used for 31 days"]
        assert [path.exists() for path in (old, held, young)] == [False, True, True]
        holder.kill()
        holder.wait(SECONDS)
    assert [entry.path for entry in cache.prune(max_age_days=30, max_bytes=10**12)] == [str(held)]
    assert {path.name for path in Path(cache.folder).iterdir()} == {
        young.name, young.with_suffix("").name, f"{young.with_suffix('').name}.lock"
    }  # fmt: skip


def test_the_lock_goes_over_to_who_inherits_it(cache: Environments) -> None:
    """
    The task's process uses the environment after its parent has released the lock, or was killed.
    """
    environment = cache.prepare(PIPE)
    with subprocess.Popen(["sleep", "60"], pass_fds=[environment.lend_lock()]) as task:
        environment.close()

        assert cache.prune(max_age_days=0, max_bytes=0) == []
        assert [entry.state for entry in cache.entries()] == [State.IN_USE]
        task.kill()
        task.wait(SECONDS)

    assert len(cache.prune(max_age_days=0, max_bytes=0)) == 1
    assert cache.entries() == []


def test_there_is_room_before_a_build(environ: dict[str, str], tmp_path: Path, other_python: Path) -> None:
    """
    Expired and left-over environments are removed before an installation; others are only removed for room afterwards.
    """
    cache = Environments(tmp_path / "environments", environ=environ)
    old, young = built(cache), built(cache, "2.0")
    used(old, 31)
    left_over = old.with_suffix(".7")
    left_over.mkdir()
    put_uv_beside(other_python, f'[ "$1" != pip ] || ls "{cache.folder}" > "{tmp_path}/seen"')
    building = Environments(
        cache.folder, environ=environ, interpreter=str(other_python), limits=lambda: Limits(max_bytes=1)
    )

    built(building, "1.0", ("asdf",))

    seen = (tmp_path / "seen").read_text().split()
    assert young.name in seen
    assert not {old.name, left_over.name} & {*seen}
    assert not young.exists()


def test_where_the_disk_is_full_what_is_idle_longest_makes_room(
    environ: dict[str, str], tmp_path: Path, other_python: Path
) -> None:
    """
    After that it is tried again, once.
    """
    cache = Environments(tmp_path / "environments", environ=environ)
    old, young = built(cache), built(cache, "2.0")
    used(old, 2)
    put_uv_beside(
        other_python,
        f'if [ "$1" = pip ] && [ -e "{old}" ]; then echo "write: No space left on device (os error 28)"; exit 2; fi',
    )
    told: list[str] = []
    building = Environments(cache.folder, environ=environ, interpreter=str(other_python))

    with building.prepare(Requirement.of("small-pipeline", "1.0", ["asdf"]), on_output=told.append) as environment:
        assert works(environment)
    assert "the disk is full; unused environments removed: 1; building once more" in told
    assert [path.exists() for path in (old, young)] == [False, True]

    put_uv_beside(other_python, '[ "$1" != pip ] || { echo "No space left on device"; exit 2; }')
    with pytest.raises(EnvironmentBuildError, match=r"exit status 2$"):
        building.prepare(Requirement.of("small-pipeline", "1.0", ["grating-tools"]), on_output=told.append)
    assert told.count("No space left on device") == 2


def test_too_many_are_pruned_those_first_that_were_not_used_for_longest(cache: Environments) -> None:
    """
    Until the rest fits; the new one stays in any case.
    """
    paths = [built(cache), built(cache, "2.0"), built(cache, "1.0", ("asdf",))]
    for path, days in zip(paths, (1, 3, 2), strict=True):
        used(path, days)
    sizes = {entry.path: entry.bytes or 0 for entry in cache.entries()}

    cache.prune(max_age_days=30, max_bytes=sizes[str(paths[0])] + sizes[str(paths[2])])

    assert [path.exists() for path in paths] == [True, False, True]
    small = Environments(cache.folder, environ=cache.environ, limits=lambda: Limits(max_bytes=0))
    with small.prepare(Requirement.of("small-pipeline", "2.0"), on_output=print) as environment:
        assert [entry.path for entry in cache.entries()] == [environment.folder]


def test_what_is_left_over_is_pruned(cache: Environments) -> None:
    """
    From killed builds and removals, and dangling links; not those of a build in progress.
    """
    path = built(cache)
    key = cache.key(Requirement.of("small-pipeline", "2.0")).name
    folder = Path(cache.folder)
    for name in (f"{key}.1", f"{key}.3.gone-01234567", f"{path.stem}.7"):
        (folder / name / "lib").mkdir(parents=True)
    (folder / key).symlink_to(f"{key}.5")
    (folder / f"{key}.gone-89abcdef").symlink_to(f"{key}.1")
    (folder / "of-the-user").mkdir()
    with start("import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2); print(1, flush=True)\n"
               "sys.stdin.read()", str(folder / f"{key}.lock")) as builder:  # fmt: skip
        assert builder.stdout is not None
        assert builder.stdout.readline() == "1\n"
        states = {Path(entry.path).name: entry.state for entry in cache.entries()}
        while_building = {Path(entry.path).name for entry in cache.prune(max_age_days=30, max_bytes=10**12)}
        builder.kill()

    cache.prune(max_age_days=30, max_bytes=10**12)

    assert states[f"{key}.1"] is State.BUILDING
    assert while_building == {f"{key}.3.gone-01234567", f"{path.stem}.7"}
    assert {entry.name for entry in folder.iterdir()} == {path.name, path.stem, f"{path.stem}.lock", "of-the-user"}


def test_processes_that_find_build_and_prune_do_not_hurt_each_other(cache: Environments) -> None:
    """
    A process that holds an environment has it complete, however often others prune.
    """
    done = threading.Event()
    problems: list[object] = []

    def use() -> None:
        for _ in range(6):
            with cache.prepare(PIPE, on_output=lambda _line: None) as environment:
                problems.append(cache.problem_of(environment))

    def prune() -> None:
        while not done.wait(0.005):
            cache.prune(max_age_days=0, max_bytes=0)

    users = [threading.Thread(target=use) for _ in range(3)]
    pruner = threading.Thread(target=prune)
    for thread in (pruner, *users):
        thread.start()
    for thread in users:
        thread.join(SECONDS)
    done.set()
    pruner.join(SECONDS)

    assert problems == [None] * 18


def test_a_link_is_made_though_somebody_takes_it_for_a_left_over(cache: Environments) -> None:
    """
    Between the creation of the link and its move, a pruning process may remove it.
    """
    environment = built(cache)
    folder, done = Path(cache.folder), threading.Event()

    def prune() -> None:
        while not done.is_set():
            for path in folder.glob(f"*{GONE}*"):
                path.unlink(missing_ok=True)

    pruner = threading.Thread(target=prune, daemon=True)
    pruner.start()
    for _ in range(500):
        _link(cache.folder, cache.key(PIPE), str(environment))
    done.set()
    pruner.join(SECONDS)

    assert (folder / cache.key(PIPE).name).readlink() == environment.relative_to(folder)


# Settings and commands


def test_the_limits_are_those_of_the_settings(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A wrong limit is ignored, because it is not a reason to fail a task.
    """
    del environ
    monkeypatch.setenv("PIP_TIMEOUT", "3")
    monkeypatch.setenv("DKIST_CORE_ENVIRONMENTS_MAX_DAYS", "0.5")
    monkeypatch.setenv("DKIST_CORE_ENVIRONMENTS_MAX_BYTES", "much")

    assert Limits.read() == Limits(timeout=3, retries=5, max_age_days=0.5)
    monkeypatch.setenv("MESH_CONFIG", "nonsense")
    assert Limits.read() == Limits()
    monkeypatch.delenv("MESH_CONFIG")
    assert Limits.of(DKISTProcessingCoreConfiguration(dkist_core_environments_max_bytes=7, pip_retries=1)) == Limits(
        timeout=3, retries=1, max_age_days=0.5, max_bytes=7
    )


def asked(*arguments: str) -> Result:
    """
    Run a command about environments.
    """
    return CliRunner().invoke(app, ["environments", *arguments])


@pytest.mark.processes
def test_the_commands_build_list_and_prune(cache: Environments) -> None:
    """
    All commands that a user needs, from an empty folder to an empty folder.
    """
    empty = asked("list")
    first, again = asked("build", "Small.Pipeline[asdf]==1.0"), asked("build", "small-pipeline==1.0", "--extra", "asdf")
    listed, as_json = asked("list"), json.loads(asked("list", "--json").stdout)
    planned, pruned = asked("prune", "--max-size", "0", "--dry-run"), asked("prune", "--max-days", "0")

    assert empty.output == f"no environments in {cache.folder}\n"
    assert "built in" in first.stdout.splitlines()[-1]
    assert "the release has no extra frozen" in first.stderr
    assert again.stdout.startswith("small-pipeline[asdf]==1.0: exists already, ")
    assert "small-pipeline[asdf]==1.0  ready" in listed.output
    assert "environments: 1, in total" in listed.output
    assert as_json["folder"] == cache.folder
    assert [entry["distributions"]["small-pipeline"] for entry in as_json["environments"]] == ["1.0"]
    assert planned.output.splitlines()[-1].startswith("would be removed: 1, in total ")
    assert "does not fit into 0 bytes" in planned.output
    assert pruned.output.splitlines()[-1].startswith("removed: 1, in total ")
    assert [result.exit_code for result in (empty, first, again, listed, planned, pruned)] == [0] * 6
    assert cache.entries() == []


@pytest.mark.processes
def test_a_build_without_an_extra_says_so_at_the_end(environ: dict[str, str]) -> None:
    """
    It is not an error, as with pip, for a new and for an existing environment.
    """
    del environ
    first, again = (asked("build", "small-pipeline==1.0", "--extra", "nope", "--extra", "asdf") for _ in range(2))

    assert "no such extra: nope; it has: asdf, grating-tools" in first.stderr
    for result in (first, again):
        assert result.exit_code == 0
        assert result.stdout.endswith(".1; WITHOUT nope: this release has no such extra\n")


def test_a_size_may_have_a_unit(cache: Environments) -> None:
    """
    Decimal units, as in the output.
    """
    path = built(cache)

    much = [asked("prune", "--max-size", text, "--dry-run") for text in ("20GB", "1.5 tb", "0.2MB", "7000000")]
    little = [asked("prune", "--max-size", text, "--dry-run") for text in ("1B", "0.1KB", "100")]
    wrong = [asked("prune", "--max-size", text) for text in ("", "GB", "20XB", "-1", "1.2.3KB", "1e3")]

    assert {result.stdout for result in much} == {"would be removed: 0, in total 0 B\n"}
    assert all("would be removed: 1," in result.stdout for result in little)
    assert {result.exit_code for result in wrong} == {2}
    assert "expected a number of bytes, or a size such as 500MB or 20GB" in " ".join(wrong[2].stderr.split())
    assert path.exists()


@pytest.mark.processes
def test_the_page_about_environments_shows_what_is_printed(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Its commands, in their order, without the parts that differ from host to host.
    """
    blocks = re.findall(r"(?s)```console\n(.*?)```", PAGE.read_text(encoding="utf-8"))
    expected = re.findall(r"(?ms)^\$ dkist-core environments (.*?)\n(.*?)(?=^\$|\Z)", "".join(blocks))
    make_wheel(tmp_path / "example", "dkist-processing-example", "1.2.3", extras={"asdf": []})
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "example").as_uri())
    folder = environ["DKIST_CORE_ENVIRONMENTS_DIR"]

    printed = [(words, asked(*words.split()).stdout.replace(folder, "/var/cache/dkist")) for words, _ in expected]

    assert expected
    for (_, shown), (_, said) in zip(expected, printed, strict=True):
        assert alike(said) == alike(shown)


def alike(text: str) -> str:
    """
    Return a text without the parts that differ from host to host.
    """
    for pattern, replacement in VARIES:
        text = pattern.sub(replacement, text)
    return text


@pytest.mark.processes
def test_the_command_says_what_cannot_be_built(environ: dict[str, str]) -> None:
    """
    In one line after the installer's output; text that is not a release is a usage error.
    """
    del environ
    missing, wrong = asked("build", "small-pipeline==3.0"), asked("build", "small-pipeline")

    assert (missing.exit_code, wrong.exit_code) == (1, 2)
    assert missing.stderr.splitlines()[-1].startswith(
        "error: no environment of small-pipeline==3.0 could be built: uv "
    )
    assert "expected NAME==VERSION" in " ".join(wrong.stderr.split())


# Permissions for writing


def test_what_a_build_makes_nobody_else_may_write_to(cache: Environments, tmp_path: Path) -> None:
    """
    This holds for any umask, in the build and in the installer's cache, from which files are linked.
    """
    folder = tmp_path / "environments"
    folder.mkdir(mode=0o755)
    program = f"""if True:
        import os
        os.umask(0)
        from dkist_processing_core.environments import Environments, Requirement
        Environments({cache.folder!r}).prepare(Requirement.of("small-pipeline", "1.0")).close()
    """

    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT, env=cache.environ)

    found = [path for path in folder.rglob("*") if not path.is_symlink() and path.lstat().st_mode & 0o022]
    assert found == []
    assert cache.find(PIPE) is not None


def test_folders_that_a_build_makes_are_their_owner_s(environ: dict[str, str], tmp_path: Path) -> None:
    """
    This includes the parents: a user who may write to one could replace a folder in it.
    """
    above = tmp_path / "cache" / "dkist"
    before = os.umask(0)
    try:
        built(Environments(above / "environments", environ=environ))
    finally:
        os.umask(before)

    assert {stat.S_IMODE(path.stat().st_mode) for path in (above.parent, above, above / "environments")} == {0o700}


def test_an_environment_that_others_may_write_to_is_not_used(cache: Environments) -> None:
    """
    Another environment is built instead.
    """
    path = built(cache)
    path.chmod(0o777)

    assert cache.find(PIPE) is None
    assert built(cache) != path


def test_environments_below_a_folder_that_anybody_may_write_to_are_not_used(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """
    Other users could replace them there; the error names the folder and the remedy.
    """
    above = tmp_path / "above"
    cache = Environments(above / "environments", environ=environ)
    built(cache)
    above.chmod(0o777)

    assert cache.find(PIPE) is None
    with pytest.raises(EnvironmentBuildError, match=f"{above} has mode 0777, which lets every user .*: chmod o-w it"):
        cache.prepare(PIPE)


def test_without_a_home_there_is_one_clear_error_and_no_folder(tmp_path: Path) -> None:
    """
    A service may have only a user number; no folder with the name ~ is created.
    """
    asked = ("environments", "build", "small-pipeline==1.0")

    done = run_command(*asked, cwd=tmp_path, DKIST_CORE_ENVIRONMENTS_DIR="~no-such-user/environments")
    homeless = Origin({}, folder=str(tmp_path), home=None, uid=1000770000, dotenv={})
    with read_from(homeless), pytest.raises(EnvironmentBuildError) as raised:
        folder_of()

    told = "there is no folder for environments: found ~no-such-user/environments, and no such home"
    assert (done.returncode != 0, "Traceback" in done.stderr) == (True, False)
    assert told in " ".join(done.stderr.split())
    assert str(raised.value) == (
        "there is no folder for environments: found ~/.cache, and user 1000770000 has no home; "
        "set DKIST_CORE_ENVIRONMENTS_DIR"
    )
    assert [*tmp_path.iterdir()] == []
