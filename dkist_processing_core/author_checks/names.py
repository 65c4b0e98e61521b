"""
The names, the version and the tags that an author may give to a workflow.

Not here: the checks of its tasks (tasks).
"""

import re
from collections.abc import Iterable, Mapping

from dkist_processing_core.author_checks.values import SHOWN, in_fixed_order, refuse
from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.text import clean, show

MAX_NAME_LENGTH = 100
# Airflow's own limits on the length of a tag and of a DAG's name.
MAX_TAG_LENGTH = 100
MAX_DAG_NAME_LENGTH = 250
_FORBIDDEN = re.compile(r"[^A-Za-z0-9\-._]")
_BY_PROCESS = ("process_category", "process_name")
_BY_DATA = ("input_data", "output_data", "category")
_ALLOWED = "letters, digits, dash, dot and underscore"


def workflow_name_from_details(input_data: str, output_data: str, category: str, detail: str | None = None) -> str:
    """
    Return `{input}_to_{output}_{category}[_{detail}]`.

    >>> workflow_name_from_details(input_data="l0", output_data="l1", category="visp")
    'l0_to_l1_visp'

    Raises:
        WorkflowError: The name is too long, or holds characters that Airflow does not allow.
    """
    parts = [f"{input_data}_to_{output_data}", category, detail]
    return name_of("_".join(part for part in parts if part), "the name of a workflow", MAX_NAME_LENGTH)


def dag_name(workflow_name: str, workflow_version: str) -> str:
    """
    Return the name of Airflow's DAG for a version of a workflow.

    >>> dag_name(workflow_name="l0_to_l1_visp", workflow_version="1.2.3")
    'l0_to_l1_visp_1.2.3'

    Raises:
        WorkflowError: The name holds characters that Airflow does not allow.
    """
    return name_of(
        f"{workflow_name}_{workflow_version}", "the name of a workflow with its version", MAX_DAG_NAME_LENGTH
    )


def name_and_tags(parts: Mapping[str, str | None]) -> tuple[str, tuple[str, ...]]:
    """
    Return the name of a workflow in one of its two forms, and the parts of the name that are tags.

    Args:
        parts: the arguments of `Workflow` that name it, by argument; an empty part counts as not given.

    Raises:
        WorkflowError: The given parts are not those of exactly one form, or the name is not allowed.
    """
    given = {argument: part for argument, part in parts.items() if part}
    if given.keys() == set(_BY_PROCESS):
        tags = tuple(given[argument] for argument in _BY_PROCESS)
        return name_of("_".join(tags), "the name of a workflow", MAX_NAME_LENGTH), tags
    if given.keys() - {"detail"} == set(_BY_DATA):
        # As in earlier releases, the detail is not a tag: it describes only one workflow.
        input_data, output_data, category = (given[argument] for argument in _BY_DATA)
        name = workflow_name_from_details(input_data, output_data, category, given.get("detail"))
        return name, (input_data, output_data, category)
    msg = (
        "a workflow is named by process_category and process_name, or by input_data, output_data and category "
        f"(and optionally detail); given: {', '.join(given) or 'none of them'}"
    )
    raise WorkflowError(msg)


def name_of(name: str, what: str, max_length: int) -> str:
    """
    Return the name if Airflow allows it.

    Raises:
        WorkflowError: The name is too long, or holds other characters.
    """
    forbidden = sorted(set(_FORBIDDEN.findall(name)))
    if forbidden:
        shown = ", ".join(repr(character) for character in forbidden[:5])
        refuse(f"{what} is {show(name, SHOWN)}, which contains {shown}; allowed are {_ALLOWED}")
    if not 1 <= len(name) <= max_length:
        refuse(f"{what} is {show(name, SHOWN)}, {len(name)} characters; allowed are 1 to {max_length}")
    return name


def version_of(version: str, source: str) -> str:
    """
    Return the version of a workflow, which is also a tag.

    Raises:
        WorkflowError: The version is too long, or holds characters that Airflow does not allow.
    """
    return name_of(version, source, MAX_TAG_LENGTH)


def tags_of(tags: object) -> list[str]:
    """
    Return the tags, each as a plain `str`.

    Raises:
        WorkflowError: One of the values is not a tag.
    """
    # An empty tag counts as not given, as in earlier releases: it comes from a variable that is not set.
    given = (tags,) if isinstance(tags, str) else () if tags is None else tags
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        refuse(f"tags is {show(tags, SHOWN)}, expected a list of strings")
    return [tag_of(tag) for tag in in_fixed_order(given) if not (isinstance(tag, str) and tag == "")]


def tag_of(tag: object) -> str:
    """
    Return a tag as a plain `str`.

    Raises:
        WorkflowError: The value is not a tag.
    """
    # Airflow's database accepts neither NUL nor half of a surrogate pair; NUL terminates its DAG processor.
    if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TAG_LENGTH or clean(tag) != tag:
        refuse(
            f"tags: found {show(tag, SHOWN)}, expected text of 1 to {MAX_TAG_LENGTH} characters "
            f"without control characters"
        )
    return str.__str__(tag)
