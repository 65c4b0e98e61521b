"""
The comparison uses the published packages: the pipelines and all their pinned requirements, in the pinned versions.

Not here: running them.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.published.environments import Installed, MissingClientsError
from tests.running import ROOT
from tests.services.redis import RedisServer

FROZEN = ROOT / "requirements" / "clients-frozen.txt"
LIBRARY = "dkist-processing-core"
# The index does not have these releases, as the file states, or not their requirements.
NOT_TO_BE_HAD = {"certifi", "globus-sdk", "pip"}
# Pinned, but only used on macOS: no package requires it here.
NOT_FOR_LINUX = {"appnope"}


@pytest.fixture(scope="module", params=["replaced", "clients"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """
    The installed packages of one of the environments, without the release of the library there.
    """
    installed: Installed = request.getfixturevalue(request.param)
    answer: dict[str, Any] = installed.ask("read_pins")
    answer["installed"] = {canonicalize_name(name): version for name, version in answer["installed"].items()}
    answer["library"] = answer["installed"].pop(LIBRARY)
    answer["replaced"] = request.param == "replaced"
    return answer


def frozen_by(found: dict[str, Any]) -> dict[str, str]:
    """
    Return the pins of the pipeline's extra `frozen`, without the library.
    """
    wanted = [Requirement(each) for each in found["pipeline requires"]]
    pins: dict[str, str] = {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in wanted
        if each.marker is not None and str(each.marker) == 'extra == "frozen"'
    }
    del pins[LIBRARY]
    return pins


def test_both_hold_the_published_pipeline(found: dict[str, Any]) -> None:
    """
    One has the release that it was published for, the other has the library under test.
    """
    assert found["installed"]["dkist-processing-test"] == "1.46.0"
    assert (found["library"] == "7.5.0") is found["replaced"]
    assert (Path(found["library is in"]) == ROOT) is not found["replaced"]


def test_what_is_installed_is_what_the_pipeline_pins(found: dict[str, Any]) -> None:
    """
    All packages of its extra `frozen`, with which its tasks run, except those that are not available.
    """
    pins = frozen_by(found)
    installed = found["installed"]

    differing = {name for name, version in pins.items() if installed.get(name, version) != version}
    missing = pins.keys() - installed.keys()

    assert pins
    assert differing <= NOT_TO_BE_HAD
    assert missing == NOT_FOR_LINUX


def test_file_of_pins_is_the_pipelines_own(found: dict[str, Any]) -> None:
    """
    The lock of the environments is compared with the extra `frozen` of the metadata, line by line.
    """
    lines = [line for line in FROZEN.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]

    listed = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}

    expected = {name: version for name, version in frozen_by(found).items() if name not in NOT_TO_BE_HAD}
    assert {name: version for name, version in listed.items() if name != LIBRARY} == expected


def test_nothing_is_at_odds_but_pins_on_the_replaced_release(clients: Installed) -> None:
    """
    The library needs no version of a package that the pipelines do not allow.
    """
    checked = clients.run("uv", "pip", "check", "--python", clients.environment)

    complaints = [line for line in checked.stderr.splitlines() if line.startswith("The package ")]
    expected = re.compile(rf"The package `dkist-[a-z-]+` requires `{LIBRARY}==7\.5\.0`, but `[\d.]+` is installed")
    assert complaints
    assert [line for line in complaints if not expected.fullmatch(line)] == []
    assert f"Found {len(complaints)} incompatibilit" in checked.stderr


def test_a_task_finds_every_requirement_of_the_library(clients: Installed, redis: RedisServer) -> None:
    """
    It looks up each of them among the installed packages by its full text, without support for extras or markers.
    """
    answer = clients.ask("read_pins", variables=redis.env)
    base = [each for each in answer["library requires"] if "extra ==" not in each]
    installed = {canonicalize_name(name): version for name, version in answer["installed"].items()}

    told = answer["told by a task"]

    assert told["dkist-processing-test"] == "1.46.0"
    assert [each for each in base if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*>=\d+(\.\d+)*", each)] == []
    for name in (LIBRARY, *(requirement.partition(">=")[0] for requirement in base)):
        assert told[name] == installed[canonicalize_name(name)]


def test_missing_environment_is_one_sentence(tmp_path: Path) -> None:
    """
    It states the command that creates the environment.
    """
    message = (
        r"^The published pipelines are missing: run `make \.venv-other/\.stamp-clients`, which needs Python 3\.13$"
    )

    with pytest.raises(MissingClientsError, match=message):
        Installed(tmp_path / ".venv-other", tmp_path / "written")
