"""
The reports that the store keeps: as they arrive, packed, and decoded.

Not here: what is derived of them (collect.folding).
"""
