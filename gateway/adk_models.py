"""What the routes of google-adk's API server take and give, by its names on the wire.

Requests are read by these, so that what is wrong with one is said in the same words as there.
Answers are written by hand, in google-adk's order (``adk_events.py``); their models are for
the OpenAPI document.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

from google.genai import types
from pydantic import BaseModel, ConfigDict, Field, WrapValidator
from pydantic.alias_generators import to_camel

from integrations.adk_json.genai import careful

__all__ = [
    "AdkArtifact",
    "AdkEvent",
    "AdkSession",
    "AppInfo",
    "Apps",
    "CreateSession",
    "Detail",
    "FinalizeCredentials",
    "InvalidDetail",
    "RestoredEvent",
    "Run",
    "SaveArtifact",
    "UpdateMemory",
    "Version",
]


Content = Annotated[types.Content, WrapValidator(careful)]
Part = Annotated[types.Part, WrapValidator(careful)]
Usage = Annotated[types.GenerateContentResponseUsageMetadata, WrapValidator(careful)]


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Run(_Model):
    """A turn: what the user says, to which session."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "appName": "counter",
                    "userId": "ann",
                    "sessionId": "s1",
                    "newMessage": {"role": "user", "parts": [{"text": "Increment 'visits'"}]},
                }
            ]
        }
    )

    app_name: str | None = Field(default=None, description="The app; it has to be given.")
    user_id: str
    session_id: str
    new_message: Content | None = Field(
        default=None, description="What the user says; left out only to have the events of `invocationId`."
    )
    streaming: bool = Field(default=False, description="`/run_sse` sends pieces of answers as they come.")
    state_delta: dict[str, Any] | None = Field(
        default=None, description="A change of state, applied with the message."
    )
    function_call_event_id: str | None = None
    invocation_id: str | None = Field(
        default=None, description="Names the turn. Sent again under its id, a message runs once."
    )
    custom_metadata: dict[str, Any] | None = Field(default=None, description="Read, and not kept.")
    service_tier: str | None = Field(default=None, description="Read, and not used.")


class RestoredEvent(_Model):
    """An event of another session that a new one begins with."""

    model_config = ConfigDict(extra="allow")

    content: Content | None = None
    author: str = ""
    invocation_id: str = ""
    branch: str | None = None
    actions: dict[str, Any] = Field(default_factory=dict)
    usage_metadata: Usage | None = None
    long_running_tool_ids: list[str] | None = None
    error_code: str | None = None
    error_message: str | None = None
    custom_metadata: dict[str, Any] | None = None
    partial: bool | None = None
    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    timestamp: float = Field(default_factory=time.time)


class CreateSession(_Model):
    """A session to create."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sessionId": "s1", "state": {"mode": "test"}}]}
    )

    session_id: str | None = Field(
        default=None, description="Its id. If not provided, a random one will be generated."
    )
    state: dict[str, Any] | None = Field(default=None, description="Its initial state.")
    events: list[RestoredEvent] | None = Field(
        default=None,
        description="The events that it begins with: what was said, and tool calls and responses.",
    )
    options: dict[str, Any] | None = Field(
        default=None, description="There are none: a request with some is refused."
    )


class SaveArtifact(_Model):
    """An artifact to save."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filename": "notes.txt", "artifact": {"text": "hello"}}]}
    )

    filename: str = Field(description="Its name; with `user:` before it, it is the user's.")
    artifact: Part = Field(description="A text, or a file as `inlineData`.")
    custom_metadata: dict[str, Any] | None = Field(default=None, description="Kept with this version.")


class UpdateMemory(_Model):
    """A session for the user's memory."""

    session_id: str


class FinalizeCredentials(_Model):
    """The end of a consent for one of Google's connectors. There are none here."""

    connector_name: str
    user_id: str
    user_id_validation_state: str
    consent_nonce: str


class Detail(BaseModel):
    """What went wrong, as FastAPI says it."""

    detail: str


class InvalidDetail(BaseModel):
    """What is wrong with a request: pydantic's errors, or a sentence."""

    detail: list[dict[str, Any]] | str


class Version(BaseModel):
    """Which release answers."""

    version: str = Field(description="Of Perdure.")
    language: str
    language_version: str


class AppInfo(_Model):
    """What is known of an app."""

    name: str
    root_agent_name: str
    description: str
    language: str
    is_computer_use: bool = False
    agents: dict[str, Any] | None = Field(
        default=None, description="The agent's instruction, and its tools as function declarations."
    )


class Apps(BaseModel):
    """The apps, in detail."""

    apps: list[AppInfo]


class AdkEvent(_Model):
    """google-adk's Event. Fields that are not set are left out."""

    model_config = ConfigDict(extra="allow")

    id: str
    invocation_id: str
    author: str = Field(description="`user`, the agent's name, or `perdure` for what the runtime records.")
    timestamp: float = Field(description="In seconds since 1970.")
    content: dict[str, Any] | None = Field(default=None, description="A genai Content.")
    partial: bool | None = Field(default=None, description="A piece of an answer that is still coming.")
    actions: dict[str, Any] = Field(description="`stateDelta`, `artifactDelta` (versions from 0) and more.")
    model_version: str | None = None
    finish_reason: str | None = None
    usage_metadata: dict[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None
    interrupted: bool | None = None
    long_running_tool_ids: list[str] | None = None


class AdkSession(_Model):
    """google-adk's Session."""

    id: str
    app_name: str
    user_id: str
    state: dict[str, Any] = Field(
        description="Its own keys; the app's under `app:`, the user's under `user:`."
    )
    events: list[AdkEvent] = Field(description="What is live of its log; none in a list of sessions.")
    last_update_time: float = Field(description="In seconds since 1970.")


class AdkArtifact(_Model):
    """One saved version of an artifact."""

    version: int = Field(description="From 0.")
    canonical_uri: str
    custom_metadata: dict[str, Any]
    create_time: float = Field(description="In seconds since 1970.")
    mime_type: str | None = None
