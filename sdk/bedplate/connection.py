"""Where the platform is and who we are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bedplate.errors import InvalidRequest, Unavailable

_ADVICE = (
    "Start one on this machine with `bedplate up`, or set BEDPLATE_URL and BEDPLATE_TOKEN "
    "(or --url and --token)."
)


@dataclass(frozen=True, slots=True)
class Connection:
    """The URL of the platform's API, without a trailing slash, and the token that goes with every request."""

    url: str
    token: str | None = field(default=None, repr=False)


def data_directory(environment: Mapping[str, str], home: Path) -> Path:
    """Where ``bedplate up`` keeps everything unless told otherwise."""
    configured = environment.get("BEDPLATE_DATA")
    return Path(configured).expanduser() if configured else home / ".bedplate"


def resolve_connection(
    url: str | None, token: str | None, *, environment: Mapping[str, str], home: Path
) -> Connection:
    """Arguments first, then BEDPLATE_URL and BEDPLATE_TOKEN, then the ``client.json`` of ``bedplate up``.

    The token in ``client.json`` is only ever used for the URL written beside it.

    Raises:
        Unavailable: no platform is configured.
        InvalidRequest: the URL is no http(s) URL, or ``client.json`` cannot be read.
    """
    url = url or environment.get("BEDPLATE_URL") or None
    token = token or environment.get("BEDPLATE_TOKEN") or None
    if url is None or token is None:
        file = data_directory(environment, home) / "client.json"
        written = _read(file) if file.is_file() else None
        if url is None:
            if written is None:
                raise Unavailable(f"No platform is configured, and there is no {file}. {_ADVICE}")
            url = written.url
        if token is None and written is not None and written.url == url.rstrip("/"):
            token = written.token
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"{url!r} is not a URL: write it like http://127.0.0.1:8700.")
    return Connection(url.rstrip("/"), token)


def _read(file: Path) -> Connection:
    try:
        document = json.loads(file.read_text())
        url, token = document["url"], document.get("token")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(
            f"{file} cannot be read ({type(error).__name__}: {error}). `bedplate up` writes it anew."
        ) from error
    if not isinstance(url, str) or not isinstance(token, str | None):
        raise InvalidRequest(f"{file} holds no url and token. `bedplate up` writes it anew.")
    return Connection(url.rstrip("/"), token)
