"""A device is tried before a process depends on it."""

from __future__ import annotations

import pytest

from bedplate_modeling.devices import exit_without


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_device_that_works_is_no_reason_to_end(device: str) -> None:
    exit_without(device)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:first"])
def test_a_device_that_is_not_there_ends_the_process_with_what_would_mend_it(device: str) -> None:
    with pytest.raises(SystemExit, match=rf"BEDPLATE_DEVICE is '{device}'.*Set BEDPLATE_DEVICE=cpu"):
        exit_without(device)
