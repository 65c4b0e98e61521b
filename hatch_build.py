"""
The description of the distribution on a package index: the README, with absolute links.

Not here: the other metadata (pyproject.toml).
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"\]\((?!\w+:|#)")


class CustomMetadataHook(MetadataHookInterface):
    """The hook that hatchling calls to complete the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description. Its links lead to the files of this version in the repository."""
        repository = f"{metadata['urls']['Repository']}/src/v{metadata['version']}"
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = _RELATIVE_LINK.sub(f"]({repository}/", readme)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
