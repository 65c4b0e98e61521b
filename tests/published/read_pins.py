"""
Writes the installed packages of its environment, and those that a task of a published pipeline reports itself.

Run in an environment of pipelines; its argument is the file for the answer. A task is called only if a Redis is named.
"""

import importlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import dkist_processing_core


def versions_by_task() -> dict[str, str]:
    """
    Return the versions that a task would put down as its provenance, as the pipelines' common base finds them.
    """
    # By name: a type checker has no pipelines.
    base: Any = importlib.import_module("dkist_processing_common.tasks").WorkflowTaskBase
    task = type("Asked", (base,), {"run": lambda _: None})(
        recipe_run_id=1, workflow_name="asked", workflow_version="1.0"
    )
    found: dict[str, str] = json.loads(task.library_versions)
    return found


def main() -> None:
    """
    Write the answer.
    """
    answer = {
        "installed": {each.name: each.version for each in metadata.distributions()},
        "pipeline requires": metadata.requires("dkist-processing-test"),
        "library requires": metadata.requires("dkist-processing-core"),
        "library is in": str(Path(dkist_processing_core.__file__).parents[1]),
        "told by a task": versions_by_task() if "MESH_CONFIG" in os.environ else None,
    }
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
