"""
Code that runs inside Airflow's own processes: the callbacks of exported DAGs.

Not here: code that a task or its launcher needs. This package imports neither Airflow nor anything beyond the standard
library before Airflow calls it.
"""
