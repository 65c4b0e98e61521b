"""
Writes the values that a published pipeline derives from the library's settings.

Run in an environment of pipelines; its argument is the file for the answer.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def described(value: Any) -> dict[str, Any]:
    """
    Return the class and the content of a model of talus.
    """
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **value.model_dump(exclude={"exceptions"})}


def main() -> None:
    """
    Write the answer.
    """
    # By name: a type checker has no pipelines.
    core: Any = importlib.import_module("dkist_processing_core.config").DKISTProcessingCoreConfiguration()
    common: Any = importlib.import_module("dkist_processing_common.config").DKISTProcessingCommonConfiguration()
    binding: Any = importlib.import_module("talus").Queue(name="q", arguments=core.isb_queue_arguments)
    inventory = common.scratch_inventory_mesh_service
    answer = {
        "producer": described(core.isb_producer_connection_parameters),
        "retryer": described(core.isb_connection_retryer),
        "exchange": described(core.isb_publish_exchange),
        "queue arguments": binding.arguments,
        "pipeline's retryer": described(common.isb_connection_retryer),
        "pipeline's consumer": described(common.isb_consumer_connection_parameters),
        "inventory": [inventory.host, inventory.port],
        "store": [common.object_store_api_mesh_service.host, common.object_store_api_mesh_service.port],
    }
    Path(sys.argv[1]).write_text(json.dumps(answer, default=str), encoding="utf-8")


if __name__ == "__main__":
    main()
