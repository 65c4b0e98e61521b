"""
Write all exported files of a package into one archive, to be unpacked into Airflow's DAGs folder.

The archive must be unpacked: its files are in a folder, and Airflow reads only the top level of a packed archive.
Not here: the contents of the files (export.rendering).
"""

import io
import zipfile
from collections.abc import Iterable, Mapping

from dkist_processing_core.build_utils.find import Found
from dkist_processing_core.errors import WorkflowError

# The earliest time of the format: an archive depends only on its contents, not on the time of its creation.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = 0o100644 << 16


def archive_name(package: str, found: Iterable[Found]) -> str:
    """
    Return `{package}_{version}`, the name of the archive and of the folder inside it.

    Raises:
        WorkflowError: The workflows have several versions, so that there is no single version for the name.
    """
    versions: dict[str, list[str]] = {}
    for each in found:
        versions.setdefault(each.workflow.workflow_version, []).append(each.workflow.workflow_name)
    if len(versions) > 1:
        listed = "; ".join(f"{version} ({', '.join(names)})" for version, names in sorted(versions.items()))
        msg = f"an archive holds workflows of one version, and {package} has several: {listed}"
        raise WorkflowError(msg)
    return f"{package}_{next(iter(versions))}"


def archived(contents: Mapping[str, str], folder: str) -> bytes:
    """
    Return an archive of files in one folder, sorted by their DAGs' names; the same files give the same bytes.

    The files are not compressed, since the output of zlib differs between its releases.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for dag_name in sorted(contents):
            entry = zipfile.ZipInfo(f"{folder}/{dag_name}.py", _EPOCH)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            archive.writestr(entry, contents[dag_name])
    return stream.getvalue()
