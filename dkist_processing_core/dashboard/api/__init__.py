"""
The answers of the dashboard for programs, as JSON, and the OpenAPI document about them.

Not here: the pages for people (dashboard.pages).
"""
