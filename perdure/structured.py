"""Answers that are JSON of a schema: what the model is told, and what is made of its answer."""

from __future__ import annotations

import json
import re

from pydantic import BaseModel, ValidationError

from perdure.errors import InvalidAgent, InvalidContent
from perdure.jsonschema import simplify
from perdure.jsonvalues import json_copy
from perdure.types import Json, JsonObject

__all__ = ["check_schema", "json_of", "schema_of", "what_is_wrong"]

_FENCED = re.compile(r"\s*```[ \t]*(?:json)?\s*\n(.*)```\s*", re.DOTALL | re.IGNORECASE)
_MOST_ERRORS = 20


def check_schema(what: str, schema: object) -> None:
    """Raise InvalidAgent unless ``schema`` is a pydantic model that has a JSON schema."""
    if not isinstance(schema, type) or not issubclass(schema, BaseModel):
        raise InvalidAgent(
            f"{what} is {schema!r}; it is a subclass of pydantic.BaseModel "
            "(for a list or a plain type that is RootModel[...])"
        )
    try:
        schema_of(schema)
    except Exception as error:  # whatever a hook of the model's own raises
        raise InvalidAgent(f"{what} is {schema.__name__}, which has no JSON schema: {error}") from error


def schema_of(model: type[BaseModel]) -> JsonObject:
    """The JSON schema of a model, in the part of JSON Schema that Gemini reads."""
    return simplify(model.model_json_schema(), f"output_schema {model.__name__}")


def json_of(text: str) -> Json:
    """The JSON that an answer is, also within a fence of Markdown.

    Raises:
        ValueError: it is none.
        InvalidContent: it holds what no store could: NaN, infinity, U+0000, a lone surrogate.
    """
    return json_copy(json.loads(_unfenced(text)), "the answer")


def what_is_wrong(model: type[BaseModel], text: str) -> tuple[str, int] | None:
    """Why an answer is no JSON of the schema, in words for the model that gave it, and in how many places.

    Returns:
        None if it is.
    """
    try:
        model.model_validate_json(_unfenced(text))
        json_of(text)
    except InvalidContent as error:
        return f"- {error}", 1
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"- {'.'.join(map(str, each['loc'])) or 'the answer'}: {each['msg']}" for each in found]
        more = [f"- and {len(lines) - _MOST_ERRORS} more"] if len(lines) > _MOST_ERRORS else []
        return "\n".join([*lines[:_MOST_ERRORS], *more]), len(found)
    except Exception as error:  # noqa: BLE001 - foreign code: a validator of the model's own
        return f"- the answer: {type(error).__name__}: {error}", 1
    return None


def _unfenced(text: str) -> str:
    fenced = _FENCED.fullmatch(text)
    return fenced[1] if fenced else text
