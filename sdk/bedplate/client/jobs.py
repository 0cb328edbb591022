"""Jobs: long work the platform does by itself."""

from __future__ import annotations

from collections.abc import Callable

from bedplate.client.effects import Pause, Steps
from bedplate.client.requests import Listing, get, get_list, parameters, path, send
from bedplate.client.steps import Namespace, RunnerT, operation
from bedplate.errors import JobFailed, Unavailable
from bedplate.wire.store import Job, JobState

POLL_SECONDS = 0.5


def watch(
    job_id: str,
    progress: Callable[[Job], None] | None = None,
    *,
    poll_seconds: float = POLL_SECONDS,
    timeout_seconds: float | None = None,
) -> Steps[Job]:
    """Poll a job until it ends. Raises JobFailed, Unavailable (still running after the time-out)."""
    waited = 0.0
    while True:
        job = yield from get(path("jobs", job_id), Job)
        if progress:
            progress(job)
        if job.state == "succeeded":
            return job
        if job.state in ("failed", "cancelled"):
            raise _failed(job)
        if timeout_seconds is not None and waited >= timeout_seconds:
            raise Unavailable(
                f"Job {job.id} ({job.kind} of {job.subject}) is still {job.state} after {waited:.0f} s; it "
                f"goes on by itself. Look again with `bedplate jobs watch {job.id}`."
            )
        yield Pause(poll_seconds)
        waited += poll_seconds


def _failed(job: Job) -> JobFailed:
    reason = job.error or ("somebody cancelled it" if job.state == "cancelled" else "no reason was recorded")
    what = "was cancelled" if job.state == "cancelled" else f"failed after {job.attempts} attempts"
    return JobFailed(
        f"Job {job.id} ({job.kind} of {job.subject}) {what}: {reason}",
        job=job.id,
        state=job.state,
    )


class Jobs(Namespace[RunnerT]):
    """What the platform is doing."""

    @operation
    def list(
        self,
        state: JobState | None = None,
        *,
        kind: str | None = None,
        subject: str | None = None,
        limit: int | None = None,
    ) -> Steps[Listing[Job]]:
        """The latest ``limit`` jobs (None: 100), newest first; of one state, kind or subject if given."""
        return get_list(path("jobs"), Job, parameters(state=state, kind=kind, subject=subject, limit=limit))

    @operation
    def get(self, job_id: str) -> Steps[Job]:
        """Raises NotFound."""
        return get(path("jobs", job_id), Job)

    @operation
    def cancel(self, job_id: str) -> Steps[Job]:
        """Stop a job. Raises NotFound, Conflict (it has ended)."""
        return send("POST", path("jobs", job_id, "cancel"), None, Job)

    @operation
    def watch(
        self,
        job_id: str,
        progress: Callable[[Job], None] | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        timeout_seconds: float | None = None,
    ) -> Steps[Job]:
        """Wait until the job ends; ``progress`` is called with its document at every poll.

        Raises:
            JobFailed: it failed, with the reason, or was cancelled.
            Unavailable: it still runs after ``timeout_seconds``; the job goes on.
        """
        return watch(job_id, progress, poll_seconds=poll_seconds, timeout_seconds=timeout_seconds)
