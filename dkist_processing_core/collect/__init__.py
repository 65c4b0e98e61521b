"""
The store of runs: every report is folded into it, and questions about runs are answered from it.

It needs the extra `consumer`. Not here: the fold of the reports on one run (runs), and the commands (cli.store).
"""
