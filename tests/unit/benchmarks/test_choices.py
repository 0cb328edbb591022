"""Names on a command line of the benchmarks."""

from __future__ import annotations

import pytest
import typer
from benchmarks.choices import among


def test_none_means_all_and_names_keep_the_order_they_are_known_in() -> None:
    check = among(["lookup", "search", "swap"], "benchmark")
    assert check(None) == check([]) == ["lookup", "search", "swap"]
    assert check(["swap", "lookup", "swap"]) == ["lookup", "swap"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(typer.BadParameter, match="no peer is called 'chorma'; there are chroma, feast"):
        among(["chroma", "feast"], "peer")(["feast", "chorma"])
