"""
The established failure message, as a callback of the engine, under its established path.

Versioned API: exported DAGs of the replaced release attach it from here. Not here: what it does (airflow).
"""

from dkist_processing_core.airflow.callbacks import chat_ops_notification

__all__ = ["chat_ops_notification"]
