"""
The steps by which the tables of the inbox are made and changed; Alembic reads them.

Not here: running them (migrating).
"""
