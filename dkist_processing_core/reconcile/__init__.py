"""
Reconciliation: the ends of runs that no callback of Airflow reported, found by Airflow's REST API and published.

Not here: the command that calls it (cli.reconcile).
"""
