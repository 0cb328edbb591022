from __future__ import annotations

import json

import pytest

from bedplate.connection import resolve_connection
from bedplate.errors import InvalidRequest, Unavailable


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".bedplate").mkdir()
    document = {"url": "http://127.0.0.1:8700", "token": "written"}
    (tmp_path / ".bedplate" / "client.json").write_text(json.dumps(document))
    return tmp_path


def resolve(home, url=None, token=None, **environment):
    found = resolve_connection(url, token, environment=environment, home=home)
    return found.url, found.token


def test_arguments_win_over_the_environment_and_that_over_the_file(home):
    environment = {"BEDPLATE_URL": "http://env", "BEDPLATE_TOKEN": "env"}
    assert resolve(home, "http://arg/", "arg", **environment) == ("http://arg", "arg")
    assert resolve(home, **environment) == ("http://env", "env")
    assert resolve(home) == ("http://127.0.0.1:8700", "written")


def test_the_written_token_never_goes_to_another_platform(home):
    assert resolve(home, "http://elsewhere") == ("http://elsewhere", None)
    assert resolve(home, "http://127.0.0.1:8700/") == ("http://127.0.0.1:8700", "written")


def test_bedplate_data_says_where_the_file_is(home, tmp_path):
    assert resolve(tmp_path / "nobody", BEDPLATE_DATA=str(home / ".bedplate"))[1] == "written"


def test_without_any_platform_the_advice_is_bedplate_up(tmp_path):
    with pytest.raises(Unavailable, match="`bedplate up`"):
        resolve(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1, "token": "x"}', "{}"])
def test_a_damaged_file_is_an_error_that_names_it(home, content):
    (home / ".bedplate" / "client.json").write_text(content)
    with pytest.raises(InvalidRequest, match=r"client\.json"):
        resolve(home)


def test_a_url_needs_a_scheme(tmp_path):
    with pytest.raises(InvalidRequest, match="write it like http"):
        resolve(tmp_path, "localhost:8700", "t")


def test_the_token_is_not_printed(home):
    assert "written" not in repr(resolve_connection(None, None, environment={}, home=home))
