"""
All exported files of a package in one archive, as the engine reads it from its DAGs folder.

Not here: what the files hold (rendering).
"""

import io
import zipfile
from collections.abc import Iterable, Mapping

from dkist_processing_core.build_utils._find import Found
from dkist_processing_core.errors import WorkflowError

# The first moment that the format knows: an archive tells what it holds, not when it was made.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = 0o100644 << 16


def archive_name(package: str, found: Iterable[Found]) -> str:
    """
    Return `{package}_{version}.zip`.

    Raises
    ------
    WorkflowError
        where the workflows are of several versions, so that no one version names the archive.

    """
    versions: dict[str, list[str]] = {}
    for each in found:
        versions.setdefault(each.workflow.workflow_version, []).append(each.workflow.workflow_name)
    if len(versions) > 1:
        listed = "; ".join(f"{version} ({', '.join(names)})" for version, names in sorted(versions.items()))
        msg = f"{package} has workflows of several versions, and an archive is of one: {listed}"
        raise WorkflowError(msg)
    return f"{package}_{next(iter(versions))}.zip"


def module_file(dag_name: str) -> str:
    """
    Return what a workflow's file is called inside an archive.

    The engine imports what it finds there by name, where a dot would mean a package.

    >>> module_file("l0_to_l1_visp_1.2.3")
    'l0_to_l1_visp_1-2-3.py'
    """
    return f"{dag_name.replace('.', '-')}.py"


def archived(contents: Mapping[str, str]) -> bytes:
    """
    Return an archive of files, by the names of their workflows: the same files give the same bytes.

    They are not compressed, since releases of zlib do that differently.

    Raises
    ------
    WorkflowError
        where two names are the same inside it.

    """
    names: dict[str, str] = {}
    for dag_name in sorted(contents):
        other = names.setdefault(module_file(dag_name).lower(), dag_name)
        if other != dag_name:
            msg = f"{other} and {dag_name} have the same name in an archive, {module_file(dag_name)}; rename one"
            raise WorkflowError(msg)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for dag_name in names.values():
            entry = zipfile.ZipInfo(module_file(dag_name), _EPOCH)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            archive.writestr(entry, contents[dag_name])
    return stream.getvalue()
