"""
The command `dkist-core dashboard`.
"""
