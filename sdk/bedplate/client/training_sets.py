"""Training sets: made by the platform, fetched through signed URLs, read from memory-mapped files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from bedplate.client import in_place
from bedplate.client.downloads import Progress, Wanted, fetch
from bedplate.client.effects import Request, Steps
from bedplate.client.jobs import POLL_SECONDS, watch
from bedplate.client.requests import Listing, get, get_list, parameters, path, send
from bedplate.client.steps import Namespace, RunnerT, blocking, exchange, operation
from bedplate.codecs import ARROW, decode_table
from bedplate.errors import Conflict
from bedplate.training_data import TrainingSetData
from bedplate.wire.store import Job, LogSealed, TrainingSet, TrainingSetCreate, TrainingSetFile


class Impressions(Namespace[RunnerT]):
    """The log of what was served."""

    @operation
    def seal(self) -> Steps[LogSealed]:
        """Seal what was logged up to now, so that training sets made from here on see it. For administrators.

        The platform does so by itself within some three seconds.
        """
        return send("POST", path("impressions", "seal"), None, LogSealed)


class TrainingSets(Namespace[RunnerT]):
    """Point-in-time joins of impressions, logged TAE and outcomes."""

    @operation
    def create(self, training_set: TrainingSetCreate) -> Steps[TrainingSet]:
        """Start making a training set; ``wait`` for it, then ``read`` it."""
        return send("POST", path("training-sets"), training_set, TrainingSet)

    @operation
    def get(self, training_set_id: str) -> Steps[TrainingSet]:
        """Raises NotFound."""
        return get(path("training-sets", training_set_id), TrainingSet)

    @operation
    def list(self, surface: str | None = None) -> Steps[Listing[TrainingSet]]:
        """Training sets, of one surface if given."""
        return get_list(path("training-sets"), TrainingSet, parameters(surface=surface))

    @operation
    def wait(
        self,
        training_set_id: str,
        progress: Callable[[Job], None] | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        timeout_seconds: float | None = None,
    ) -> Steps[TrainingSet]:
        """Wait until it is ready. Raises JobFailed with the reason, Unavailable after the time-out."""
        url = path("training-sets", training_set_id)
        made = yield from get(url, TrainingSet)
        if made.state != "ready":
            yield from watch(made.job, progress, poll_seconds=poll_seconds, timeout_seconds=timeout_seconds)
            made = yield from get(url, TrainingSet)
        return made

    @operation
    def files(self, training_set_id: str) -> Steps[Listing[TrainingSetFile]]:
        """The files, with signed URLs that need no token and expire. Raises Conflict while it is made."""
        return get_list(path("training-sets", training_set_id, "files"), TrainingSetFile)

    @operation
    def read(
        self,
        training_set_id: str,
        directory: str | Path | None = None,
        *,
        progress: Progress | None = None,
    ) -> Steps[TrainingSetData]:
        """Fetch the files, verify their SHA-256, and open them memory-mapped.

        Args:
            directory: where the files go and stay; files that are there already are not fetched again.
                None: they are read where they are stored if this machine sees them there, else from a
                temporary directory that lives as long as the result.
            progress: called with (file name, bytes done, bytes in all).

        Raises:
            NotFound (also of an empty one, with the reason), Conflict (not ready), DigestMismatch.
        """
        made = yield from get(path("training-sets", training_set_id), TrainingSet)
        if made.state != "ready":
            raise Conflict(
                f"Training set {made.id} is {made.state}; wait for it with training_sets.wait({made.id!r})."
            )
        files = yield from get_list(path("training-sets", training_set_id, "files"), TrainingSetFile)
        if directory is None and (yield from in_place.reachable(files)):
            yield from in_place.verified(files, self.runner.verified)
            return (yield from blocking(lambda: TrainingSetData.open(made, files)))
        temporary = (
            tempfile.TemporaryDirectory(prefix="bedplate-training-set-") if directory is None else None
        )
        target = Path(temporary.name) if temporary else Path(directory or ".")
        yield from fetch([_wanted(file, target) for file in files], progress)
        return (yield from blocking(lambda: TrainingSetData.open(made, files, target, temporary)))

    @operation
    def read_table(self, training_set_id: str, table: str) -> Steps[pa.Table]:
        """The table ``rows`` or ``requests`` through the REST API, where object storage is out of reach."""
        url = path("training-sets", training_set_id, "tables", table)
        response = yield from exchange(Request("GET", url, headers={"accept": ARROW}, idempotent=True))
        return decode_table(response.content)


def _wanted(file: TrainingSetFile, directory: Path) -> Wanted:
    # Signed: the token stays here. A relative URL is the platform's own.
    request = Request("GET", file.url, idempotent=True, authenticated=False)
    return Wanted(request, directory / Path(file.name).name, file.bytes, file.sha256)
