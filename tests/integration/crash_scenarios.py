"""What a worker can be killed in the middle of, written as its clients see it, and what each leaves behind.

A :class:`Scenario` knows nothing of crashes. It is played once undisturbed, and then once
for each time that a crash point was reached in that: the first worker dies there, another
takes over, and in the end everything has to be as if nobody had died.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import SessionEnded, SessionNotFound
from perdure.types import Event, Json, SessionKey
from storage.schema import artifacts
from tests.integration.attempts import at_rest
from tests.integration.crashes import STARTED_IN, Stage
from tests.integration.harness import until

__all__ = ["INPUT_LIMIT", "SCENARIOS", "Outcome", "Scenario", "Script", "outcome_of"]

INPUT_LIMIT = 20_000
"""Of how many tokens a prompt may be: of more than any scenario's but one."""


SIGNATURE = re.compile(r'"thoughtSignature": "[^"]*"')
"""It seals a text in which the session's name may be."""


class Script:
    """What a scenario has to play with: one session, and the files of its tools.

    Args:
        stage: the servers.
        mark: names the session, its user, and whatever is said in it.
        app: the agent.
    """

    def __init__(self, stage: Stage, mark: str, app: str) -> None:
        self.stage = stage
        self.store = stage.store
        self.mark = mark
        self.key = SessionKey(app=app, user_id=mark, session_id=mark)
        self.runner = stage.runner(mark)

    async def ask(self, text: str, message_id: str, **more: Any) -> str:
        """A turn: how it ended, and the answer."""
        answer = await self.runner.ask(self.key, text, message_id=message_id, **more)
        return f"answered at {answer.seq}: {answer.text}" if answer.status == "answered" else answer.status

    async def delivered(self, call_id: str, result: Json) -> str:
        """A call's result, and the end of the turn: who asks for that then finds it over, each time."""
        settled = await self.runner.tool_result(self.key, call_id, result, request_id="r1")
        await self.at_rest()
        return str(settled)

    async def at_rest(self) -> None:
        """The session has nothing to do."""
        await until(lambda: at_rest(self.runner.client, self.key.workflow_id), within=STARTED_IN)

    def notes(self, kind: str) -> str:
        """The path of a file in which a tool notes its tries."""
        return str(self.stage.folder / f"{self.mark}.{kind}")

    def tries(self) -> Counter[str]:
        """How often each call of a tool was tried, by its idempotency key."""
        keys: Counter[str] = Counter()
        for path in self.stage.folder.glob(f"{self.mark}.tool*"):
            keys.update(line.split()[0] for line in path.read_text().splitlines())
        return keys

    def asked(self) -> int:
        """How often a model was asked, also for a summary; a prompt that it refused costs nothing."""
        requests = (request for request in self.stage.gemini.requests if request.status != 400)
        return sum(self.mark in json.dumps(request.contents) for request in requests)

    async def answered(self) -> int:
        """How many answers of a model the log has, summaries included."""
        return sum("step" in event.meta or event.compaction is not None for event in await self.log())

    async def log(self) -> list[Event]:
        """The whole log; empty where there is no session."""
        try:
            return await self.store.log(self.key)
        except SessionNotFound:
            return []

    async def talked(self, *message_ids: str, more: str = "") -> None:
        """Turns that were before, each with a change of state; no worker has seen them.

        Args:
            message_ids: theirs.
            more: what their messages end with.
        """
        for message_id in message_ids:
            said = {"role": "user", "parts": [{"text": f"{message_id} of {self.mark}{more}"}]}
            user = Event(id=f"{message_id}:user", invocation_id=message_id, author="user", content=said)
            turn = await self.store.begin_turn(self.key, user, epoch=None)
            answer = Event(
                id=f"{message_id}:m1",
                invocation_id=message_id,
                author=self.key.app,
                content={"role": "model", "parts": [{"text": f"An answer to {message_id}."}]},
                state_delta={"last": message_id, f"seen {message_id}": True},
            )
            await self.store.append(self.key, answer, epoch=turn.epoch)

    @asynccontextmanager
    async def hanging(self, message_id: str) -> Any:
        """A turn whose model says nothing, whoever asks it; once it was asked."""
        self.stage.gemini.hang(contains=f"hello from {self.mark}", times=3)
        turn = asyncio.create_task(self.ask(f"hello from {self.mark}", message_id))
        try:
            await self.stage.gemini.wait(lambda: self.asked() > 0, "the model to be asked", STARTED_IN)
            yield turn
        finally:
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)


async def text_turn(script: Script) -> list[str]:
    return [await script.ask(f"hello from {script.mark}", "m1")]


async def turn_with_parallel_tools(script: Script) -> list[str]:
    paths = ", ".join(f"'{script.notes(f'tool.{kind}')}'" for kind in ("state", "file", "plain"))
    return [await script.ask(f"juggle {paths}", "m1")]


async def turn_that_saves(script: Script) -> list[str]:
    return [await script.ask(f"work on '{script.notes('tool')}'", "m1")]


async def call_that_waits(script: Script) -> list[str]:
    """For a yes with other arguments, too many for Temporal's history, and then for the world."""
    path = script.notes("tool")
    text, key, call_id = f"order '{path}'", script.key, "m1:t1.0"
    told = [await script.ask(text, "m1")]
    asked = {"path": path, "remark": "x" * 40_000}
    for settle in (
        partial(script.runner.approve, key, call_id, arguments=asked, by="boss", request_id="y1"),
        partial(script.ask, text, "m1"),
        partial(script.runner.tool_progress, key, call_id, "half", request_id="p1"),
        partial(script.delivered, call_id, {"delivered": True}),
        partial(script.ask, text, "m1"),
    ):
        told.append(str(await settle()))
    return told


async def message_that_joins(script: Script) -> list[str]:
    """A turn, with state of its own, also one that is sent again; the turn waits for its result meanwhile."""
    order, more = f"order '{script.notes('tool')}'", f"hello from {script.mark}"
    told = [await script.ask(order, "m1")]
    for settle in (
        partial(script.ask, more, "m2", during="join", state={"more": 1}),
        partial(script.runner.approve, script.key, "m1:t1.0", request_id="y1"),
        partial(script.ask, order, "m1"),
        partial(script.delivered, "m1:t1.0", "delivered"),
        partial(script.ask, order, "m1"),
        partial(script.ask, more, "m2", state={"more": 1}),
    ):
        told.append(str(await settle()))
    return told


async def rewind(script: Script) -> list[str]:
    ack = await script.runner.rewind(script.key, "m2", request_id="r1")
    return [str(ack)]


async def rewind_of_a_running_turn(script: Script) -> list[str]:
    async with script.hanging("m2") as turn:
        ack = await script.runner.rewind(script.key, "m2", request_id="r1")
        return [str(ack), await turn]


async def cancel(script: Script) -> list[str]:
    async with script.hanging("m1") as turn:
        await script.runner.cancel(script.key)
        return [await turn]


async def compaction(script: Script) -> list[str]:
    return [f"summed up at {await script.runner.compact(script.key, request_id='c1')}"]


async def long_turns_before(script: Script) -> None:
    """So long that one more is too much for the model, and that it can just sum them up."""
    await script.talked("m1", "m2", "m3", more=" and more" * (INPUT_LIMIT // 7))


async def prompt_that_is_shortened(script: Script) -> list[str]:
    return [await script.ask(f"hello from {script.mark}" + " and more" * (INPUT_LIMIT // 8), "m4")]


async def save(script: Script) -> list[str]:
    version = await script.runner.save_artifact(script.key, "report.txt", b"of the day", "text/plain")
    return [f"version {version}"]


async def queued_before(script: Script) -> None:
    """Three messages, and nobody to take them yet: they wait in one run, and are carried on."""
    for message_id in ("m1", "m2", "m3"):
        await script.runner.message(script.key, f"{message_id} of {script.mark}", message_id=message_id)


async def continue_as_new(script: Script) -> list[str]:
    async def last_is_answered() -> bool:
        return any(event.id == "m3:m1" for event in await script.log())

    await until(last_is_answered, within=STARTED_IN)
    await script.at_rest()
    run = await script.runner.client.get_workflow_handle(script.key.workflow_id).describe()
    first = run.raw_description.workflow_execution_info.first_run_id
    return [f"continued: {run.run_id != first}"]


async def end(script: Script) -> list[str]:
    session = await script.runner.end(script.key, request_id="e1")
    try:
        await script.ask(f"hello from {script.mark}", "m9")
    except SessionEnded:
        return [f"ended: {session.ended_at is not None}", str(session.state), "and refuses"]
    return ["takes another message"]


Play = Callable[[Script], Coroutine[Any, Any, list[str]]]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Something that a worker does."""

    name: str
    play: Play
    """What clients do and are told."""
    app: str = "crasher"
    """The agent."""
    before: tuple[str, ...] = ()
    """The turns that the session has had."""
    prepare: Callable[[Script], Awaitable[None]] | None = None
    """What was done before any worker was there."""
    turns_per_run: int | None = None
    hangs: bool = False
    """A model call that hangs is given up: how often it was begun by then is chance."""
    whole: bool = False
    """Each time of a point is another moment: on SQLite, all are tried, but the pieces of an answer."""
    own_ids: bool = True
    """The ids in the log are the scenario's own, and the same each time."""


SCENARIOS = [
    Scenario(name="text turn", play=text_turn),
    Scenario(name="three parallel tools", play=turn_with_parallel_tools),
    Scenario(name="tool that saves", play=turn_that_saves),
    Scenario(name="call that waits", play=call_that_waits, whole=True),
    Scenario(name="message that joins", play=message_that_joins),
    Scenario(name="rewind", play=rewind, before=("m1", "m2", "m3")),
    Scenario(name="rewind of a running turn", play=rewind_of_a_running_turn, before=("m1",), hangs=True),
    Scenario(name="cancel", play=cancel, hangs=True),
    Scenario(name="compaction", play=compaction, before=("m1", "m2")),
    Scenario(
        name="prompt that is shortened",
        play=prompt_that_is_shortened,
        app="seldom",
        prepare=long_turns_before,
    ),
    Scenario(name="save", play=save, before=("m1",), own_ids=False),
    Scenario(name="continue as new", play=continue_as_new, prepare=queued_before, turns_per_run=1),
    Scenario(name="end", play=end, before=("m1",)),
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that a run has left, but for times, and the name of the session."""

    told: list[str]
    log: list[Any]
    session: dict[str, Any]
    state: dict[str, Any]
    files: dict[str, Any]
    staged: int
    calls: list[str]
    """The calls of tools, by idempotency key, however often each was tried."""


async def outcome_of(script: Script, told: list[str], *, own_ids: bool = True) -> Outcome:
    """What is there now.

    Args:
        script: of the run.
        told: what its clients were told.
        own_ids: whether the ids of its events are to be compared.
    """
    log = await script.log()
    assert [event.seq for event in log] == list(range(1, len(log) + 1)), "dense"
    session = await script.store.get(script.key, max_events=0)
    outcome = Outcome(
        told=told,
        log=list(_rows(log, own_ids=own_ids)),
        session={name: getattr(session, name) for name in ("version", "head", "projection", "metadata")},
        state=dict(session.state),
        files=await _files(script),
        staged=await _staged(script),
        calls=sorted(script.tries()),
    )
    plain = json.dumps(asdict(outcome), default=str).replace(script.mark, "MARK")
    return Outcome(**json.loads(SIGNATURE.sub('"thoughtSignature": "SEAL"', plain)))


def _rows(log: list[Event], *, own_ids: bool) -> Iterator[dict[str, Any]]:
    """The events, in order; the calls of one step, which may finish in any, by their ids."""
    for call, group in groupby(log, key=lambda event: "call" in event.meta):
        rows = [asdict(event) for event in group]
        for row in sorted(rows, key=lambda row: str(row["id"])) if call else rows:
            del row["created_at"]
            if call:
                del row["seq"]
            if not own_ids and row["author"] == "user" and row["artifact_delta"]:
                del row["id"], row["invocation_id"]
            yield row


async def _files(script: Script) -> dict[str, Any]:
    """Every listed version of every artifact, with its bytes."""
    found = {}
    for newest in await script.store.list_artifacts(script.key):
        for row in await script.store.artifact_versions(script.key, newest.name):
            _, data = await script.store.load_artifact(script.key, row.name, version=row.version)
            found[f"{row.name} {row.version}"] = [row.mime_type, row.size, data.decode()]
    return found


async def _staged(script: Script) -> int:
    """Versions that no event lists."""

    async def work(conn: AsyncConnection) -> int:
        mine = (artifacts.c.user_id == script.key.user_id, artifacts.c.seq.is_(None))
        return int((await conn.execute(select(func.count()).where(*mine))).scalar_one())

    return await script.store._db.read(work)
