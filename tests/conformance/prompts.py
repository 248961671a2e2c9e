"""Random sessions, played through the real activities of two workers, and every prompt looked at.

Only Temporal and the model are missing: the moves here do what the workflow would, and worse
things (turns that are lost, calls answered in any order, late writes, two workers in turns).
Each thing that is said holds a word of its own, ``w17w``. The summariser keeps all words, so
a prompt must hold every live word and no rewound one, whatever was summed up.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.compaction import PROMPT, CompactionActivities
from activities.context_cache import ContextCache
from activities.gemini import Answer, Gemini
from activities.model import ModelActivities
from activities.model_request import ModelRequest, full_request
from activities.protocol import CompactTask, Interrupted, InterruptTask, ModelTask, RewindTask, ToolTask
from activities.steering import SteeringActivities
from activities.tools import ToolActivities
from perdure import Agent, Compaction, Limits, ToolContext, tool
from perdure.errors import ModelRefused
from perdure.instructions import state_keys
from perdure.registry import Registry
from perdure.types import Event, JsonObject, SessionKey
from storage.sessions import SessionStore

__all__ = ["MOVES", "Stage", "check_pairs", "play"]

T = TypeVar("T")

WORD = re.compile(r"w\d+w")
MOVES = ("turn", "turn", "turn", "turn", "rewind", "redo", "compact", "fork", "again", "update", "foreign")
CACHE = 10_000_000


@tool
def note(word: str) -> str:
    """Note a word."""
    return f"noted {word}"


@tool
def count(word: str, context: ToolContext) -> int:
    """Count the words."""
    context.state["count"] = int(context.state.get("count", 0)) + 1
    return int(context.state["count"])


@tool
def fail(word: str) -> str:
    """Raise an error."""
    raise RuntimeError(f"no {word}")


def _agent(name: str, compaction: Compaction | None) -> Agent:
    return Agent(
        name=name,
        instruction="Counted so far: {count?}.",
        tools=[note, count, fail],
        compaction=compaction,
        limits=Limits(steps=4),
    )


AGENTS = [
    _agent("long", None),
    _agent("every", Compaction(interval=1)),
    _agent("second", Compaction(interval=2, overlap=1)),
    _agent("third", Compaction(interval=3, overlap=2)),
]


class Worker:
    """The activities of one worker process, with a cache of its own."""

    def __init__(self, store: SessionStore, agents: Registry, model: Any, *, cache: int) -> None:
        gemini = cast("Gemini", model)
        self.model = ModelActivities(store, agents, gemini, context_cache=cache)
        self.tools = ToolActivities(store, agents)
        self.compaction = CompactionActivities(store, agents, gemini)
        self.steering = SteeringActivities(store, agents)
        self.contexts = ContextCache(store, size=cache)


@dataclass
class Stage:
    """What all sessions share."""

    store: SessionStore
    cached: bool
    requests: list[ModelRequest] = field(default_factory=list[ModelRequest])
    """Every request looked at, of all sessions."""
    words: Any = field(default_factory=lambda: itertools.count(1))

    def word(self) -> str:
        """One that nobody has said."""
        return f"w{next(self.words)}w"


async def play(stage: Stage, app: str, seed: int, moves: Sequence[str]) -> None:
    """Play one session."""
    session = _Session(stage, app, random.Random(seed))
    for move in moves:
        await getattr(session, move)()
        await session.look()


class _Session:
    def __init__(self, stage: Stage, app: str, chance: random.Random) -> None:
        self.stage = stage
        self.store = stage.store
        self.chance = chance
        self.key = SessionKey(app=app, user_id="ada", session_id=stage.word())
        self.numbers = itertools.count(1)
        self.agents = Registry(AGENTS)
        self.agent = self.agents.get(app)
        cache = CACHE if stage.cached else 0
        self.workers = [Worker(stage.store, self.agents, self, cache=cache) for _ in range(2)]
        self.epoch: int | None = None
        self.begun = False

    @property
    def worker(self) -> Worker:
        """Whichever gets the task."""
        return self.chance.choice(self.workers)

    def likely(self, part: float) -> bool:
        return self.chance.random() < part

    # The model

    async def generate(self, *, on_chunk: object = None, usage: object = None, **asked: Any) -> Answer:
        """What :class:`activities.gemini.Gemini` would do; it answers in one piece."""
        if asked["system"] == PROMPT:
            words = dict.fromkeys(WORD.findall(json.dumps(asked["contents"])))
            return self.say([{"text": " ".join(words) or "nothing was said"}])
        await self.check(ModelRequest(**asked))
        if self.likely(0.05):
            raise ModelRefused("the model does not like it")
        if self.likely(0.5):
            return self.say([{"text": self.stage.word()}])
        identified = self.likely(0.5)
        parts: list[JsonObject] = [{"text": "hm", "thought": True}] if self.likely(0.2) else []
        for number in range(self.chance.choice([1, 1, 2, 3])):
            name = self.chance.choice(["note", "note", "count", "fail", "unknown"])
            call: JsonObject = {"name": name, "args": {"word": self.stage.word()}}
            parts.append({"functionCall": {"id": f"c{number}", **call} if identified else call})
        return self.say(parts)

    def say(self, parts: list[JsonObject]) -> Answer:
        content = {"role": "model", "parts": parts}
        return Answer(content=content, finish_reason="STOP", usage={}, model_version=None)

    # Moves

    async def turn(self) -> None:
        """A turn; or a part of one, if it is cancelled, rewound away or lost with its worker."""
        name = self.name()
        step, order = 1, list[int]()
        epoch = None if self.likely(0.1) else self.epoch
        task = ModelTask(invocation_id=name, epoch=epoch, content=self.message())
        outcome = await self.run(self.worker.model.call_model, task)
        self.begun = True
        while True:
            self.epoch = outcome.epoch
            if not outcome.calls:
                break
            order = self.chance.sample(range(len(outcome.calls)), len(outcome.calls))
            for index in order:
                if self.likely(0.06):
                    await self.cut(ModelTask(invocation_id=name, step=step, epoch=self.epoch), index)
                    return
                await self.run_tool(name, step, index)
            if self.likely(0.05):
                await self.update()
            if self.likely(0.1):
                await self.compact()
            step += 1
            task = ModelTask(invocation_id=name, step=step, epoch=self.epoch)
            outcome = await self.run(self.worker.model.call_model, task)
        if outcome.compact and self.likely(0.9):
            await self.compact(name)

    async def run_tool(self, name: str, step: int, index: int) -> None:
        assert self.epoch is not None
        task = ToolTask(invocation_id=name, step=step, index=index, epoch=self.epoch)
        await self.run(self.worker.tools.run_tool, task)

    async def cut(self, task: ModelTask, index: int) -> None:
        """The turn goes no further; what it still writes must change nothing."""
        assert task.epoch is not None
        name = task.invocation_id
        how = self.chance.choice(["cancel", "rewind", "lost"])
        if how == "cancel":
            cancel = InterruptTask(invocation_id=name, epoch=task.epoch, reason="cancel")
            done = await self.run(self.worker.steering.interrupt, cancel)
            self.epoch = done.epoch if isinstance(done, Interrupted) else done
        elif how == "rewind":
            await self.rewind_before(self.chance.choice(await self.live()), running=name)
        else:
            self.epoch = None
            return
        head = (await self.store.get(self.key, max_events=0)).head
        late = ToolTask(invocation_id=name, step=task.step, index=index, epoch=task.epoch)
        await self.refused(self.run(self.worker.tools.run_tool, late))
        asked = self.run(self.worker.model.call_model, task.model_copy(update={"step": task.step + 1}))
        if how == "cancel":  # it finds the end
            assert (await asked).cancelled
        else:
            await self.refused(asked)
        assert (await self.store.get(self.key, max_events=0)).head == head

    async def rewind(self) -> None:
        if live := await self.live():
            await self.rewind_before(self.chance.choice(live))

    async def redo(self) -> None:
        if self.begun:
            markers = [event for event in (await self.store.get(self.key)).events if event.rewind]
            if markers:
                await self.rewind_before(self.chance.choice(markers).invocation_id)

    async def rewind_before(self, before: str, running: str | None = None) -> None:
        task = RewindTask(before=before, request_id=self.name(), running=running)
        self.epoch = (await self.run(self.worker.steering.rewind, task)).epoch

    async def compact(self, name: str | None = None) -> None:
        """Sum up, as of some invocation, whether it is due or not."""
        live = await self.live()
        if not live:
            return
        name = name or self.chance.choice(live)
        try:
            await self.run(self.worker.compaction.compact, CompactTask(invocation_id=name))
        except ApplicationError as error:
            if error.type != "StaleEpoch":
                raise

    async def fork(self) -> None:
        """Go on in a fork, which is a session that no worker has seen."""
        if live := await self.live():
            before = self.chance.choice([None, *live])
            await self.move(replace(self.key, session_id=self.stage.word()), before)

    async def again(self) -> None:
        """Go on under the same id, in a session that was made of the old one after that was deleted."""
        if live := await self.live():
            here = self.key
            await self.move(replace(here, session_id=self.stage.word()), self.chance.choice([None, *live]))
            await self.store.delete(here)
            await self.move(here, None)

    async def move(self, key: SessionKey, before: str | None) -> None:
        self.epoch = (await self.store.fork(self.key, key, before=before)).epoch
        self.key = key

    async def update(self) -> None:
        """State from outside, which may come in the midst of a turn."""
        if self.begun:
            await self.store.update(self.key, request_id=self.name(), state={"count": 7})

    async def foreign(self) -> None:
        """Events that another program wrote: without steps, answered by id, by name or not at all."""
        if not self.begun:
            await self.store.create(self.key)
            self.begun = True
        name = self.name()
        identified = {"id": f"adk-{name}"} if self.likely(0.5) else {}
        call = {"functionCall": {**identified, "name": "note", "args": {"word": self.stage.word()}}}
        response = {"functionResponse": {**identified, "name": "note", "response": {"ok": True}}}
        parts: list[list[JsonObject]] = [[{"text": self.stage.word()}], [call, call], [response], []]
        for number, given in enumerate(parts):
            if self.likely(0.7):
                role = "user" if given == [response] else "model"
                content = {"role": role, "parts": given}
                event = Event(id=f"{name}-{number}", invocation_id=name, author="other", content=content)
                await self.store.append(self.key, event)

    def message(self) -> JsonObject:
        """What a user says, and what nobody should."""
        said: JsonObject = {"text": self.stage.word()}
        odd: list[JsonObject] = [
            {"functionResponse": {"name": "note", "response": {}}},
            {"functionCall": {"name": "note", "args": {}}},
            {"function_response": {"name": "note", "response": {}}},
            {"text": ""},
            {},
        ]
        parts = [said, *self.chance.sample(odd, 2)] if self.likely(0.1) else [said]
        return {"role": "user", "parts": parts}

    # What is looked at

    async def look(self) -> None:
        """The prompt as it would be now: the same for all workers, and right."""
        if not self.begun:
            return
        names = state_keys(self.agent.instruction)
        context = await self.store.context(self.key, state_keys=names)
        for worker in self.workers:
            if self.likely(0.7):
                assert await worker.contexts.read(self.key, state_keys=names) == context
        request = await full_request(self.store, self.key, self.agent, context)
        if request.contents:
            await self.check(request)

    async def check(self, request: ModelRequest) -> None:
        """That a prompt is one that Gemini takes, and holds what is live and nothing else."""
        check_pairs(request.contents)
        log = await self.store.log(self.key)
        live = {word for event in log if event.live for word in words_of(event)}
        gone = {word for event in log if not event.live for word in words_of(event)} - live
        told = set(WORD.findall(json.dumps(request.contents)))
        assert not told & gone, "S32: rewound text"
        assert live <= told, "S40: something live is lost"
        self.stage.requests.append(request)

    # Small things

    def name(self) -> str:
        return f"i{next(self.numbers)}"

    async def live(self) -> list[str]:
        """The live invocations, in order."""
        if not self.begun:
            return []
        events = (await self.store.get(self.key)).events
        return list(dict.fromkeys(event.invocation_id for event in events))

    async def refused(self, work: Awaitable[object]) -> None:
        with pytest.raises(ApplicationError) as caught:
            await work
        assert caught.value.type == "StaleEpoch"

    async def run(self, activity: Callable[..., Awaitable[T]], task: object) -> T:
        """Run an activity as a worker would for this session's workflow."""
        environment = ActivityEnvironment(client=cast("Client", _Waiting()))
        environment.info = replace(ActivityEnvironment.default_info(), workflow_id=self.key.workflow_id)
        return cast("T", await environment.run(activity, task))


class _Waiting:
    """A Temporal that still waits for every attempt."""

    def get_async_activity_handle(self, *, task_token: bytes) -> _Waiting:
        return self

    async def heartbeat(self, *details: object) -> None:
        pass


def words_of(event: Event) -> list[str]:
    """The words in an event's content."""
    return WORD.findall(json.dumps(event.content)) if event.content and not event.compaction else []


def check_pairs(contents: Sequence[JsonObject]) -> None:
    """Each call is answered in the very next content, by exactly its responses in order, with its id."""
    assert contents[0]["role"] == "user"
    waiting: list[JsonObject] = []
    for content in contents:
        parts = content["parts"]
        assert parts
        assert all(part not in ({}, {"text": ""}) for part in parts), "an empty part"
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        responses = [part["functionResponse"] for part in parts if "functionResponse" in part]
        assert [_named(response) for response in responses] == [_named(call) for call in waiting]
        assert not waiting or (content["role"] == "user" and len(parts) == len(responses))
        assert not calls or content["role"] == "model"
        waiting = calls
    assert not waiting, "calls without responses"


def _named(called: JsonObject) -> tuple[object, object]:
    return called.get("id"), called["name"]
