"""
Print an example of an event, to be appended to `events.jsonl`: `python -m tests.golden <example> <class> <facts>`.

The facts are JSON: the arguments of the class, in the form that `tests.golden.to_plain` returns. Not here: the
comparison of the examples with the package (test_golden).
"""

import json
import sys

from tests.golden import example_of


def main(example: str, class_name: str, facts: str) -> None:
    """Print the line of one example."""
    print(json.dumps(example_of(example, class_name, json.loads(facts))))  # noqa: T201 - its output


if __name__ == "__main__":
    main(*sys.argv[1:])
