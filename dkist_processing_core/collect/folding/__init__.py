"""
What is derived of the reports on a run: its rows, and what it adds to the totals and the tallies.

Not here: reading the reports (collect.reports), and when it takes place (collect.store, collect.prompt).
"""
