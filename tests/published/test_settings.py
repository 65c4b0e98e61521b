"""
The values that a published pipeline derives from the library's settings and passes to another package.

Not here: the meaning of a setting (test_config).
"""

import json
from typing import Any

import pytest

from tests.published.environments import Installed

BROKER = {"interservice-bus": {"mesh_address": "broker.example", "mesh_port": 5671}}
VARIABLES = {
    "MESH_CONFIG": json.dumps(BROKER),
    "ISB_USERNAME": "reader",
    "ISB_PASSWORD": "opener",
    "ISB_QUEUE_TYPE": "quorum",
    "OTEL_SERVICE_NAME": "service",
    "RETRY_CONFIG": '{"retry_tries": 3, "retry_jitter": [2, 4]}',
}


@pytest.fixture(scope="module")
def told(clients: Installed, replaced: Installed) -> dict[str, Any]:
    """
    The answer with the library, and that with the replaced release.
    """
    return {
        "ours": clients.ask("read_settings", variables=VARIABLES),
        "theirs": replaced.ask("read_settings", variables=VARIABLES),
    }


@pytest.mark.parametrize(
    "what",
    [
        "producer",
        "retryer",
        "exchange",
        "queue arguments",
        "pipeline's retryer",
        "pipeline's consumer",
        "inventory",
        "store",
    ],
)
def test_pipeline_is_given_what_the_replaced_release_gives(what: str, told: dict[str, Any]) -> None:
    """
    The same classes of talus, with the same values; an unknown service is this host.
    """
    assert told["theirs"][what] == told["ours"][what]
