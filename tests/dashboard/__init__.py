"""
Tests of the dashboard.
"""
