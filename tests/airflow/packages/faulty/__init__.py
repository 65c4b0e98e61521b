"""
A pipeline whose tasks end in every way that an engine has for it; the tests make a release of it.
"""
