"""
The digests by which the store knows runs, workflows, tasks and the bodies of reports: all of these may be too long for
an index.

Not here: what is stored by them (tables).
"""

import hashlib
import json
from functools import lru_cache

_DIGEST_BYTES = 16


def digest_of(body: bytes) -> bytes:
    """Return a digest of 16 bytes, by which the store recognises bytes."""
    return hashlib.sha256(body).digest()[:_DIGEST_BYTES]


@lru_cache(maxsize=1024)
def run_identity(workflow_name: str, workflow_version: str, run_id: str) -> bytes:
    """Return the digest by which the store knows a run."""
    return digest_of(json.dumps((workflow_name, workflow_version, run_id)).encode())


@lru_cache(maxsize=256)
def workflow_key(workflow_name: str) -> bytes:
    """Return the digest by which the store knows a workflow of any version."""
    return digest_of(workflow_name.encode())


def task_without_index(name: str) -> str:
    """Return the name of a task; an instance of a mapped task is named as in `Name[3]`."""
    return name.partition("[")[0]


@lru_cache(maxsize=512)
def task_key(workflow_name: str, task_name: str) -> bytes:
    """Return the digest of a task in its workflow, which is the same for all instances of a mapped task."""
    return digest_of(json.dumps((workflow_name, task_without_index(task_name))).encode())
