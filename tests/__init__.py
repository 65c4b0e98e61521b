"""
The tests of the library.

A package, so that a test imports what it shares as ``tests.services``, by whichever command pytest is started.
"""
