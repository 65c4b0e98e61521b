"""
What follows from runs: pure functions, which know neither requests nor drawings.

Not here: reading the runs (collect), and showing what follows (pages).
"""
