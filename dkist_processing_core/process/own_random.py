"""
Random numbers that change nothing for the author's code: a task that seeds `random` gets its own sequence.

Not here: random ids (sources).
"""

import random

own_random = random.SystemRandom()
"""Its numbers come from the kernel, so forks differ as well."""
