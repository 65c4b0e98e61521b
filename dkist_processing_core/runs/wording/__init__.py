"""
Facts about runs as short texts, which the terminal and the pages of the dashboard share.

Not here: the facts themselves (events), and their places in a drawing (cli.draw) or on a page (dashboard.pages).
"""
