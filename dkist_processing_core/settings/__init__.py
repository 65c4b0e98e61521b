"""
The parts from which the settings are made: where they come from, where a credential may go, their table in a document.

Not here: the settings themselves (config).
"""
