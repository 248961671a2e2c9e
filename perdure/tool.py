"""``@tool``: a plain function, and what the runtime must know to let a model call it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from perdure.checks import check_int, check_seconds, check_text
from perdure.context import ToolContext
from perdure.errors import InvalidAgent, InvalidArguments
from perdure.jsonvalues import jsonable
from perdure.pause import Pause
from perdure.types import JsonObject

__all__ = ["FunctionTool", "Tool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

Confirm = bool | Callable[[dict[str, Any]], bool]
OnTimeout = Literal["refuse", "approve", "fail"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")


class Tool:
    """A function the model may call. Made by :func:`tool`; calling it calls the function.

    Args:
        function: sync or async; a bound method, a partial or a callable object will do.
        name: what the model calls it; the function's own name where None.
        description: what it does; the docstring's text where None.
        parallel: let calls that take a :class:`ToolContext` run beside others of their step.
        timeout: seconds one run may take; the agent's ``limits.tool_timeout`` where None.
        retries: how many more times to run it after it raised; then the model sees the error.
        confirm: a person must say yes before a call runs: always, or where a function of the arguments
            (a dict by parameter name, checked, defaults filled in) says so. One that raises asks.
        confirm_timeout: seconds the person has; the agent's ``limits.waiting_timeout`` where None.
        on_timeout: what becomes of the call when they are over: ``refuse`` (the model is told),
            ``approve`` (it runs) or ``fail`` (the turn ends in an error).
        long_running: what the function returns is a ticket, and the call waits until its result
            is sent as ``tool_result``; see ``ToolContext.result_id``.
        result_timeout: seconds the result may take; the agent's ``limits.waiting_timeout`` where None.

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
    ) -> None:
        own_name = _checked_function(function)
        functools.update_wrapper(self, function)
        self.function = function
        self.name = _checked_name(own_name if name is None else name, function)
        check_seconds(f"tool {self.name!r}: timeout", timeout, optional=True)
        check_int(f"tool {self.name!r}: retries", retries, least=0)
        check_text(f"tool {self.name!r}: description", description, optional=True)
        self.parallel = parallel
        self.timeout = timeout
        self.retries = retries
        self._check_waits(confirm, confirm_timeout, on_timeout, result_timeout, long_running)
        self.confirm = confirm
        self.confirm_timeout = confirm_timeout
        self.on_timeout = on_timeout
        self.long_running = long_running
        self.result_timeout = result_timeout
        self.is_async = _is_async(function, self.name)
        # Here and not above: pydantic takes longer to import than everything else together.
        from perdure.schema import Signature

        self._signature = Signature(function, self.name)
        self.description = self._signature.description if description is None else description

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
            return bool(self.confirm(values))
        except Exception:  # noqa: BLE001 - foreign code: where it cannot say, a person does
            return True

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
            run = functools.partial(contextvars.copy_context().run, _in_thread, self.function, args, kwargs)
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

    def _identity(self) -> tuple[object, ...]:
        waits = (self.confirm, self.confirm_timeout, self.on_timeout, self.long_running, self.result_timeout)
        own = (self.function, self.name, self.description, self.parallel, self.timeout, self.retries)
        return (*own, *waits)

    def _check_waits(
        self,
        confirm: object,
        confirm_timeout: object,
        on_timeout: object,
        result_timeout: object,
        long_running: object,
    ) -> None:
        what = f"tool {self.name!r}"
        if not isinstance(confirm, bool) and (not callable(confirm) or inspect.iscoroutinefunction(confirm)):
            raise InvalidAgent(
                f"{what}: confirm is {confirm!r}; it is True or a sync function of the dict of arguments"
            )
        if on_timeout not in ("refuse", "approve", "fail"):
            raise InvalidAgent(f"{what}: on_timeout is {on_timeout!r}; it is 'refuse', 'approve' or 'fail'")
        check_seconds(f"{what}: confirm_timeout", confirm_timeout, optional=True)
        check_seconds(f"{what}: result_timeout", result_timeout, optional=True)
        if not confirm and (confirm_timeout is not None or on_timeout != "refuse"):
            raise InvalidAgent(f"{what}: confirm_timeout and on_timeout say nothing without confirm")
        if not long_running and result_timeout is not None:
            raise InvalidAgent(f"{what}: result_timeout says nothing without long_running")


class FunctionTool(Tool, Generic[P, R]):
    """What :func:`tool` returns: to a type checker it has the signature of its function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", self.function(*args, **kwargs))


@overload
def tool(
    function: Callable[P, R],
    /,
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
) -> FunctionTool[P, R]: ...


@overload
def tool(
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
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
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
            is sent as ``tool_result``; see ``ToolContext.result_id``.
        result_timeout: seconds the result may take; the agent's ``limits.waiting_timeout`` where None.

    Raises:
        InvalidAgent: it cannot be declared; the message says why and how to mend it.
    """

    def declare(function: Callable[P, R]) -> FunctionTool[P, R]:
        return FunctionTool(
            function.function if isinstance(function, Tool) else function,
            name=name,
            description=description,
            parallel=parallel,
            timeout=timeout,
            retries=retries,
            confirm=confirm,
            confirm_timeout=confirm_timeout,
            on_timeout=on_timeout,
            long_running=long_running,
            result_timeout=result_timeout,
        )

    return declare if function is None else declare(function)


def _in_thread(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # asyncio cannot carry a StopIteration to the task that waits: the call would hang for ever.
        raise RuntimeError(f"the tool raised StopIteration: {error}") from error


def _is_async(function: Callable[..., Any], name: str) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidAgent(f"tool {name!r} is a generator; a tool returns one result, such as a list")
    return inspect.iscoroutinefunction(function)


def _checked_function(function: object) -> str | None:
    """The function's own name, if it has one."""
    if not callable(function) or isinstance(function, type):
        raise InvalidAgent(f"{function!r} is not a function; a tool is made of a function or a method")
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None)


def _checked_name(name: object, function: object) -> str:
    if name is None:
        raise InvalidAgent(f"{function!r} has no name; give it one: tool(function, name='...')")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidAgent(
            f"{name!r} cannot be the name of a tool: Gemini takes up to 64 ASCII letters, digits, _ . : "
            "and -, beginning with a letter or _; give it another with tool(name='...')"
        )
    return name
