"""
Tests of consumers that act on events: their handlers, their threads, and their ends at any moment.
"""
