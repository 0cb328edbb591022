from bedplate_services.supervisor.children import RestartPolicy


def test_each_crash_waits_twice_as_long_up_to_a_maximum() -> None:
    policy = RestartPolicy(crashes_max=10, window_seconds=1000, backoff_seconds=0.5, backoff_max_seconds=2.0)
    assert [policy.crashed(float(at)) for at in range(4)] == [0.5, 1.0, 2.0, 2.0]


def test_too_many_crashes_within_the_window_mean_to_give_up() -> None:
    policy = RestartPolicy(crashes_max=3, window_seconds=60)
    assert policy.crashed(0.0) is not None
    assert policy.crashed(10.0) is not None
    assert policy.crashed(20.0) is None


def test_old_crashes_are_forgotten() -> None:
    policy = RestartPolicy(crashes_max=3, window_seconds=60, backoff_seconds=0.5)
    policy.crashed(0.0)
    policy.crashed(50.0)
    assert policy.crashed(61.0) == 1.0, "the first crash is out of the window: only two count"
