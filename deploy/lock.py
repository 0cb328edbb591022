"""``make locks``: write deploy/locks/*.txt, every package of an image with its version and its files' hashes.

    python deploy/lock.py                           # keeps versions that still satisfy pyproject.toml
    python deploy/lock.py --upgrade                 # the newest that do
    python deploy/lock.py --torch-wheels some/dir   # PyTorch's CPU build from a folder, not from its index

It runs uv, of the extra ``dev``. The images are for CPython 3.11 on Linux on x86-64, and so are the locks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "deploy" / "locks"
EXTRAS = {
    "api": ("server", "otel", "index"),
    "cpu": ("server", "otel", "cpu"),
    "gpu": ("server", "otel", "gpu"),
}
"""Of each lock of images: the extras of pyproject.toml that they hold."""
BUILD = "build"
"""The lock of the tools that build the wheel and install the others."""


def build_requirements() -> list[str]:
    """What images are built with: pyproject.toml's build system, and uv as its extra ``dev`` has it."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    development = document["project"]["optional-dependencies"]["dev"]
    [uv] = [text for text in development if text.partition(">")[0] == "uv"]
    return [*document["build-system"]["requires"], uv]


def lock(name: str, arguments: list[str]) -> None:
    """Write one lock, keeping what it holds where that is still good.

    Raises:
        subprocess.CalledProcessError: uv found no solution; it said why.
    """
    wanted = "the build system, uv" if name == BUILD else ", ".join(EXTRAS[name])
    source = [f"--extra={extra}" for extra in EXTRAS.get(name, ())]
    path = LOCKS / f"{name}.txt"
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header"),
        *("--no-emit-index-url", "--no-emit-find-links"),
        *("--python-version=3.11", "--python-platform=x86_64-manylinux_2_28"),
        *([*source, "pyproject.toml"] if source else ["-"]),
        *(f"--output-file={path}", *arguments),
    ]
    subprocess.run(command, cwd=ROOT, check=True, text=True, input="\n".join(build_requirements()))
    header = (
        f"# Written by `make locks` from pyproject.toml ({wanted}) for CPython 3.11 on Linux on x86-64.\n"
    )
    path.write_text(header + path.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--upgrade", action="store_true", help="the newest versions that pyproject.toml allows"
    )
    parser.add_argument("--torch-wheels", type=Path, help="a folder with PyTorch's CPU build for Linux")
    options = parser.parse_args()
    common = ["--upgrade"] if options.upgrade else []
    cpu = [f"--find-links={options.torch_wheels}"] if options.torch_wheels else ["--torch-backend=cpu"]
    for name in (BUILD, *EXTRAS):
        lock(name, [*common, *(cpu if name == "cpu" else [])])
    return 0


if __name__ == "__main__":
    sys.exit(main())
