"""A function's signature, as the model is shown it and as its answers are checked.

The model sees JSON Schema, made by pydantic from the annotations, with descriptions from
the docstring. What it sends comes back through the same pydantic model, leniently: JSON
knows one kind of number, and 1.0 is a good int. A call that does not fit is an error
that the model reads, so it says which argument is wrong and how.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from perdure.context import ToolContext
from perdure.docstrings import parse
from perdure.errors import InvalidAgent, InvalidArguments
from perdure.jsonschema import simplify
from perdure.types import JsonObject

__all__ = ["Signature"]

_PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """One parameter that the model fills: its Python name, and its field in the pydantic model."""

    name: str
    field: str
    positional: bool


class Signature:
    """What can be said about a function's parameters.

    Args:
        function: anything callable but a class.
        tool: the tool's name, for errors.

    Raises:
        InvalidAgent: a parameter that cannot be declared; the message says how to mend it.
    """

    def __init__(self, function: Callable[..., Any], tool: str) -> None:
        self._tool = tool
        self.description, documented = parse(_docstring(function))
        self.context_parameter: str | None = None
        self._slots: list[_Slot] = []
        self._context_position: int | None = None
        fields: dict[str, Any] = {}
        for parameter, annotation in _parameters(function, tool):
            if _is_context(annotation):
                self._take_context(parameter)
                continue
            slot = _Slot(
                name=parameter.name,
                field=f"argument_{len(self._slots)}",
                positional=parameter.kind is inspect.Parameter.POSITIONAL_ONLY,
            )
            fields[slot.field] = _field(parameter, annotation, documented, tool)
            self._slots.append(slot)
        self._model = _model(tool, fields)
        self.parameters = _json_schema(self._model, tool)

    def bind(
        self, arguments: Mapping[str, Any], context: ToolContext | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Check what the model sent, and turn it into the positional and keyword arguments of a call.

        Raises:
            InvalidArguments: naming every argument that is missing, unknown or of the wrong kind.
        """
        values = self._checked(arguments)
        args = [getattr(values, slot.field) for slot in self._slots if slot.positional]
        kwargs = {slot.name: getattr(values, slot.field) for slot in self._slots if not slot.positional}
        if self._context_position is not None:
            args.insert(self._context_position, context)
        elif self.context_parameter is not None:
            kwargs[self.context_parameter] = context
        return args, kwargs

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the model sent, checked, by the names of the parameters; defaults are filled in.

        Raises:
            InvalidArguments: as in :meth:`bind`.
        """
        values = self._checked(arguments)
        return {slot.name: getattr(values, slot.field) for slot in self._slots}

    def _checked(self, arguments: Mapping[str, Any]) -> BaseModel:
        try:
            return self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise InvalidArguments(self._explain(error, arguments)) from None

    def _take_context(self, parameter: inspect.Parameter) -> None:
        if self.context_parameter is not None:
            raise InvalidAgent(
                f"tool {self._tool!r} has two ToolContext parameters, {self.context_parameter!r} and "
                f"{parameter.name!r}; a call has one context, so keep one"
            )
        self.context_parameter = parameter.name
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            self._context_position = len(self._slots)

    def _explain(self, error: ValidationError, arguments: Mapping[str, Any]) -> str:
        known = ", ".join(self.parameters.get("properties", {})) or "none"
        reasons = []
        for problem in error.errors(include_url=False):
            where = _path(problem["loc"], arguments, problem["type"])
            if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
                reason = f"there is no argument {where!r} (there are: {known})"
            elif problem["type"] == "missing":
                reason = f"argument {where!r} is missing"
            else:
                reason = f"argument {where!r}: {problem['msg']}, not {_short(problem['input'])}"
            if reason not in reasons:
                reasons.append(reason)
        return f"{self._tool} was not run: {'; '.join(reasons)}."


def _parameters(function: Callable[..., Any], tool: str) -> list[tuple[inspect.Parameter, Any]]:
    """The parameters that are still open, each with its annotation resolved."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidAgent(f"tool {tool!r}: {function!r} has no signature to declare ({error})") from error
    preset = function.keywords if isinstance(function, functools.partial) else {}
    return [
        (parameter, _annotation(function, parameter, tool))
        for parameter in signature.parameters.values()
        if parameter.name not in preset
    ]


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter, tool: str) -> Any:
    what = f"parameter {parameter.name!r} of tool {tool!r}"
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise InvalidAgent(
            f"{what} takes any number of arguments, which cannot be declared to the model; "
            "name each parameter, or take one list or dict"
        )
    if parameter.annotation is _EMPTY:
        hint = (
            "declare methods when they are bound: tool(object.method)"
            if parameter.name in ("self", "cls")
            else "annotate it (typing.Any if it may be anything, perdure.ToolContext for the context)"
        )
        raise InvalidAgent(f"{what} has no type; {hint}")
    if not _PARAMETER_NAME.fullmatch(parameter.name):
        raise InvalidAgent(f"{what}: Gemini takes names of up to 64 ASCII letters, digits and _; rename it")
    return _resolved(parameter.annotation, _globals(function), what)


def _resolved(annotation: Any, namespace: dict[str, Any], what: str) -> Any:
    def holder() -> None: ...

    # One at a time, so that a return type that exists only for type checkers does no harm.
    holder.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(holder, namespace, include_extras=True)["it"]
    except NameError as error:
        if error.name == "ToolContext":  # imported under TYPE_CHECKING, as linters ask for
            return _resolved(annotation, {**namespace, "ToolContext": ToolContext}, what)
        raise InvalidAgent(
            f"{what} is annotated {annotation!r}, but there is no {error.name!r} in its module; import or "
            "define it there (not under TYPE_CHECKING, not inside a function)"
        ) from error
    except (TypeError, SyntaxError) as error:
        raise InvalidAgent(f"{what} is annotated {annotation!r}, which is not a type: {error}") from error


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    return getattr(_underlying(function), "__globals__", {})


def _docstring(function: Callable[..., Any]) -> str | None:
    found = _unwrapped(function)
    if inspect.isroutine(found):
        return inspect.getdoc(found)
    # Not getdoc: it would give a class without docstrings those of type and object.
    return type(found).__call__.__doc__ or type(found).__doc__


def _underlying(function: Callable[..., Any]) -> Any:
    """The plain function behind partials, decorators, bound methods and callable objects."""
    found = _unwrapped(function)
    if not inspect.isroutine(found):
        found = inspect.unwrap(type(found).__call__)
    return getattr(found, "__func__", found)


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial) or hasattr(function, "__wrapped__"):
        function = function.func if isinstance(function, functools.partial) else function.__wrapped__
    return function


def _is_context(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_context(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return any(_is_context(item) for item in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, ToolContext)


def _field(parameter: inspect.Parameter, annotation: Any, documented: Mapping[str, str], tool: str) -> Any:
    """What create_model takes for one parameter: its type, and a Field with name and description."""
    default = parameter.default
    if isinstance(default, FieldInfo):  # def f(x: int = Field(3, ge=1))
        annotation, default = Annotated[annotation, default], _EMPTY
    declared = FieldInfo.from_annotation(annotation)
    name = declared.alias or parameter.name
    if not _PARAMETER_NAME.fullmatch(name):
        raise InvalidAgent(
            f"parameter {parameter.name!r} of tool {tool!r} has the alias {name!r}; "
            "Gemini takes names of up to 64 ASCII letters, digits and _"
        )
    options: dict[str, Any] = {"alias": name}
    if declared.description is None and parameter.name in documented:
        options["description"] = documented[parameter.name]
    if default is not _EMPTY:
        options["default"] = default
    return (annotation, Field(**options))


def _model(tool: str, fields: dict[str, Any]) -> type[BaseModel]:
    try:
        return create_model(
            f"arguments of {tool}",
            __config__=ConfigDict(extra="forbid", protected_namespaces=()),
            **fields,
        )
    except PydanticUndefinedAnnotation as error:
        raise InvalidAgent(
            f"a parameter of tool {tool!r} needs the type {error.name!r}, which is not defined"
        ) from error
    except PydanticUserError as error:
        raise InvalidAgent(
            f"a parameter of tool {tool!r} has a type that pydantic cannot check: {_reason(error)}; "
            "use JSON types, enums, dataclasses or pydantic models"
        ) from error


class _QuietSchema(GenerateJsonSchema):
    # A default that JSON cannot show is left out of the declaration, and used all the same.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's attribute


def _json_schema(model: type[BaseModel], tool: str) -> JsonObject:
    try:
        model.model_rebuild()
        return simplify(model.model_json_schema(schema_generator=_QuietSchema), f"tool {tool!r}")
    except PydanticUndefinedAnnotation as error:
        raise InvalidAgent(
            f"a parameter of tool {tool!r} needs the type {error.name!r}, which is not defined"
        ) from error
    except PydanticUserError as error:
        raise InvalidAgent(
            f"a parameter of tool {tool!r} has no JSON Schema: {_reason(error)}; "
            "the model can only send JSON types"
        ) from error


def _reason(error: PydanticUserError) -> str:
    """Pydantic's first sentence; the others advise settings that a tool's author does not have."""
    return error.message.strip().splitlines()[0].split(". ")[0].rstrip(".")


def _path(loc: Sequence[int | str], arguments: Any, kind: str) -> str:
    """Where in the arguments an error is; pydantic's names for branches of a union are left out."""
    path, value = "", arguments
    for index, step in enumerate(loc):
        last_missing = kind == "missing" and index == len(loc) - 1
        if isinstance(value, Mapping) and isinstance(step, str) and (step in value or last_missing):
            path = f"{path}.{step}" if path else step
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
    return path


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
