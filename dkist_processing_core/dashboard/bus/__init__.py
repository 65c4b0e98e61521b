"""
The bus as the dashboard sees it: its state, read every few seconds, and its dead letters.

Not here: the page about it (pages.bus).
"""
