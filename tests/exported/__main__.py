"""
Write the exported files anew, with which the tests compare an export: `python -m tests.exported`.

Not here: the comparison (test_export, test_notebook).
"""

import tempfile
from pathlib import Path

from tests.sample import workflow

FOLDER = Path(__file__).parent


def main() -> None:
    """Export the sample workflow as a DAG and as a notebook."""
    with tempfile.TemporaryDirectory() as folder:
        for export in (workflow().export_dag, workflow().export_notebook):
            file = export(folder)
            (FOLDER / f"{file.name}.txt").write_bytes(file.read_bytes())


if __name__ == "__main__":
    main()
