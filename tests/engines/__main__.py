"""``python -m tests.engines``: which engines this machine has, and what would install the others."""

from __future__ import annotations

import argparse
import sys

from tests.engines import ENGINES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    parser.add_argument("--names", action="store_true", help="only those that are there, for make")
    options = parser.parse_args()
    found = {name: engine.where() for name, engine in ENGINES.items()}
    if options.names:
        print(",".join(name for name, place in found.items() if place))
        return 0
    for name, place in found.items():
        print(f"{name:<12} {place or ENGINES[name].absent()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
