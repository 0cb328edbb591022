"""Who is asked for short slices, and who is left alone."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from bedplate_services.supervisor.time_slices import ask_for_short_slices


def asked() -> bool:
    """In a thread of its own: a slice is a thread's, and this one keeps what it has."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask_for_short_slices).result()


def test_a_system_that_is_not_linux_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not asked()


def test_a_processor_whose_call_is_not_known_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not asked()


def test_linux_takes_it() -> None:
    assert asked() == (sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"))
