"""A platform that answers from a table of routes, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from bedplate import AsyncClient, Client, cli
from bedplate.cli.options import Session

Answer = httpx.Response | Callable[[httpx.Request], httpx.Response]
URL = "http://platform.test"
CREATED = "2026-11-22T10:00:00Z"


@dataclass
class FakePlatform:
    """Answers requests from ``routes`` ("GET /v1/teams"); a list of answers is used up one by one.

    Attributes:
        requests: what was asked, in order.
        slept: seconds the client would have waited.
    """

    routes: dict[str, Answer | list[Answer | Exception]] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def on(self, route: str, *answers: Answer | Exception) -> None:
        self.routes[route] = list(answers)

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        route = f"{request.method} {request.url.path}"
        answers = self.routes.get(route)
        if not answers:
            return problem(404, "not_found", f"There is no {route}.")
        answer: Any = answers
        if isinstance(answers, list):
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(request)
        # An answer can be given once: httpx binds it to its request.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def client(self, token: str | None = "secret") -> Client:
        return Client(
            URL,
            token,
            transport=httpx.MockTransport(self.handle),
            sleep=self.slept.append,
            environment={},
        )

    def async_client(self) -> AsyncClient:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            await asyncio.sleep(0)

        return AsyncClient(
            URL, "secret", transport=httpx.MockTransport(self.handle), sleep=sleep, environment={}
        )

    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


def problem(status: int, code: str, detail: str, **context: Any) -> httpx.Response:
    document = {"type": f"urn:bedplate:problem:{code}", "title": code, "status": status, "detail": detail}
    document |= {"code": code, "request_id": "from-body", **context}
    headers = {"content-type": "application/problem+json", "x-request-id": "from-header"}
    return httpx.Response(status, json=document, headers=headers)


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def client(platform: FakePlatform) -> Iterator[Client]:
    with platform.client() as opened:
        yield opened


@pytest.fixture
def run(platform, capsys):
    """Run a command against the fake platform; gives (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        session = Session(connect=lambda _url, _token: platform.client())
        code = cli.run(arguments, session)
        return code, *capsys.readouterr()

    return call
