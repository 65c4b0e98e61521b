"""
A workflow for each fault, and one that can be used for several.
"""

from dkist_processing_core import Workflow

from . import tasks

RELEASE = "1.0"


def _of(name: str, *chain: type[tasks.Noting], version: str = RELEASE) -> Workflow:
    workflow = Workflow(
        process_category="faulty", process_name=name, workflow_package=__package__, workflow_version=version
    )
    for upstream, task in zip((None, *chain), chain, strict=False):
        workflow.add_node(task, upstreams=upstream)
    return workflow


succeeds = _of("succeeds", tasks.Succeeds, tasks.Follows)
raises = _of("raises", tasks.Raises, tasks.Follows)
is_killed = _of("is_killed", tasks.IsKilled)
is_killed_once = _of("is_killed_once", tasks.IsKilledOnce)
waits = _of("waits", tasks.Waits)
waits_twice = _of("waits_twice", tasks.WaitsTwice)
fails_once = _of("fails_once", tasks.FailsOnce)
overstays = _of("overstays", tasks.Overstays)
is_skipped = _of("is_skipped", tasks.IsSkipped)
not_released = _of("not_released", tasks.Succeeds, version="9.9")
