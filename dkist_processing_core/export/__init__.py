"""
A workflow as text: the file of a DAG, the file of a notebook, and how such files are written.

Not here: the workflow (workflow), and the code that an exported file calls in Airflow (airflow, launcher).
"""
