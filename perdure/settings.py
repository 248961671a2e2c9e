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
    """The API key for Temporal Cloud; it needs ``PERDURE_TEMPORAL_TLS``."""
    temporal_tls: bool = False
    """Whether Temporal is spoken to over TLS."""
    codec_keys: SecretStr | None = None
    """Keys that encrypt what Temporal stores, ``id:base64`` of 32 bytes each, separated by commas: the
    first encrypts, all decrypt. None leaves it readable."""
    task_queue: str = "perdure"
    """The task queue that workers poll and clients send to."""
    tools_only: bool = False
    """Whether a worker runs tools only: those whose ``task_queue`` is the one that it polls."""
    deployment: str | None = Field(default=None, pattern=r"^[^.:\s]+$")
    """The name of the Worker Deployment that a worker is a version of, without dots; None for a worker
    without versions, which serves every session."""
    build_id: str | None = Field(default=None, min_length=1)
    """Which version of it, or just what the Temporal UI shows; None means the release of Perdure."""
    agents: tuple[str, ...] = ()
    """Module paths or files that define agents; a JSON list in the environment."""

    pool_size: int = Field(default=10, ge=1)
    """Database connections that a process keeps open."""
    max_overflow: int = Field(default=5, ge=0)
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
    max_cached_workflows: int = Field(default=1000, ge=1)
    """Sessions that one worker keeps in memory; others are replayed from their history when they go on."""
    context_cache: int = Field(default=64, ge=0)
    """Megabytes, about, of conversations that one worker remembers between model calls; 0 for none."""
    media_cache: int = Field(default=64, ge=0)
    """Megabytes of pictures and other media that one worker remembers between model calls; 0 for none."""
    graceful_shutdown: float = Field(default=20, ge=0)
    """Seconds that running activities get to finish when the worker is asked to stop."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What a worker writes to stderr."""
    log_content: bool = False
    """Whether a worker's log may quote what users, models and tools said; else errors are logged
    without their words."""
    health_address: str | None = None
    """``host:port`` at which a worker answers ``/healthz`` and ``/livez``; None for no such probe."""

    gateway_address: str | None = None
    """``host:port`` at which a worker, or ``perdure serve``, answers HTTP; None: no gateway in a worker."""
    gateway_auth: Literal["tokens", "none"] = "tokens"
    """``none`` lets in whoever reaches the gateway, which then listens to this machine only."""
    gateway_hosts: tuple[str, ...] = ()
    """Values of ``Host`` that are answered, without port; a JSON list. None at all: any, but at a
    loopback address only its own."""
    gateway_origins: tuple[str, ...] = ()
    """Origins of pages that may ask, such as ``https://app.example.com``; a JSON list."""
    gateway_rate: float = Field(default=50, gt=0)
    """Requests a second that a token may send in the long run."""
    gateway_burst: int = Field(default=200, ge=1)
    """Requests that it may send at once, after a rest."""
    gateway_body_limit: int = Field(default=32_000_000, ge=1)
    """Bytes of a request's body, uploads of artifacts aside."""
    gateway_upload_limit: int = Field(default=5_000_000_000, ge=1)
    """Bytes of an upload."""
    jwt_secret: SecretStr | None = None
    """The secret that JWTs are signed with, of 32 characters or more; or
    ``PERDURE_JWT_JWKS_URL``."""
    jwt_jwks_url: str | None = None
    """Where the keys are published that JWTs are signed with."""
    jwt_issuer: str | None = None
    """What a JWT's ``iss`` has to be; None is anything."""
    jwt_audience: str | None = None
    """What a JWT's ``aud`` has to be; None means that it has none."""
