"""
The workflow that an exported DAG file describes.

Not here: the callbacks that the file attaches (callbacks), and the reports on the workflow's runs (_attempts, _runs).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportedWorkflow:
    """The name and the version of a workflow, its tasks in dependency order, its edges from upstream to downstream."""

    name: str
    version: str
    nodes: tuple[str, ...] = ()
    edges: tuple[tuple[str, str], ...] = ()

    @property
    def dag_id(self) -> str:
        """Airflow's name of the workflow."""
        return f"{self.name}_{self.version}"

    def is_root(self, task_name: str) -> bool:
        """Return True if a task has no upstream tasks."""
        return all(downstream != task_name for _, downstream in self.edges)
