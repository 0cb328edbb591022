"""``python -m bedplate_workers.alive``: exit status 0 while the worker or reconciler beside it is well.

For liveness probes, every few seconds: it looks at one file's time and imports nothing of the platform.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "BEDPLATE_HEARTBEAT_FILE"
_EXAMPLE = f"""
example:
  {VARIABLE}=/tmp/heartbeat python -m bedplate_workers.alive --max-age-seconds 60
"""


def main(arguments: Sequence[str]) -> int:
    """0: well, 1: not, 2: nobody said where to look."""
    parser = argparse.ArgumentParser(
        prog="python -m bedplate_workers.alive",
        description=f"Exit status 0 while the process that beats in ${VARIABLE} is well.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--max-age-seconds",
        type=float,
        default=60.0,
        help="how old its last beat may be; default: %(default)g",
    )
    options = parser.parse_args(arguments)
    name = os.environ.get(VARIABLE)
    if not name:
        print(f"Set {VARIABLE}, here and for the process, to the file that it beats in.", file=sys.stderr)
        return 2
    try:
        age = time.time() - Path(name).stat().st_mtime
    except FileNotFoundError:
        print(f"{name} is not there: the process has not begun to work.", file=sys.stderr)
        return 1
    if age > options.max_age_seconds:
        print(
            f"the last beat in {name} is {age:.0f} s old; {options.max_age_seconds:g} s are allowed",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
