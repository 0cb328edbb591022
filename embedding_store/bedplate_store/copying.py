"""``python -m bedplate_store.copying``: copies the objects that a target lacks, for backups and moves.

Objects never change under their keys, so what is there already need not be copied again: a second copy takes
as long as what came since.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bedplate.errors import BedplateError, NotFound
from bedplate_store.objects import ObjectStore, open_object_store

EXAMPLE = """
example:
  export BEDPLATE_S3_ACCESS_KEY=... BEDPLATE_S3_SECRET_KEY=...
  python -m bedplate_store.copying 's3://bedplate?endpoint=https://s3.example.com' file:///backup/objects

Both keys and BEDPLATE_S3_REGION are used for whichever side is a bucket. Between buckets of different owners
the object store's own tools do as well: they must copy every object, and delete none at the target.
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did.

    Attributes:
        objects, bytes: that the target lacked.
        present: objects that it had, with as many bytes.
        gone: objects that were listed and deleted before their turn came: nobody referred to them any more.
    """

    objects: int
    bytes: int
    present: int
    gone: int


def copy_missing(source: ObjectStore, target: ObjectStore) -> Copied:
    """Copy every object of ``source`` that ``target`` lacks or has with another size.

    Raises:
        Unavailable, StorageFull: one side fails; what was copied stays, and another call goes on from there.
    """
    objects = bytes_ = present = gone = 0
    with tempfile.TemporaryDirectory(prefix="bedplate-copy-") as folder:
        for key in source.list(""):
            size = source.size(key)
            if size is not None and target.size(key) == size:
                present += 1
                continue
            try:
                path = source.local_path(key) or _fetched(source, key, Path(folder))
                bytes_ += path.stat().st_size
                target.put_file(key, path)
            except (NotFound, FileNotFoundError):
                gone += 1
                continue
            objects += 1
    return Copied(objects, bytes_, present, gone)


def _fetched(source: ObjectStore, key: str, folder: Path) -> Path:
    path = folder / "object"
    source.get_file(key, path)
    return path


def main(arguments: Sequence[str]) -> int:
    """Copy, and tell what was copied."""
    parser = argparse.ArgumentParser(
        prog="python -m bedplate_store.copying",
        description="Copy the objects that the target lacks; nothing is deleted or replaced on either side.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", help="URL as BEDPLATE_OBJECTS_URL: s3://bucket/prefix?endpoint=... or file:///dir"
    )
    parser.add_argument("target", help="likewise")
    options = parser.parse_args(arguments)
    try:
        copied = copy_missing(_opened(options.source), _opened(options.target))
    except BedplateError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        return 1
    print(
        f"{copied.objects} objects copied ({copied.bytes} bytes), {copied.present} were there, "
        f"{copied.gone} were deleted meanwhile"
    )
    return 0


def _opened(url: str) -> ObjectStore:
    return open_object_store(
        url,
        access_key=os.environ.get("BEDPLATE_S3_ACCESS_KEY"),
        secret_key=os.environ.get("BEDPLATE_S3_SECRET_KEY"),
        region=os.environ.get("BEDPLATE_S3_REGION"),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
