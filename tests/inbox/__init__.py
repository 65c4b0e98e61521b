"""
Tests of the inbox, each on SQLite and on a real PostgreSQL.
"""
