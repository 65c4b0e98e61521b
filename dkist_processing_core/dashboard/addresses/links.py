"""
The addresses of the pages.

A run is named by its identity in the query, in which any character can be written, so that an address is the same after
the store was built again. Not here: what the pages show (pages).
"""

from collections.abc import Callable
from urllib.parse import quote, quote_plus, unquote, urlencode

from dkist_processing_core.identity import Run


def address(path: str, /, **parameters: object) -> str:
    """Return the address of a path with the parameters that are neither None nor empty."""
    given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def run_address(run: Run, **parameters: object) -> str:
    """Return the address of a run."""
    return address("/run", workflow=run.workflow_name, version=run.workflow_version, id=run.run_id, **parameters)


def attempt_addresses(run: Run, **parameters: object) -> Callable[[str, int | None], str]:
    """Return a function that returns the address of an attempt of a run, which has thousands on one page."""
    of_run = address("/attempt", workflow=run.workflow_name, version=run.workflow_version, id=run.run_id, **parameters)

    def of_attempt(task_name: str, number: int | None) -> str:
        of_number = "" if number is None else f"&attempt={number}"
        return f"{of_run}&task={quote_plus(task_name)}{of_number}"

    return of_attempt


def attempt_address(run: Run, task_name: str, number: int | None, **parameters: object) -> str:
    """Return the address of an attempt."""
    return attempt_addresses(run, **parameters)(task_name, number)


def compare_address(first: Run, second: Run) -> str:
    """Return the address of the comparison of two runs of a workflow."""
    return address(
        "/compare",
        workflow=first.workflow_name,
        a=first.run_id,
        a_version=first.workflow_version,
        b=second.run_id,
        b_version=second.workflow_version,
    )


def named_run(run: Run) -> str:
    """Return the version and the id of a run as one text, as `version_and_id` reads it."""
    return f"{quote(run.workflow_version, safe='')}/{quote(run.run_id, safe='')}"


def version_and_id(named: str) -> tuple[str, str] | None:
    """
    Return the version and the id of a run that a text names; None if it names none.

    >>> version_and_id(named_run(Run("visp", "1/2", "a b", None)))
    ('1/2', 'a b')
    """
    version, slash, run_id = named.partition("/")
    return (unquote(version), unquote(run_id)) if slash and run_id else None


def compare_with_previous_address(run: Run) -> str:
    """Return the address of the comparison of a run with the one before it."""
    return address("/compare", workflow=run.workflow_name, b=run.run_id, b_version=run.workflow_version)


def workflow_address(name: str) -> str:
    """Return the address of a workflow."""
    return address("/workflow", name=name)


def family_address(family: str) -> str:
    """Return the address of a family of failures."""
    return address("/failures", family=family)
