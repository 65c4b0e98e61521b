"""
The mark of tests of generated files: their failure names the command that writes the file.

Not here: the comparisons, which are in the tests of what each file is generated from.
"""

import pytest


def generated_by(command: str) -> pytest.MarkDecorator:
    """
    Mark a test of a file that a command, run in the root of the repository, writes.
    """
    return pytest.mark.on_failure(f"The file is generated. If the change is intended, run: {command}")
