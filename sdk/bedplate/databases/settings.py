"""The settings of every process that opens the two databases."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from bedplate.databases.limits import Limits


class DatabaseSettings(BaseSettings):
    """Read from the environment (prefix ``BEDPLATE_``); see :class:`bedplate.databases.Limits`.

    Attributes:
        registry_database_url, store_database_url: ``sqlite:////path`` or ``postgresql+psycopg://``.
    """

    model_config = SettingsConfigDict(env_prefix="BEDPLATE_", frozen=True, extra="ignore")

    registry_database_url: str
    store_database_url: str
    database_pool_size: int = Field(default=5, ge=1)
    database_pool_overflow: int = Field(default=10, ge=0)
    database_pool_seconds: float = Field(default=10, gt=0)
    database_connect_seconds: float = Field(default=5, gt=0)
    database_statement_seconds: float = Field(default=60, ge=0)
    database_lock_seconds: float = Field(default=30, ge=0)
    database_idle_in_transaction_seconds: float = Field(default=120, ge=0)
    database_recycle_seconds: float = Field(default=1800, gt=0)

    @property
    def database_limits(self) -> Limits:
        return Limits(
            pool_size=self.database_pool_size,
            pool_overflow=self.database_pool_overflow,
            pool_seconds=self.database_pool_seconds,
            connect_seconds=self.database_connect_seconds,
            statement_seconds=self.database_statement_seconds,
            lock_seconds=self.database_lock_seconds,
            idle_in_transaction_seconds=self.database_idle_in_transaction_seconds,
            recycle_seconds=self.database_recycle_seconds,
        )
