"""The seed's scenario, with exact values, on SQLite and on Postgres."""

from __future__ import annotations

from perdure.types import SessionKey
from tests.integration.harness import World, until


async def counters(world: World, key: SessionKey) -> object:
    return (await world.store.get(key, max_events=0)).state.get("counters")


async def settled(world: World, key: SessionKey) -> None:
    async def done() -> bool:
        return not (await world.runner.status(key)).compacting

    await until(done)


async def test_the_seeds_scenario(world: World) -> None:
    key = world.key()
    ask = world.runner.ask

    first = await ask(key, "Increment 'visits' counter by 1 and show its value")
    assert first.status == "answered"
    assert "1" in first.text
    assert await counters(world, key) == {"visits": 1}
    assert await world.kinds(key) == ["user", "model", "tool", "model"]

    await ask(key, 'Save current counter values to "counter-report.txt"')
    row, data = await world.store.load_artifact(key, "counter-report.txt")
    assert (row.version, data) == (1, b"visits: 1")

    big = await ask(key, "Increment 'visits' counter by 100")
    assert await counters(world, key) == {"visits": 101}
    await settled(world, key)

    ack = await world.runner.rewind(key, big.invocation_id, request_id="first-rewind")
    assert await counters(world, key) == {"visits": 1}
    [marker] = [event for event in await world.log(key) if event.rewind]
    assert marker.seq == ack.seq

    again = await ask(key, "Increment 'visits' counter by 1")
    assert await counters(world, key) == {"visits": 2}
    prompt = world.gemini.model_calls()[-1].text
    assert "100" not in prompt
    assert "101" not in prompt
    assert "2" in again.text

    await settled(world, key)
    await world.runner.rewind(key, "first-rewind", request_id="redo")
    assert await counters(world, key) == {"visits": 101}
    await world.runner.rewind(key, "redo")
    assert await counters(world, key) == {"visits": 2}

    for name in ("logins", "clicks", "views", "shares"):
        await ask(key, f"Increment '{name}' counter by 1")
        await settled(world, key)
    shown = await ask(key, "Show all counters")
    expected = {"visits": 2, "logins": 1, "clicks": 1, "views": 1, "shares": 1}
    assert await counters(world, key) == expected
    for name, value in expected.items():
        assert name in shown.text, f"{name}: {value} is missing from {shown.text!r}"

    await settled(world, key)
    compactions = [event for event in (await world.session(key)).events if event.compaction]
    assert compactions, "interval 3 and six turns: there is a summary"
    for event in compactions:
        before, after = event.meta["prompt_chars"]
        assert after < before
    assert (await world.store.load_artifact(key, "counter-report.txt"))[1] == b"visits: 1"


async def test_s39_after_a_compaction_the_prompt_is_one_summary_and_the_tail(world: World) -> None:
    key = world.key()
    for _ in range(3):
        await world.runner.ask(key, "Increment 'visits' counter by 1")
    await settled(world, key)
    [compaction] = [event for event in (await world.session(key)).events if event.compaction]
    assert compaction.compaction is not None
    users = [event.seq for event in (await world.session(key)).events if event.author == "user"]
    # Three turns of four events: it sums up all of them, and keeps the last turn raw.
    assert compaction.compaction == {"start": 1, "end": 12, "tail": users[2]}

    await world.runner.ask(key, "Increment 'visits' counter by 1")
    contents = world.gemini.model_calls()[-2].contents
    texts = [part.get("text", "") for content in contents for part in content["parts"]]
    assert compaction.text in texts[0]
    assert [content["role"] for content in contents] == ["user", "user", "model", "user", "model", "user"]


async def test_s31_a_rewind_into_a_compacted_range_brings_the_originals_back(world: World) -> None:
    key = world.key()
    answers = [await world.runner.ask(key, f"Increment 'c{n}' counter by 1") for n in range(3)]
    await settled(world, key)
    assert (await world.store.context(key)).summary is not None
    await world.runner.rewind(key, answers[2].invocation_id)
    context = await world.store.context(key)
    assert context.summary is None
    assert [event.invocation_id for event in context.events if event.author == "user"] == [
        answers[0].invocation_id,
        answers[1].invocation_id,
    ]


async def test_s32_rewound_text_never_reaches_the_model_through_a_summary(world: World) -> None:
    key = world.key()
    await world.runner.ask(key, "Increment 'visits' counter by 1")
    secret = await world.runner.ask(key, "My password is swordfish")
    await world.runner.rewind(key, secret.invocation_id)
    for _ in range(4):
        await world.runner.ask(key, "Increment 'visits' counter by 1")
        await settled(world, key)
    later = [request for request in world.gemini.requests if "swordfish" in request.text]
    assert len(later) == 1, "only the call that answered it"


async def test_s16_user_and_app_keys_survive_a_rewind_and_another_session_sees_them(world: World) -> None:
    from perdure.testing import call, say

    one = world.key("tester")
    two = world.key("tester", user=one.user_id)
    world.gemini.script(call("add", name="user:total"), say("done"))
    first = await world.runner.ask(one, "go")
    await world.runner.rewind(one, first.invocation_id)
    assert (await world.store.get(one, max_events=0)).state == {"user:total": 1}
    world.gemini.script(call("add", name="user:total"), say("done"))
    await world.runner.ask(two, "go")
    assert (await world.store.get(two, max_events=0)).state == {"user:total": 2}
