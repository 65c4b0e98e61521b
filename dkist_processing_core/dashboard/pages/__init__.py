"""
The pages, one in each module: a function of what was asked that returns the values for a template.
"""
