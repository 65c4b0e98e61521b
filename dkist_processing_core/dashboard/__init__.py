"""
The dashboard: pages about runs and the bus, rendered from the store of runs and kept live.

A request passes from `http` through `app` to a page of `pages` or an endpoint of `api`, which asks the `site` and gives
values; `html` renders a page and keeps it live. Not here: keeping the store and asking it (collect), and the command
(cli.dashboard).
"""
