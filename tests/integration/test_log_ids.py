"""Log lines of a session whose ids have a percent sign in them, as a space is once it is encoded."""

from __future__ import annotations

import logging

import pytest

from activities.runtime import log
from perdure.types import SessionKey
from tests.integration.harness import World, until


def test_ids_are_no_part_of_the_format_of_an_activitys_line(caplog: pytest.LogCaptureFixture) -> None:
    key = SessionKey(app="counter", user_id="a user", session_id="100%")
    with caplog.at_level(logging.INFO, "perdure.activities"):
        log(logging.INFO, "tool.rerun", key, "50%s", "%s of %d", "one", 2)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == "tool.rerun counter/a%20user/100%25 50%s: one of 2"


async def test_ids_are_no_part_of_the_format_of_a_workflows_line(
    sqlite_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = sqlite_world.key(user="a user")
    await sqlite_world.runner.ask(key, "hello", message_id="m1")

    async def noted() -> bool:
        return (await sqlite_world.runner.status(key)).last_error is not None

    with caplog.at_level(logging.WARNING, "temporalio.workflow"):
        await sqlite_world.handle(key).signal("rewind", {"before": "m2"})
        await until(noted)
    [line] = [record.getMessage() for record in caplog.records if "InvocationNotFound" in str(record.msg)]
    assert line.startswith(f"session {key}: InvocationNotFound: ")
