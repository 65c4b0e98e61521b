"""
The callback that publishes the failure message, at the import path of release 7.x.

Versioned API: exported DAGs of the replaced release import it from here. Not here: its implementation (airflow).
"""

from dkist_processing_core.airflow.callbacks import chat_ops_notification

__all__ = ["chat_ops_notification"]
