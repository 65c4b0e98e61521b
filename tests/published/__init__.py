"""
Tests of pipelines published for the replaced release, on this library: they run once, on the one Python that they need.
"""
