"""
A pipeline like those of the instruments: settings, a base class for tasks, tasks, workflows.

The tests of it are in test_client_contract, and run on each Python.
"""
