"""
The geometry of the pages' drawings: pure functions that return coordinates, which the templates draw.
"""
