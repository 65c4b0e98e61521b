"""
A workflow as text: the file of a DAG, the file of a notebook, and how such files are written.

Not here: the workflow (workflow), and what an exported file calls when the engine runs it (airflow, launcher).
"""
