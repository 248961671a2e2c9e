"""What docs/waiting.md tells: all that can be sent to calls that wait, and what has to come of each."""

from __future__ import annotations

from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from tests.integration.harness import World, until
from tests.integration.signals_story import Act, Step
from tests.integration.waiting_agents import WAITING_AGENTS

__all__ = ["CLERK", "KEY", "STORY"]

KEY = SessionKey(app="clerk", user_id="ada", session_id="main")
"""The session of the page."""
[CLERK] = [agent for agent in WAITING_AGENTS if agent.name == "clerk"]
TRANSFER = call("transfer", to="ann", amount=5)
RENDER = call("render", scene="sea")


def waits(message_id: str, for_what: JsonObject) -> Act:
    """A turn of which a call waits."""

    async def begin(world: World) -> None:
        world.gemini.script(for_what, say(f"{message_id} is done"))
        assert (await world.runner.ask(KEY, "go", message_id=message_id)).status == "waiting"

    return begin


def told(message_id: str, what: str) -> Act:
    """The turn is answered, and its model was told so."""

    async def check(world: World) -> None:
        assert (await world.runner.ask(KEY, "go", message_id=message_id)).text == f"{message_id} is done"
        response = await world.store.event(KEY, f"{message_id}:t1.0")
        assert what in str(response.content if response else "")

    return check


def shown(percent: float) -> Act:
    async def check(world: World) -> None:
        async def look() -> bool:
            return [each.percent for each in (await world.runner.status(KEY)).waiting] == [percent]

        await until(look)

    return check


STORY = (
    Step(name="update approve", before=waits("m1", TRANSFER), after=told("m1", "paid 5 to ann")),
    Step(name="signal approve", before=waits("m2", TRANSFER), after=told("m2", "too much")),
    Step(name="update tool_progress", before=waits("m3", RENDER), after=shown(50)),
    Step(name="signal tool_progress", after=shown(90)),
    Step(name="update tool_result", after=told("m3", "sea.png")),
    Step(name="signal tool_result", before=waits("m4", RENDER), after=told("m4", "no light")),
    Step(
        name="signal notify",
        before=waits("m5", call("wait_for_event", name="payment:17")),
        after=told("m5", "'amount': 5"),
    ),
)
