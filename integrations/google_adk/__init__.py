"""Sessions, artifacts and memory of google-adk agents in Perdure's store; the agents stay as they are.

    >>> from google.adk.runners import Runner  # doctest: +SKIP
    >>> sessions = PerdureSessionService("postgresql://…", "s3://bucket/artifacts")  # doctest: +SKIP
    >>> Runner(  # doctest: +SKIP
    ...     app_name="shop", agent=agent, session_service=sessions, artifact_service=sessions.artifacts
    ... )

What google-adk's base classes and docs say holds; where they are silent, what Perdure's
store does. ``docs/adk.md`` lists the differences from google-adk's own services.

google-adk wants google-genai below 3. Neither this package nor the store imports it for
itself, so they run in google-adk's environment.
"""

from __future__ import annotations

from integrations.google_adk.artifacts import PerdureArtifactService
from integrations.google_adk.memory import PerdureMemoryService
from integrations.google_adk.sessions import PerdureSessionService

__all__ = ["PerdureArtifactService", "PerdureMemoryService", "PerdureSessionService"]
