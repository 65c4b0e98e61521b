"""
A file in TOML that an option of a command or a setting names.

Not here: what the file has to contain (notify.routes, watch.expect).
"""

import tomllib
from pathlib import Path
from typing import Any

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.text import redact


def toml_in(path: Path, *, named_by: str, example: str) -> dict[str, Any]:
    """
    Return the content of a file.

    Args:
        path: The file.
        named_by: The option and the setting that name it, for the message.
        example: The path of an example in this repository, for the message.

    Raises:
        ConfigurationError: It cannot be read, or is not in TOML. Neither the message nor its cause has a secret of it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}; {named_by} name a file in TOML"
        raise ConfigurationError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The cause is left out: its text may hold a part of the file.
        msg = f"{path} is not in TOML: {redact(str(error))}; {example} is an example"
        raise ConfigurationError(msg) from None
