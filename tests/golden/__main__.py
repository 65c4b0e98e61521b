"""
Print an example of an event, to be appended to `events.jsonl`: `python -m tests.golden NAME BASE FACTS`.

NAME is the name of the new example. BASE is the name of a recorded example, whose facts it gets, or a class of events.
FACTS are further arguments of the class, a JSON object in the form that `tests.golden.to_plain` returns. Not here: the
comparison of the examples with the package (test_golden).
"""

import json
import sys

from tests.golden import example_of, examples


def main(name: str, base: str, facts: str) -> None:
    """Print the line of one example."""
    recorded = {row["example"]: row for row in examples("events.jsonl")}
    if base in recorded:
        example = example_of(name, recorded[base]["class"], recorded[base]["given"] | json.loads(facts))
    else:
        example = example_of(name, base, json.loads(facts))
    print(json.dumps(example))  # noqa: T201 - its output


if __name__ == "__main__":
    main(*sys.argv[1:])
