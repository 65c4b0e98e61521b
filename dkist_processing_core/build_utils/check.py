"""
Check workflows before deployment, and list the problems of each.

Not here: the search for workflows (find).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from dkist_processing_core.build_utils.find import Found
from dkist_processing_core.errors import EngineMissingError, WorkflowError
from dkist_processing_core.text.exception_text import class_name, message_of

Form = Literal["dag", "notebook"]


@dataclass(slots=True)
class Checked:
    """
    A workflow, the problems that were found, and the content of its file.

    `loaded` is None if Airflow is not installed, so that the file could not be loaded.
    """

    found: Found
    problems: list[str] = field(default_factory=list)
    content: str = ""
    loaded: bool | None = None


def check_workflows(found: Iterable[Found]) -> list[Checked]:
    """Check each workflow separately and return the results; no file is written."""
    return [_check(each) for each in found]


def content_of(found: Found, form: Form = "dag") -> str:
    """
    Return the content of a workflow's file, in the form `dag` or `notebook`.

    Raises:
        WorkflowError: The workflow has no tasks, has a cycle or cannot be exported; the message names its module and
            the workflow.
    """
    try:
        return found.workflow.notebook_source() if form == "notebook" else found.workflow.dag_source()
    except WorkflowError as error:
        msg = f"{found}: {error}"
        raise WorkflowError(msg) from error


def _check(found: Found) -> Checked:
    checked = Checked(found)
    try:
        checked.content = content_of(found)
    except WorkflowError as error:
        checked.problems.append(str(error))
        return checked
    try:
        compile(checked.content, f"{found.workflow.dag_name}.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        checked.problems.append(f"{found}: its file does not compile: {error}")
        return checked
    try:
        found.workflow.load()
    except EngineMissingError:
        return checked
    except Exception as error:  # noqa: BLE001 - any error of Airflow is a problem of the workflow
        text = str(error) if isinstance(error, WorkflowError) else f"{class_name(type(error))}: {message_of(error)}"
        checked.problems.append(f"{found}: Airflow does not load it: {' '.join(text.split())}")
    checked.loaded = not checked.problems
    return checked


def refuse(problems: list[str]) -> None:
    """
    Raise one error for all problems; do nothing if there is none.

    Raises:
        WorkflowError: There are problems; the message lists all of them.
    """
    if len(problems) == 1:
        raise WorkflowError(problems[0])
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        msg = f"found {len(problems)} problems:\n{listed}"
        raise WorkflowError(msg)
