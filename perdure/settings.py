"""What can be set from outside, each by an environment variable ``PERDURE_<NAME>`` or ``.env``.

The defaults suit ``perdure dev``; production sets at least the database, the artifacts
and Temporal's address.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Settings of a worker, the command line and the gateway."""

    model_config = SettingsConfigDict(
        env_prefix="PERDURE_", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    database_url: str = "sqlite:///.perdure/perdure.db"
    """``sqlite:///path``, ``sqlite://`` (in memory) or ``postgresql://user:password@host/database``."""
    artifacts_url: str = "file://.perdure/artifacts"
    """Any fsspec URL: ``file://``, ``s3://bucket/prefix``, ``gs://``, ``memory://``."""
    temporal_address: str = "127.0.0.1:7233"
    """``host:port`` of Temporal's frontend."""
    temporal_namespace: str = "default"
    """The Temporal namespace that sessions live in."""
    temporal_api_key: SecretStr | None = None
    """The API key for Temporal Cloud; it needs ``temporal_tls``."""
    temporal_tls: bool = False
    """Whether Temporal is spoken to over TLS."""
    task_queue: str = "perdure"
    """The task queue that workers poll and clients send to."""
    agents: tuple[str, ...] = ()
    """Module paths or files that define agents; a JSON list in the environment."""

    pool_size: int = Field(default=5, ge=1)
    """Database connections that a process keeps open."""
    max_overflow: int = Field(default=10, ge=0)
    """Connections it may open beyond those when it is busy."""
    pool_idle_timeout: float = Field(default=1800, gt=0)
    """Seconds after which an idle database connection is replaced."""
    pool_pre_ping: bool = True
    """Whether a connection that rested is tried before it is used."""
    sqlite_synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """FULL survives a power cut; NORMAL is faster and survives the death of a process."""

    gemini_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("PERDURE_GEMINI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
    )
    """The key for the Gemini API; ``GEMINI_API_KEY`` and ``GOOGLE_API_KEY`` are read too."""
    model_base_url: str | None = None
    """Where the Gemini API is; None means Google's own."""

    max_concurrent_model_calls: int = Field(default=64, ge=1)
    """Model calls that one worker runs at once; more than that wait."""
    max_concurrent_tools: int = Field(default=64, ge=1)
    """Tool calls that one worker runs at once."""
    graceful_shutdown: float = Field(default=20, ge=0)
    """Seconds that running activities get to finish when the worker is asked to stop."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What a worker writes to stderr."""
