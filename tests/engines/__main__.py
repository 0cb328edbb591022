"""``python -m tests.engines``: which engines and tools there are here, and what installs the others."""

from __future__ import annotations

import argparse
import sys

from tests.engines import ENGINES, TOOLS, Absent, CpuTorch, Tool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    parser.add_argument("--names", action="store_true", help="only those that are there, for make")
    options = parser.parse_args()
    found = {
        **{name: engine.where() or engine.absent() for name, engine in ENGINES.items()},
        **{name: _found(tool) for name, tool in TOOLS.items()},
    }
    if options.names:
        print(",".join(name for name, place in found.items() if not isinstance(place, Absent)))
        return 0
    for name, place in found.items():
        print(f"{name:<12} {place}")
    return 0


def _found(tool: Tool | CpuTorch) -> object:
    try:
        return tool.find()
    except Absent as absent:
        return absent


if __name__ == "__main__":
    sys.exit(main())
