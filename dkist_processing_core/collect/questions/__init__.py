"""
The questions that the store answers, and the answers.

Not here: the derivation of the rows from which they are answered (collect.folding).
"""
