"""
A pipeline whose tasks end in every way that Airflow distinguishes; the tests build a release of it.
"""
