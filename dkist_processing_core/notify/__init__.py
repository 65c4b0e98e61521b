"""
Notices to people: routes, storm control, and delivery by webhook, e-mail or command.

It needs the extra `consumer`. Not here: the process that runs it (watch), and the commands (cli.notify).
"""
