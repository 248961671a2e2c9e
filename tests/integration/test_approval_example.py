"""examples/approval.py: what its docstring promises."""

from __future__ import annotations

from embedded.temporal import TemporalServer
from examples import approval
from perdure.testing import call, say
from storage.sessions import SessionStore
from tests.integration.harness import open_world


async def test_the_clerk_asks_before_it_pays_much(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(temporal.address, sqlite_store, [approval.agent]) as world:
        key = world.key("clerk")
        world.gemini.script(call("transfer", to="ann", amount=100), say("Paid."))
        assert (await world.runner.ask(key, "Transfer 100 to ann")).status == "answered"
        world.gemini.script(call("transfer", to="bob", amount=500), say("Paid less."))
        answer = await world.runner.ask(key, "Transfer 500 to bob", message_id="m2")
        assert answer.status == "waiting"
        [waits] = await world.runner.waiting(key)
        assert waits.arguments == {"to": "bob", "amount": 500}
        await world.runner.approve(key, waits.call_id, arguments={"to": "bob", "amount": 50}, by="boss")
        assert (await world.runner.ask(key, "Transfer 500 to bob", message_id="m2")).text == "Paid less."
        payments = (await world.session(key)).state["payments"]
        assert list(payments.values()) == [{"to": "ann", "amount": 100}, {"to": "bob", "amount": 50}]
        assert "50" in str(world.gemini.model_calls()[-1].contents[-1])
