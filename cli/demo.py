"""``perdure demo``: the story of a session that survives, on real parts.

Every figure is read back from the database or from Temporal when it is printed, and
checked: the demo fails where the story is not true.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from embedded.stack import Stack
from gateway.opening import open_store
from gateway.runner import Answer, Runner, connect, new_id
from perdure.errors import PerdureError, SessionNotFound
from perdure.testing import StandInClient
from perdure.types import Event, Json, SessionKey
from storage.sessions import SessionStore

__all__ = ["run"]

KEY = SessionKey(app="counter", user_id="demo", session_id="story")
PATIENCE = 90.0
"""Seconds after which something that should have happened counts as not happening."""

T = TypeVar("T")
out = Console(highlight=False, soft_wrap=True)


class DemoFailed(PerdureError):
    """Something in the story was not true. The message says what; the folder's logs say why."""


def run(*, keep: bool, data: Path | None) -> None:
    """Play the story.

    Args:
        keep: leave everything running at the end, until Ctrl-C.
        data: the folder to play in; a temporary one where None.
    """
    with tempfile.TemporaryDirectory(prefix="perdure-demo-") as temporary:
        asyncio.run(_run(data or Path(temporary), keep))


async def _run(data: Path, keep: bool) -> None:
    began = time.monotonic()
    async with AsyncExitStack() as cleanup:
        # A demo meets whatever else runs on this machine, so it takes ports of its own.
        stack = Stack(
            ["examples.counter"], data=data, port=0, ui_port=0, gateway_port=0, ui=keep, say=_whisper
        )
        out.print("[bold]Perdure[/]: an agent's session that survives\n")
        await _slow("starting a Temporal dev server, a worker and the model", stack.start())
        cleanup.push_async_callback(stack.stop)
        watching = asyncio.create_task(stack.watch())
        cleanup.callback(watching.cancel)
        store = await open_store(stack.settings)
        cleanup.push_async_callback(store.close)
        client = await connect(stack.settings)
        story = Story(stack, Runner(client, store, task_queue=stack.settings.task_queue), store)
        await story.tell()
        out.print(f"\nAll of it is true, in {time.monotonic() - began:.0f} s.")
        if keep:
            out.print(f"Temporal UI: {stack.temporal.ui_url}   data: {data}   Ctrl-C ends it.")
            await _until_interrupted()


class Story:
    """The five chapters, told about one session."""

    def __init__(self, stack: Stack, runner: Runner, store: SessionStore) -> None:
        self._stack = stack
        self._runner = runner
        self._store = store
        self._shown_compactions = 0

    async def tell(self) -> None:
        """All chapters in order, and the figures at the end."""
        model = f"the Gemini [bold]stand-in[/] at {self._stack.settings.model_base_url}, answering by rule"
        out.print(f"The model is {model if self._stack.standin else 'Gemini itself'}.")
        await self._persistence()
        await self._artifacts()
        await self._rewind()
        await self._compaction()
        await self._restart()
        await self._figures()

    async def _persistence(self) -> None:
        _chapter("1. Persistence", "the worker is killed while the model call is in flight")
        if self._stack.standin is not None:
            self._control().hang(contains="visits")
        question = "Increment 'visits' counter by 1 and show its value"
        asked = asyncio.create_task(self._runner.ask(KEY, question))
        out.print(f"  [cyan]user[/]   {question}")
        await self._model_call_in_flight()
        await self._kill("the worker, with the model call in flight", lambda: self._stack.worker.pid)
        answer = await _slow("Temporal gives the call to the new worker once it misses the old one", asked)
        out.print(f"  [green]agent[/]  {answer.text}")
        out.print(f"  the worker that answered has pid {self._stack.worker.pid}")
        await self._expect_counters({"visits": 1})
        log = await self._store.log(KEY)
        steps = [_kind(event) for event in log]
        out.print(f"  the log: {', '.join(f'{event.seq} {_kind(event)}' for event in log)}")
        if self._stack.standin is not None:  # Gemini may take another way to the same end
            _expect(steps, ["user", "model", "tool", "model"], "one user event and one event a step")
        _expect(steps.count("user"), 1, "user events")

    async def _artifacts(self) -> None:
        _chapter("2. Artifacts", "files beside the conversation, by version")
        await self._ask('Save current counter values to "counter-report.txt"')
        row, data = await self._store.load_artifact(KEY, "counter-report.txt")
        out.print(
            f"  {row.name}, version {row.version}, {row.mime_type}, {row.size} bytes: {data.decode()!r}"
        )
        _expect(data.decode(), "visits: 1", "the saved report")

    async def _rewind(self) -> None:
        _chapter("3. Rewind", "a signal truncates the projection; the log keeps everything")
        await self._expect_counters({"visits": 1})
        big = await self._ask("Increment 'visits' counter by 100")
        await self._expect_counters({"visits": 101})
        first = await self._signal_rewind(big.invocation_id, "that never happened")
        await self._expect_counters({"visits": 1})
        await self._ask("Increment 'visits' counter by 1")
        await self._expect_counters({"visits": 2})
        redo = await self._signal_rewind(first, "redo: a rewind before the rewind")
        await self._expect_counters({"visits": 101})
        await self._signal_rewind(redo, "and back again")
        await self._expect_counters({"visits": 2})

    async def _compaction(self) -> None:
        _chapter("4. Compaction", "interval 3, overlap 1: what is old becomes one summary")
        for name in ("logins", "clicks", "views", "shares"):
            await self._ask(f"Increment '{name}' counter by 1")
        await self._ask("Show all counters")
        _expect(self._shown_compactions > 1, True, "compactions happened")
        await self._expect_counters({"visits": 2, "logins": 1, "clicks": 1, "views": 1, "shares": 1})

    async def _restart(self) -> None:
        _chapter(
            "5. Restart of everything", "Temporal and the worker are killed and start on the same folder"
        )
        await asyncio.gather(
            self._kill("the Temporal server", lambda: self._stack.temporal.pid),
            self._kill("the worker", lambda: self._stack.worker.pid),
        )
        await self._ask("Increment 'visits' counter by 1")
        pids = f"server {self._stack.temporal.pid}, worker {self._stack.worker.pid}"
        out.print(f"  the session went on under new pids: {pids}")
        await self._expect_counters({"visits": 3, "logins": 1, "clicks": 1, "views": 1, "shares": 1})

    async def _figures(self) -> None:
        log = await self._store.log(KEY)
        status = await self._runner.status(KEY)
        history = await self._runner.client.get_workflow_handle(KEY.workflow_id).describe()
        info = history.raw_description.workflow_execution_info
        table = Table(title="\nThe session in figures", title_justify="left", show_header=False)
        rows: Mapping[str, object] = {
            "events in the log": f"{len(log)}, {sum(event.live for event in log)} of them live",
            "turns": status.turns,
            "model calls": f"{status.model_calls}, and {self._shown_compactions} for summaries",
            "tool calls": status.tool_calls,
            "rewinds": status.rewinds,
            "Temporal history": f"{info.history_length} events, {info.history_size_bytes:,} bytes",
            "history a turn": f"{info.history_size_bytes // status.turns:,} bytes, all of the above included",
        }
        for name, value in rows.items():
            table.add_row(name, str(value))
        out.print(table)

    async def _ask(self, text: str) -> Answer:
        out.print(f"  [cyan]user[/]   {text}")
        answer = await _slow("waiting for the answer", self._runner.ask(KEY, text))
        if answer.status != "answered":
            raise DemoFailed(f"{text!r} was not answered: {answer.status} {answer.failure}")
        out.print(f"  [green]agent[/]  {answer.text}")
        await self._show_compactions()
        return answer

    async def _signal_rewind(self, before: str, words: str) -> str:
        """Send the rewind as any service would, with nothing but a Temporal client."""
        request_id = new_id()
        handle = self._runner.client.get_workflow_handle(KEY.workflow_id)
        await handle.signal("rewind", {"before": before, "request_id": request_id})
        marker = await _until(
            lambda: self._store.event(KEY, f"{request_id}:rewind"), "the rewind is in the log"
        )
        session = await self._store.get(KEY, max_events=0)
        live = json.dumps([list(span) for span in session.projection])
        out.print(
            f"  [magenta]signal[/] rewind before {before[:8]} ({words}): marker {marker.seq}, live {live}"
        )
        return request_id

    async def _show_compactions(self) -> None:
        async def settled() -> bool:
            return not (await self._runner.status(KEY)).compacting

        await _until(settled, "the compaction is done")
        events = [event for event in await self._store.log(KEY) if event.compaction]
        for event in events[self._shown_compactions :]:
            assert event.compaction is not None, "just chosen by it"
            before, after = event.meta["prompt_chars"]
            span = f"{event.compaction['start']}–{event.compaction['end']}"
            out.print(
                f"  [yellow]summed up[/] events {span}: the context had {before:,} characters, has {after:,}"
            )
            out.print(f"            {event.text[:100]}", style="dim", markup=False)
        self._shown_compactions = len(events)

    async def _expect_counters(self, expected: Mapping[str, Json]) -> None:
        state = (await self._store.get(KEY, max_events=0)).state
        out.print(f"  state  {json.dumps(dict(state))}", markup=False)
        _expect(state.get("counters"), expected, "the counters in the database")

    async def _model_call_in_flight(self) -> None:
        if self._stack.standin is not None:
            await self._control().wait_in_flight()
        else:
            await _until(self._user_event_is_there, "the user's message is in the log")

    async def _user_event_is_there(self) -> bool:
        try:
            return bool(await self._store.log(KEY))
        except SessionNotFound:
            return False

    def _control(self) -> StandInClient:
        return StandInClient(str(self._stack.settings.model_base_url))

    async def _kill(self, what: str, pid_of: Callable[[], int | None]) -> None:
        pid = pid_of()
        assert pid is not None, "it runs"
        out.print(f"  [red]SIGKILL[/] to {what}: pid {pid}")
        os.kill(pid, signal.SIGKILL)

        async def another() -> bool:
            return pid_of() not in (pid, None)

        await _until(another, f"{what} starts again")


def _kind(event: Event) -> str:
    return "user" if event.author == "user" else "tool" if "call" in event.meta else "model"


def _chapter(title: str, subtitle: str) -> None:
    out.print(f"\n[bold]{title}[/] · {subtitle}")


def _whisper(line: str) -> None:
    out.print(f"  {line}", style="dim", markup=False)


def _expect(actual: object, expected: object, what: str) -> None:
    if actual != expected:
        raise DemoFailed(f"{what}: expected {expected!r}, found {actual!r}")


async def _slow(what: str, work: Awaitable[T]) -> T:
    """Await it; say so if it takes longer than a second."""
    task = asyncio.ensure_future(work)
    began = time.monotonic()
    done, _ = await asyncio.wait([task], timeout=1)
    if done:
        return task.result()
    _whisper(f"… {what}")
    result = await task
    _whisper(f"… {time.monotonic() - began:.1f} s")
    return result


async def _until(look: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Look again and again until there is something to see.

    Raises:
        DemoFailed: there was nothing within :data:`PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := await look():
            return found
        await asyncio.sleep(0.05)
    raise DemoFailed(f"{PATIENCE:.0f} s passed before: {what}")


async def _until_interrupted() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
