"""
Tests with a real Airflow: they run once, independent of the Python, because Airflow has a separate one.
"""
