"""Run every benchmark, print its figures and write them to build/bench.json: `make bench`."""

import json
from pathlib import Path

import startup


def main() -> None:
    """Measure, print, write."""
    rows = [*startup.measure()]
    target = Path("build") / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print(f"{row['name']}: {row['ours']} {row['unit']}, {row['other_name']}: {row['other']}, ratio {row['ratio']}")


if __name__ == "__main__":
    main()
