"""
The tests of the library.

A package, so that a test imports shared code as ``tests.services``, independent of the command that starts pytest.
"""
