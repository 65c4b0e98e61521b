"""
Pipelines as published for the replaced release, held on this library: they run once, on the one Python that they need.
"""
