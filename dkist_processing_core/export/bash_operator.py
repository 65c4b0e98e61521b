"""
An attempt as Airflow starts it: the source of a `BashOperator`, and of the names that a workflow's operators share.

Everything is rendered by `repr` from values. The command is the same for every task. A launcher gets its assignment by
variables, so that no value of a run ever becomes shell or Python code. The variables and the callbacks are versioned
API: files that were exported by an earlier release continue to work. Not here: the DAG around it (rendering).
"""

import textwrap
from collections.abc import Mapping, Sequence

COMMAND = 'exec </dev/null; exec "$DKIST_CORE_PYTHON" -m dkist_processing_core.launcher'
"""Standard input would be Airflow's own socket; the interpreter is named, since PATH may find another one."""
OWNER = "DKIST Data Center"
IMPORTS = """\
from datetime import timedelta

from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator

from dkist_processing_core.airflow.callbacks import Callbacks
"""
# Airflow renders these on the worker, right before the command starts. A value of more than 200 characters is no recipe
# run id, and might prevent the start of the process.
_OF_RUN = {
    "DKIST_CORE_PYTHON": "{{ dkist_core.python }}",
    "DKIST_CORE_RUN_ID": "{{ run_id }}",
    "DKIST_CORE_RECIPE_RUN_ID": "{{ ((dag_run.conf or {}).get('recipe_run_id') | tojson)[:200] }}",
    "DKIST_CORE_ATTEMPT": "{{ ti.try_number }}",
    "DKIST_CORE_MAX_ATTEMPTS": "{{ ti.max_tries + 1 }}",
    "DKIST_CORE_LOG_URL": "{{ dkist_core.log_url(ti) }}",
    "DKIST_CORE_QUEUED_AT": "{{ dkist_core.queued_at(ti, dag_run) }}",
    "TRACEPARENT": "{{ dkist_core.traceparent(ti, dag_run) }}",
    "TRACESTATE": "{{ dkist_core.tracestate(ti) }}",
}
_OF_FILES = (".sh", ".bash")
# By default an exit status of 99 would turn a failed task into a skipped one. Pushing a value can make a finished task
# fail if Airflow's server does not answer.
_SHARED = f"""\
SHARED = {{
    'bash_command': {COMMAND!r},
    'append_env': True,
    'skip_on_exit_code': None,
    'do_xcom_push': False,
    'owner': {OWNER!r},
    'on_execute_callback': callbacks.on_execute,
    'on_success_callback': callbacks.on_success,
    'on_retry_callback': callbacks.on_retry,
    'on_skipped_callback': callbacks.on_skipped,
}}
"""


def render_shared(
    workflow_name: str,
    workflow_version: str,
    package: str,
    *,
    nodes: Sequence[str],
    edges: Sequence[tuple[str, str]],
) -> str:
    """Return the names that every operator of a workflow uses: `callbacks`, `RUN` and `SHARED`."""
    of_run = {
        "DKIST_CORE_WORKFLOW": _constant(workflow_name),
        "DKIST_CORE_VERSION": _constant(workflow_version),
        "DKIST_CORE_PACKAGE": package,
    }
    return (
        f"callbacks = Callbacks(\n    workflow_name={workflow_name!r},\n    workflow_version={workflow_version!r},\n"
        f"    nodes={_listed(nodes, 4)},\n    edges={_listed(edges, 4)},\n)\n"
        f"RUN = {_mapped(of_run | _OF_RUN, 0)}\n"
        f"{_SHARED}"
    )


def render_operator(
    *,
    task_name: str,
    module: str,
    extras: Sequence[str],
    queue: str,
    pool: str,
    retries: int,
    retry_delay_seconds: float,
    overdue_after_seconds: float | None = None,
) -> str:
    """Return the expression that creates the operator of one task."""
    of_task = {
        "DKIST_CORE_TASK": task_name,
        "DKIST_CORE_TASK_MODULE": _constant(module),
        "DKIST_CORE_EXTRAS": ",".join(extras),
        "DKIST_CORE_QUEUE": queue,
    }
    if overdue_after_seconds is not None:
        of_task["DKIST_CORE_OVERDUE_AFTER_SECONDS"] = repr(overdue_after_seconds)
    return f"""\
BashOperator(
    task_id={task_name!r},
    env=RUN | {_mapped(of_task, 4)},
    retries={retries!r},
    retry_delay=timedelta(seconds={retry_delay_seconds!r}),
    queue={queue!r},
    pool={pool!r},
    on_failure_callback=callbacks.on_failure_of({task_name!r}),
    **SHARED,
)"""


def _constant(name: str) -> str:
    """Return a name, as a template if it ends like a script: Airflow would read such a name as a template file."""
    return f"{{{{ {name!r} }}}}" if name.endswith(_OF_FILES) else name


def _mapped(values: Mapping[str, str], depth: int) -> str:
    lines = "".join(f"    {key!r}: {value!r},\n" for key, value in values.items())
    return textwrap.indent(f"{{\n{lines}}}", " " * depth).lstrip()


def _listed(values: Sequence[object], depth: int) -> str:
    if not values:
        return "[]"
    lines = "".join(f"    {value!r},\n" for value in values)
    return textwrap.indent(f"[\n{lines}]", " " * depth).lstrip()
