"""
The kernel's table of mounts is read with any names in it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dkist_processing_core.journal.place import file_system
from dkist_processing_core.process.mounts import mounts
from tests.running import ROOT

LINES = [
    b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    b"37 22 0:33 /a\\040b /x/m\xc3\xa4trum rw shared:2 master:1 - tmpfs t rw,size=4k",
    b"38 22 0:34 / /x/\\011tab\\012line\\134040\xff rw - cgroup c rw,memory",
    b"half a line",
    b"",
]


def test_a_mount_point_may_have_any_name(tmp_path: Path) -> None:
    """
    Octal escapes stand for single bytes, and bytes that are not UTF-8 become surrogate escapes.
    """
    table = tmp_path / "mountinfo"
    table.write_bytes(b"\n".join(LINES))

    found = [(each.root, each.point, each.file_system, each.options) for each in mounts(str(table))]

    assert found == [
        ("/", "/", "ext4", "rw"),
        ("/a b", "/x/mätrum", "tmpfs", "rw,size=4k"),
        ("/", "/x/\ttab\nline\\040" + os.fsdecode(b"\xff"), "cgroup", "rw,memory"),
    ]


def test_without_a_table_there_is_no_mount(tmp_path: Path) -> None:
    """
    Without the table, no file system is known.
    """
    assert [*mounts(str(tmp_path / "missing"))] == []


@pytest.mark.parametrize("name", ["mätrum", "a b", "back\\slash"])
def test_the_file_system_of_a_mount_point_is_found(name: str, tmp_path: Path) -> None:
    """
    If this process may mount a file system in a separate namespace, that one is found, otherwise that of the folder.
    """
    point = tmp_path / name
    point.mkdir()
    program = "import sys; from pathlib import Path; from dkist_processing_core.journal.place import file_system;"
    program += "print(file_system(Path(sys.argv[1]) / 'state'))"
    mounting = 'mount -t tmpfs t "$1" || exit 9; exec "$2" -c "$3" "$1"'

    done = subprocess.run(
        [shutil.which("unshare") or "false", "-m", "sh", "-c", mounting, "sh", point, sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
    )

    found = done.stdout.strip() if done.returncode == 0 else file_system(point) and "tmpfs"
    assert found == "tmpfs", done.stderr
