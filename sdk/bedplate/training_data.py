"""A training set on disk as NumPy columns. Shape suffixes: N rows, R requests, D dimension."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.codecs import Vectors, vectors_from_arrow
from bedplate.errors import InvalidRequest, NotFound
from bedplate.wire.store import TrainingSet, TrainingSetFile

_FILE_MAGIC = b"ARROW1"


class TrainingSetData:
    """The rows and requests of a training set, memory-mapped: what is not touched costs no memory.

    Attributes:
        training_set: the document: pins, windows, counts, digest.
        rows: one labelled impression each, sorted by (served_at, request_id, position): request_index, item,
            position, label, and ``tae:core@1`` and ``prediction:core@1`` for every version.
        requests: one request each: request_index, request_id, user, served_at, history_item, history_action,
            history_age_ms.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        rows: pa.Table,
        requests: pa.Table,
        temporary: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.training_set = training_set
        self.rows = rows
        self.requests = requests
        self._temporary = temporary  # deleted with this object; the mapped files stay readable until then

    @classmethod
    def open(
        cls,
        training_set: TrainingSet,
        files: Sequence[TrainingSetFile],
        directory: Path | None = None,
        temporary: tempfile.TemporaryDirectory[str] | None = None,
    ) -> TrainingSetData:
        """Map the files, in the order of ``files``: of ``directory``, or (None) where they are stored.

        Raises:
            NotFound: the training set is empty; the detail says why.
            InvalidRequest: a table's files are missing, or one is no Arrow file.
        """
        if training_set.rows == 0:
            raise NotFound(why_empty(training_set), training_set=training_set.id)
        tables: dict[str, list[pa.Table]] = {"rows": [], "requests": []}
        for file in files:
            place = Path(file.path or "") if directory is None else directory / Path(file.name).name
            tables[file.table].append(_map(place))
        missing = [name for name, parts in tables.items() if not parts]
        if missing:
            raise InvalidRequest(f"Training set {training_set.id} has no file of the table {missing[0]!r}.")
        rows, requests = (pa.concat_tables(parts) for parts in tables.values())
        return cls(training_set, rows, requests, temporary)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @property
    def versions(self) -> list[str]:
        """The foundation versions whose TAE the rows carry, e.g. ``["core@1", "core@2"]``."""
        return [name.removeprefix("tae:") for name in self.rows.column_names if name.startswith("tae:")]

    def tae(self, version: str) -> Vectors:
        """[N, D] as logged (float16 unless the space says otherwise), bit-equal to what was served.

        The mapped file where there is one; several are copied together: see :meth:`tae_parts`.

        Raises:
            NotFound: the training set was not made with this version.
        """
        return vectors_from_arrow(self._column(f"tae:{version}"), f"tae:{version}")

    def tae_parts(self, version: str) -> list[Vectors]:
        """The same rows as :meth:`tae`, an array [n, D] for each file, mapped and not copied.

        Raises:
            NotFound: the training set was not made with this version.
        """
        name = f"tae:{version}"
        return [vectors_from_arrow(pa.chunked_array([chunk]), name) for chunk in self._column(name).chunks]

    def predictions(self, version: str) -> NDArray[np.float32]:
        """float32 [N], the foundation's own probability of the main task. Raises NotFound."""
        values: NDArray[np.float32] = self._column(f"prediction:{version}").to_numpy()
        return values

    @property
    def labels(self) -> NDArray[np.float32]:
        """float32 [N]."""
        values: NDArray[np.float32] = self.rows.column("label").to_numpy()
        return values

    @property
    def request_index(self) -> NDArray[np.int64]:
        """int64 [N]: which row of ``requests`` each row belongs to."""
        values: NDArray[np.int64] = self.rows.column("request_index").to_numpy()
        return values

    def batches(self, rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """The rows in order, at most ``rows`` at a time, without reading more than each batch needs."""
        yield from self.rows.to_batches(max_chunksize=rows)

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.rows.column_names:
            raise NotFound(
                f"Training set {self.training_set.id} has no column {name!r}; it was made with "
                f"{', '.join(self.versions) or 'no version'}."
            )
        return self.rows.column(name)


def why_empty(training_set: TrainingSet) -> str:
    """What a training set of no rows has left out, and what would help."""
    made = training_set
    window = f"from {made.window_start.isoformat()} to {made.window_end.isoformat()}"
    versions = " and ".join(made.versions)
    reasons = []
    if made.incomplete:
        reasons.append(
            f"{made.incomplete:,} impressions were logged without the TAE of {versions} together: begin the "
            "window after all of them were active, or name fewer versions"
        )
    if made.unlabelled:
        reasons.append(
            f"{made.unlabelled:,} impressions have no outcome of task {made.task!r}: record outcomes first"
        )
    if not reasons:
        reasons.append(f"no impression of {made.surface!r} was logged {window}: choose another window")
    return f"Training set {made.id} holds no row: {'; '.join(reasons)}. Then make another one."


def _map(file: Path) -> pa.Table:
    source = pa.memory_map(str(file))
    is_file = source.size() >= len(_FILE_MAGIC) and source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
    source.seek(0)
    try:
        return pa.ipc.open_file(source).read_all() if is_file else pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid as error:
        raise InvalidRequest(f"{file} is not an Arrow file: {error}.") from error
