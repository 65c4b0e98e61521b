"""
What runs inside Airflow's own processes: the callbacks of exported DAGs.

Not here: anything that a task or its launcher needs. Nothing of it imports Airflow, or more than the standard library,
before the engine calls.
"""
