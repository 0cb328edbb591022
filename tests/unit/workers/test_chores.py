from bedplate_workers.reconciler import Chore


class Task:
    """Counts its calls, and fails when told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.failing = False

    def __call__(self) -> None:
        self.calls += 1
        if self.failing:
            raise ConnectionError("away")


def run_at(chore: Chore, *times: float) -> None:
    for time in times:
        chore.run_if_due(time)


def test_a_chore_keeps_its_rhythm() -> None:
    task = Task()
    run_at(Chore("count", 2.0, task), 100.0, 101.9, 102.0, 103.0, 104.0)
    assert task.calls == 3


def test_a_chore_may_wait_before_its_first_time() -> None:
    task = Task()
    run_at(Chore("count", 2.0, task, first_after_seconds=60.0), 100.0, 159.9, 160.0)
    assert task.calls == 1


def test_a_failing_chore_pauses_longer_each_time_and_recovers() -> None:
    task = Task()
    chore = Chore("count", 0.2, task)
    task.failing = True
    run_at(chore, 0.0, 0.9, 1.0, 2.9, 3.0, 6.9)
    assert task.calls == 3, "at 0, then after pauses of 1 and 2 seconds; the next one is 4 seconds"
    task.failing = False
    run_at(chore, 7.0, 7.2)
    assert task.calls == 5
