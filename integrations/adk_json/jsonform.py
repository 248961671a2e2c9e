"""From google-adk's values to JSON, with nothing changed on the way that the store would refuse.

pydantic's own JSON mode turns NaN and infinity into null, and a null removes a key of the
state. Here they stay what they are, so that the store can say where they stand.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from perdure.types import Json, JsonObject

__all__ = ["json_of", "json_of_model"]

_log = logging.getLogger("perdure.google_adk")


def json_of(values: Mapping[str, Any], where: str) -> dict[str, Json]:
    """Values as JSON: dates, models and the like as pydantic writes them.

    What has no JSON form, a function for instance, is stored as its ``repr``, as google-adk's own
    services do; ``where`` says in the log what it was part of.
    """
    try:
        return _jsonable(values, unknown=False)
    except PydanticSerializationError as error:
        _log.warning("%s is stored in part as text: %s", where, error)
        return _jsonable(values, unknown=True)


def json_of_model(model: BaseModel, where: str, *, exclude: set[str] | None = None) -> JsonObject:
    """A model's fields that are set, by their names on the wire (camelCase), as JSON.

    By those names also where google-adk alone reads it: some of its models, such as an
    ``AuthConfig``, are not understood again by their names in Python.
    """
    return json_of(model.model_dump(by_alias=True, exclude_none=True, exclude=exclude), where)


def _jsonable(values: Mapping[str, Any], *, unknown: bool) -> dict[str, Json]:
    found: dict[str, Json] = to_jsonable_python(
        dict(values), bytes_mode="base64", inf_nan_mode="constants", serialize_unknown=unknown
    )
    return found
