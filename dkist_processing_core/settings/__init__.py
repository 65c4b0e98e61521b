"""
The settings: their declarations, their sources, the classes that read them, and their table in a document.

Not here: the module that pipelines import (config).
"""
