"""
The established failure message as a callback of the engine, at its established import path.

Versioned API: exported DAGs of the replaced release import it from here. Not here: its implementation (airflow).
"""

from dkist_processing_core.airflow.callbacks import chat_ops_notification

__all__ = ["chat_ops_notification"]
