"""
The file `config/example.env`: every setting with its meaning and default.

    python -m dkist_processing_core.settings.example

Not here: the declarations themselves (declarations).
"""

import json

from pydantic import BaseModel

from dkist_processing_core.settings.configuration import DKISTProcessingCoreConfiguration
from dkist_processing_core.settings.wording import expectation


def example_environment() -> str:
    """Return the text of the file, in the order of the settings class."""
    lines = [
        "# Every setting of dkist-processing-core, with its meaning and its default.",
        "# Made by `python -m dkist_processing_core.settings.example`; a test holds it in step.",
    ]
    for name, field in DKISTProcessingCoreConfiguration.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            text = default.model_dump_json()
        elif isinstance(default, dict):
            text = json.dumps(default)
        elif isinstance(default, bool):
            text = str(default).lower()
        else:
            text = "" if default is None else str(default)
        lines += ["", f"# {field.description}", f"# Expected: {expectation(field)}.", f"# {name.upper()}={text}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(example_environment(), end="")  # noqa: T201 - its output is the file
