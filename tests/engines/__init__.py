"""The real servers that tests run on: each is found or started once in a session, and hands out places.

An engine is the server that its ``BEDPLATE_TEST_...`` variable names, else a private one, started from the
binaries of this machine in a temporary directory on a free port; PostgreSQL also at its usual address. Places
(databases, virtual hosts, buckets) belong to who asked, and are removed when they are done with.
``python -m tests.engines`` tells which engines and tools are there, and what would install the rest.
"""

from tests.engines.engine import Absent, Engine
from tests.engines.postgresql import PostgreSQL
from tests.engines.rabbitmq import RabbitMQ
from tests.engines.redis import Redis
from tests.engines.s3 import S3
from tests.engines.tools import CPU_TORCH, GPU, PG_DUMP, PROMTOOL, TOOLS, CpuTorch, Tool

ENGINES: dict[str, type[Engine]] = {each.name: each for each in (PostgreSQL, Redis, RabbitMQ, S3)}

__all__ = [
    "CPU_TORCH",
    "ENGINES",
    "GPU",
    "PG_DUMP",
    "PROMTOOL",
    "S3",
    "TOOLS",
    "Absent",
    "CpuTorch",
    "Engine",
    "PostgreSQL",
    "RabbitMQ",
    "Redis",
    "Tool",
]
