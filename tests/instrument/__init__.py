"""
A pipeline as those of the instruments are built: settings, a base of its own for tasks, tasks, workflows.

Nothing here is a test; the tests are in test_client_contract, and run on each Python.
"""
