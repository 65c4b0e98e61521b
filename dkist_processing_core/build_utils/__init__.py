"""
Functions for a pipeline's own tests and its release: find its workflows, check them, export them.

    from dkist_processing_core.build_utils import validate_workflows
    import my_pipeline.workflows

    def test_workflows():
        validate_workflows(my_pipeline.workflows)

Not here: how one workflow is exported or loaded (workflow).
"""

from dkist_processing_core.build_utils.exports import (
    export_archive,
    export_dags,
    export_notebook_dockerfile,
    export_notebooks,
)
from dkist_processing_core.build_utils.validation import extract_workflows_from_package, validate_workflows

__all__ = [
    "export",
    "export_archive",
    "export_dags",
    "export_notebook_dockerfile",
    "export_notebooks",
    "extract_workflows_from_package",
    "validate_workflows",
]

# The name that pipelines of earlier releases use.
export = export_dags
