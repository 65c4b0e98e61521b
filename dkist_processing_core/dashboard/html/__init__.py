"""
Pages as HTML for a browser: rendered as a whole or only the live parts, with the files that they load.

Not here: the values of the pages (pages), and requests (http).
"""
