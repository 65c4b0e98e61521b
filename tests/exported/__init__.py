"""The files that an export of the sample workflow writes, for Airflow and for Jupyter."""
