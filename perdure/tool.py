"""``@tool``: a plain function, and what the runtime must know to let a model call it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from perdure.checks import check_int, check_seconds, check_text
from perdure.context import ToolContext
from perdure.errors import InvalidArguments
from perdure.jsonvalues import jsonable
from perdure.pause import Pause
from perdure.toolchecks import check_place, check_waits, checked_function, checked_name, in_thread, is_async
from perdure.types import JsonObject

__all__ = ["FunctionTool", "Parameters", "Tool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

Confirm = bool | Callable[[dict[str, Any]], bool]
OnTimeout = Literal["refuse", "approve", "fail"]


class ToolOptions(TypedDict, total=False):
    """The options of :func:`tool`, which says what each is."""

    name: str | None
    description: str | None
    parallel: bool
    timeout: float | None
    retries: int
    confirm: Confirm
    confirm_timeout: float | None
    on_timeout: OnTimeout
    long_running: bool
    result_timeout: float | None
    task_queue: str | None
    activity: str | None
    start_timeout: float | None
    heartbeat_timeout: float | None


class Parameters(Protocol):
    """What a tool knows of its parameters; see :class:`perdure.schema.Signature`."""

    parameters: JsonObject
    description: str
    context_parameter: str | None

    def bind(
        self, arguments: Mapping[str, Any], context: ToolContext | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call of the function."""

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, checked, by name."""


class Tool:
    """A function the model may call. Made by :func:`tool`, which says what the options are; calling it
    calls the function.

    Args:
        function: sync or async; a bound method, a partial or a callable object will do.

    Raises:
        InvalidAgent: it cannot be declared; the message says why and how to mend it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parallel: bool = False,
        timeout: float | None = None,
        retries: int = 0,
        confirm: Confirm = False,
        confirm_timeout: float | None = None,
        on_timeout: OnTimeout = "refuse",
        long_running: bool = False,
        result_timeout: float | None = None,
        task_queue: str | None = None,
        activity: str | None = None,
        start_timeout: float | None = None,
        heartbeat_timeout: float | None = None,
    ) -> None:
        own_name = checked_function(function)
        functools.update_wrapper(self, function)
        self.function = function
        self.name = checked_name(own_name if name is None else name, function)
        check_seconds(f"tool {self.name!r}: timeout", timeout, optional=True)
        check_int(f"tool {self.name!r}: retries", retries, least=0)
        check_text(f"tool {self.name!r}: description", description, optional=True)
        self.parallel = parallel
        self.timeout = timeout
        self.retries = retries
        self.confirm = confirm
        self.confirm_timeout = confirm_timeout
        self.on_timeout = on_timeout
        self.long_running = long_running
        self.result_timeout = result_timeout
        self.task_queue = task_queue
        self.activity = activity
        self.start_timeout = start_timeout
        self.heartbeat_timeout = heartbeat_timeout
        check_waits(self)
        self.is_async = is_async(function, self.name)
        self._signature = self._signature_of(function)
        self.description = self._signature.description if description is None else description
        check_place(self)

    @property
    def parameters(self) -> JsonObject:
        """The JSON Schema of the arguments."""
        return self._signature.parameters

    @property
    def declaration(self) -> JsonObject:
        """What google-genai takes as a ``FunctionDeclaration``, in wire form.

        Without ``parametersJsonSchema`` where there are no parameters, as Gemini wants it.
        """
        declared: JsonObject = {"name": self.name}
        if self.description:
            declared["description"] = self.description
        if self.parameters.get("properties"):
            declared["parametersJsonSchema"] = self.parameters
        return declared

    @property
    def takes_context(self) -> bool:
        """Whether the function has a parameter annotated :class:`ToolContext`."""
        return self._signature.context_parameter is not None

    @property
    def serial(self) -> bool:
        """Whether it must run after the calls before it in its step: it can write state."""
        return self.takes_context and not self.parallel

    @property
    def attempts(self) -> int:
        """How many times a call is run at most, when the function itself raises: 1 and the retries."""
        return 1 + self.retries

    def needs_approval(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a person must say yes to a call with these arguments, as the model sent them.

        Not where they do not fit the signature: then the function is not run at all.
        """
        if self.confirm is False:
            return False
        try:
            values = self._signature.values(arguments)
        except InvalidArguments:
            return False
        if self.confirm is True:
            return True
        try:
            said: object = self.confirm(values)
            if inspect.iscoroutine(said):  # of an async function behind a sync one
                said.close()
                return True
            return bool(said)
        except Exception:  # noqa: BLE001 - foreign code: where it cannot say, a person does
            return True

    def checked(self, arguments: Mapping[str, Any]) -> JsonObject:
        """The arguments as JSON, checked, by the names of the parameters; defaults are filled in.

        Raises:
            InvalidArguments: they do not fit the signature.
            InvalidContent: one of them has no JSON form.
        """
        values = jsonable(self._signature.values(arguments), f"the arguments of {self.name}")
        assert isinstance(values, dict), "a dict stays one"
        return values

    async def call(
        self,
        arguments: Mapping[str, Any],
        context: ToolContext | None = None,
        *,
        executor: Executor | None = None,
    ) -> JsonObject:
        """The same as :meth:`run`, for what does not wait: of a pause it gives a description."""
        result = await self.run(arguments, context, executor=executor)
        return result.described() if isinstance(result, Pause) else result

    async def run(
        self,
        arguments: Mapping[str, Any],
        context: ToolContext | None = None,
        *,
        executor: Executor | None = None,
    ) -> JsonObject | Pause:
        """Run it for the model. A sync function runs in a thread, with this task's contextvars.

        Args:
            arguments: as the model sent them.
            context: required if the function takes one.
            executor: whose thread a sync function gets; the event loop's own where None.

        Returns:
            A JSON object: what the function returned, if that was one, else ``{"result": ...}``. Or
            the :class:`~perdure.waiting.Pause` that it returned.

        Raises:
            InvalidArguments: they do not fit the signature; the function was not run.
            InvalidContent: it returned what JSON cannot hold.
            Exception: whatever the function raised.
        """
        if self.takes_context and context is None:
            raise TypeError(f"tool {self.name!r} takes a ToolContext and was called without one")
        args, kwargs = self._signature.bind(arguments, context)
        if context is not None:
            context._belong_to(asyncio.get_running_loop())
        if self.is_async:
            returned = await self.function(*args, **kwargs)
        else:
            run = functools.partial(contextvars.copy_context().run, in_thread, self.function, args, kwargs)
            returned = await asyncio.get_running_loop().run_in_executor(executor, run)
            if inspect.isawaitable(returned):  # an async function behind a sync decorator
                returned = await returned
        if isinstance(returned, Pause):
            return returned
        result = jsonable(returned, f"the result of {self.name}")
        return result if isinstance(result, dict) else {"result": result}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tool) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<Tool {self.name}({', '.join(self.parameters.get('properties', {}))})>"

    def _signature_of(self, function: Callable[..., Any]) -> Parameters:
        # Here and not above: pydantic takes longer to import than everything else together.
        from perdure.schema import Signature

        return Signature(function, self.name)

    def _identity(self) -> tuple[object, ...]:
        waits = (self.confirm, self.confirm_timeout, self.on_timeout, self.long_running, self.result_timeout)
        place = (self.task_queue, self.activity, self.start_timeout, self.heartbeat_timeout)
        own = (self.function, self.name, self.description, self.parallel, self.timeout, self.retries)
        return (*own, *waits, *place)


class FunctionTool(Tool, Generic[P, R]):
    """What :func:`tool` returns: to a type checker it has the signature of its function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", self.function(*args, **kwargs))


@overload
def tool(function: Callable[P, R], /, **options: Unpack[ToolOptions]) -> FunctionTool[P, R]: ...


@overload
def tool(**options: Unpack[ToolOptions]) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None, /, **options: Unpack[ToolOptions]
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Declare a function as a tool: ``@tool``, ``@tool(timeout=5)`` or ``tool(object.method)``.

    The model is told the function's name, its docstring (Google, NumPy or Sphinx style),
    and its parameters by their annotations: whatever pydantic can check and JSON can
    carry. A parameter annotated :class:`ToolContext` is filled by the runtime and not
    shown to the model. Every parameter needs an annotation. The function can be called
    as before.

    Args:
        function: sync or async.
        name: what the model calls it; the function's own name where None.
        description: what it does; the docstring's text where None.
        parallel: let a function that takes a :class:`ToolContext` run beside the other
            calls of its step. If a key that it read has changed by the time it sets it,
            it is run again.
        timeout: seconds one run may take; the agent's ``limits.tool_timeout`` where None.
        retries: how many more times to run it after it raised; then the model sees the error.
        confirm: a person must say yes before a call runs: always, or where a function of the arguments
            (a dict by parameter name, checked, defaults filled in) says so. One that raises asks.
        confirm_timeout: seconds the person has; the agent's ``limits.waiting_timeout`` where None.
        on_timeout: what becomes of the call when they are over: ``refuse`` (the model is told),
            ``approve`` (it runs) or ``fail`` (the turn ends in an error).
        long_running: what the function returns is a ticket, and the call waits until its result
            is sent as ``tool_result``; see ``ToolContext.task_token``.
        result_timeout: seconds the result may take; the agent's ``limits.waiting_timeout`` where None.
        task_queue: the task queue whose workers run it; the session's own where None.
        activity: the activity of that name runs it there, with JSON in and out, instead of the function.
        start_timeout: seconds until a worker of that queue begins; as long as it takes where None.
        heartbeat_timeout: seconds without a heartbeat after which the activity's worker is dead.

    Raises:
        InvalidAgent: it cannot be declared; the message says why and how to mend it.
    """

    def declare(function: Callable[P, R]) -> FunctionTool[P, R]:
        return FunctionTool(function.function if isinstance(function, Tool) else function, **options)

    return declare if function is None else declare(function)
