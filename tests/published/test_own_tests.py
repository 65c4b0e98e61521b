"""
The tests of a published pipeline, run on this library.

Not here: the tests of its dependencies.
"""

import re
from pathlib import Path

from tests.published.environments import Installed
from tests.services.redis import RedisServer

# The number of tests that pass with the replaced release.
PASSED = 21


def test_a_published_pipeline_passes_its_own_tests(clients: Installed, redis: RedisServer, tmp_path: Path) -> None:
    """
    All of them pass, and none is left out.
    """
    done = clients.run(
        *("python", "-m", "pytest", "--pyargs", "dkist_processing_test", "-q", "-p", "no:cacheprovider"),
        cwd=tmp_path,
        variables=redis.env,
    )

    counts = {what: int(count) for count, what in re.findall(r"(\d+) ([a-z]+)", done.stdout.splitlines()[-1])}
    assert done.returncode == 0, done.stdout[-8000:]
    assert counts.keys() <= {"passed", "warnings"}
    assert counts["passed"] == PASSED
