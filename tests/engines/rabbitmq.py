"""RabbitMQ: virtual hosts of one's own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amqp
from kombu.connection import Connection
from tests.engines.engine import Engine, PrivateServer, free_port

_DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on PATH insists on the system's own server
_VIRTUAL_HOSTS = [f"tests-{number}" for number in range(8)]
_NOT_READY = (OSError, amqp.AMQPError)


class RabbitMQ(Engine):
    """A private one closes channels that do not acknowledge a message within ``acknowledge_seconds``."""

    name = "rabbitmq"
    variable = "BEDPLATE_TEST_RABBITMQ"
    install = "apt-get install rabbitmq-server"

    def __init__(self, private: bool = False, acknowledge_seconds: float = 1800) -> None:
        super().__init__(private)
        self._epmd: PrivateServer | None = None
        self._acknowledge_seconds = acknowledge_seconds
        self._free = list(_VIRTUAL_HOSTS)
        self._port = 0

    @classmethod
    def binary(cls) -> str | None:
        return str(_DEBIAN) if _DEBIAN.exists() else shutil.which("rabbitmq-server")

    def start(self) -> None:
        place = self._found()
        if "://" in place:
            return
        self._port, names, distribution = free_port(), free_port(), free_port()
        self._epmd = PrivateServer("epmd", lambda: None, OSError)
        self._epmd.start(["epmd", "-address", "127.0.0.1", "-port", str(names)])
        self._server = PrivateServer("rabbitmq", self._connect_once, _NOT_READY)
        folder = self._server.folder
        self._write_configuration(folder)
        self._command = [place]
        self._environment = {
            "HOME": str(folder),  # of the Erlang cookie
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": f"bedplate-{self._port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            # Its schedulers do not spin while they wait.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }
        self._server.start(self._command, self._environment)

    def stop(self) -> None:
        super().stop()
        if self._epmd is not None:
            self._epmd.remove()

    def kill(self) -> None:
        """kill -9 of the private server."""
        self._private.kill()

    def empty(self) -> None:
        """Remove all that the killed server had."""
        shutil.rmtree(self._private.folder / "data")

    def restart(self) -> None:
        """Start the killed server again, at the same address."""
        self._private.start(self._command, self._environment)

    @contextmanager
    def virtual_host(self) -> Iterator[str]:
        """``amqp://`` URL of a virtual host that nobody else uses. The one that BEDPLATE_TEST_RABBITMQ names
        is taken as a whole: its queues ``cpu`` and ``gpu`` go.
        """
        name = self._free.pop()
        own = f"amqp://guest:guest@127.0.0.1:{self._port}/{name}"
        url = os.environ[self.variable] if self._server is None else own
        _delete_queues(url)
        yield url
        self._free.append(name)

    def _connect_once(self) -> None:
        with amqp.Connection(f"127.0.0.1:{self._port}", virtual_host=_VIRTUAL_HOSTS[-1], connect_timeout=5):
            pass

    def _write_configuration(self, folder: Path) -> None:
        (folder / "plugins").write_text("[].\n")
        (folder / "definitions.json").write_text(json.dumps(_definitions()))
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self._port}\n"
            f"consumer_timeout = {int(self._acknowledge_seconds * 1000)}\n"
            f"load_definitions = {folder / 'definitions.json'}\n"
        )
        (folder / "advanced.config").write_text("[{rabbit, [{channel_tick_interval, 1000}]}].\n")


def _definitions() -> dict[str, Any]:
    """The user guest and all virtual hosts, there from the first start."""
    salt = b"salt"
    hashed = base64.b64encode(salt + hashlib.sha256(salt + b"guest").digest()).decode()
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [{"name": "guest", "password_hash": hashed, "tags": "administrator"}],
        "vhosts": [{"name": name} for name in _VIRTUAL_HOSTS],
        "permissions": [{"user": "guest", "vhost": name, **everything} for name in _VIRTUAL_HOSTS],
    }


def _delete_queues(url: str) -> None:
    with Connection(url) as connection:  # type: ignore[no-untyped-call]  # kombu is typed in part
        for queue in ("cpu", "gpu"):
            connection.default_channel.queue_delete(queue)
