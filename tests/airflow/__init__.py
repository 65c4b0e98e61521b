"""
Tests with a real Airflow: they run once, from any Python, for Airflow has one of its own.
"""
