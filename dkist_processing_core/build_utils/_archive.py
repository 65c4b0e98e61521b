"""
All exported files of a package in one archive, to be unpacked into the engine's DAGs folder.

Not as it is: of a file within an archive Airflow 3.3 does not call the callbacks of the DAG, and the end of no run
would be told. Not here: what the files hold (rendering).
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
    Return `{package}_{version}`, what the archive and the folder inside it are called.

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
    return f"{package}_{next(iter(versions))}"


def archived(contents: Mapping[str, str], folder: str) -> bytes:
    """
    Return an archive of files in one folder, by the names of their workflows: the same files give the same bytes.

    They are not compressed, since releases of zlib do that differently.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for dag_name in sorted(contents):
            entry = zipfile.ZipInfo(f"{folder}/{dag_name}.py", _EPOCH)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            archive.writestr(entry, contents[dag_name])
    return stream.getvalue()
