"""
Environments that hold exactly one release of a pipeline, cached on this host.

Importing this package and finding an existing environment must take milliseconds, because both happen before every
task. So no module here imports more than the cheapest parts of the standard library (not typing, dataclasses, pathlib,
re, json or subprocess) before something has to be built or listed.
"""

from dkist_processing_core.environments._environment import Environment
from dkist_processing_core.environments._environments import Environments
from dkist_processing_core.environments._place import folder_of
from dkist_processing_core.environments._requirement import Requirement

__all__ = ["Environment", "Environments", "Requirement", "folder_of"]
