"""The platform's processes as a cluster runs them: each by itself, with settings for all, no supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from tests.engines.engine import free_port

from bedplate import Client
from bedplate.databases.settings import DatabaseSettings
from bedplate_registry import tokens
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_services import migrations
from bedplate_store.database import Database as StoreDatabase

PATIENCE_SECONDS = 300.0
TOKEN = f"{tokens.SECRET_PREFIX}{'0123456789abcdef' * 4}"


@dataclass
class Process:
    """A process of the platform, and where it says whether it is ready."""

    name: str
    running: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.ready():
            assert self.running.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.2)

    def stop(self, grace_seconds: float) -> int:
        """SIGTERM, and after the grace SIGKILL; the exit status."""
        self.running.send_signal(signal.SIGTERM)
        try:
            return self.running.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.running.kill()
            return self.running.wait()


@dataclass
class Cluster:
    """One folder for objects, broker, caches and logs, and two databases."""

    folder: Path
    registry_url: str = ""
    store_url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry_url = self.registry_url or f"sqlite:///{self.folder}/registry.db"
        self.store_url = self.store_url or f"sqlite:///{self.folder}/store.db"

    @property
    def objects_url(self) -> str:
        return f"file://{self.folder}/objects"

    def prepare(self) -> None:
        """Migrated databases, and an administrator whose token is ``TOKEN``."""
        settings = DatabaseSettings(
            registry_database_url=self.registry_url, store_database_url=self.store_url
        )
        databases = migrations.open_databases(settings)
        migrations.upgrade(databases, say=lambda _line: None)
        for database in databases:
            database.close()
        registry = RegistryDatabase(self.registry_url)
        with registry.write() as session:
            tokens.bootstrap_admin(session, datetime.now(UTC), TOKEN)
        registry.close()

    def store(self) -> StoreDatabase:
        return StoreDatabase(self.store_url)

    def start(self, name: str, module: str, *arguments: str, **environment: str) -> Process:
        """Run a module of the platform; settings by their names without the prefix."""
        common = {
            "REGISTRY_DATABASE_URL": self.registry_url,
            "STORE_DATABASE_URL": self.store_url,
            "OBJECTS_URL": self.objects_url,
            "BROKER_URL": f"filesystem://{self.folder}/broker",
            "CACHE_DIR": f"{self.folder}/cache-{name}",
            "SPOOL_DIR": f"{self.folder}/spool-{name}",
            "SIGNING_KEY": "one for all",
            "TORCH_THREADS": "1",
        }
        settings = {f"BEDPLATE_{key}": value for key, value in (common | environment).items()}
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            running = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(Process(name, running, log))
        return self.processes[-1]

    def start_api(self, name: str, public_url: str = "", **environment: str) -> Process:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        process = self.start(
            name, "bedplate_services.api", PORT=str(port), PUBLIC_URL=public_url or url, **environment
        )
        process.url = url
        return process

    def client(self, url: str) -> Client:
        return Client(url, TOKEN)

    def close(self) -> None:
        for process in self.processes:
            process.running.kill()
            process.running.wait()
