"""
The watcher: what is not reported, such as an attempt without a sign of life, or an expected run that did not begin.

Not here: asking the engine about missing ends, and notices for people.
"""
