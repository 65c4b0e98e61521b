"""
The server's side of a request: connections, checks, who requests and what they may do, forms, errors, health.

Not here: the pages as HTML (html), the programs' interface (api), and which path leads where (app).
"""
