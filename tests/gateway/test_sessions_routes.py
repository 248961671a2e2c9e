"""Our routes over sessions: create, list, find, update, steer, look."""

from __future__ import annotations

import uuid
from typing import Any

import httpx2
import pytest

from tests.gateway.harness import Gateway, path_of


async def told(gateway: Gateway, user: str, text: str = "Add one.", session: str = "s1") -> dict[str, Any]:
    answer = await gateway.http.post(
        f"/apps/counter/users/{user}/sessions/{session}/messages", json={"text": text}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def is_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    said: dict[str, Any] = response.json()
    assert (response.status_code, said["status"], said["code"]) == (status, status, code), said
    assert said["type"] == f"urn:perdure:problem:{code}"
    assert said["detail"]
    assert said["title"]
    assert said["instance"] == response.request.url.path
    return said


async def created(gateway: Gateway, **body: Any) -> dict[str, Any]:
    user = body.pop("userId", f"user-{uuid.uuid4().hex[:8]}")
    made = await gateway.http.post("/apps/counter/sessions", json={"userId": user, **body})
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


class TestCreate:
    async def test_it_has_its_state_and_metadata(self, gateway: Gateway) -> None:
        made = await created(gateway, sessionId="s 1", state={"mood": "good"}, metadata={"ticket": 7})
        assert (made["id"], made["state"], made["metadata"]) == ("s 1", {"mood": "good"}, {"ticket": 7})
        path = f"/apps/counter/users/{made['userId']}/sessions/s%201/status"
        found = await gateway.http.get(path)
        assert found.json() == {"session": made, "schedules": []}

    async def test_s12_an_id_that_is_taken_is_a_conflict(self, gateway: Gateway) -> None:
        made = await created(gateway, sessionId="s1")
        again = await gateway.http.post(
            "/apps/counter/sessions", json={"userId": made["userId"], "sessionId": "s1"}
        )
        is_problem(again, 409, "session-exists")

    async def test_under_one_key_it_is_created_once(self, gateway: Gateway) -> None:
        body = {"userId": f"user-{uuid.uuid4().hex[:8]}"}
        headers = {"Idempotency-Key": "create-1"}
        first, second = [
            await gateway.http.post("/apps/counter/sessions", json=body, headers=headers) for _ in range(2)
        ]
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json() == second.json()
        assert first.headers["location"] == f"/apps/counter/users/{body['userId']}/sessions/create-1"

    async def test_of_an_agent_that_is_not_served_it_is_not_created(self, gateway: Gateway) -> None:
        answer = await gateway.http.post("/apps/nobody/sessions", json={"userId": "ann"})
        is_problem(answer, 404, "unknown-agent")

    @pytest.mark.parametrize(
        "body",
        [{"userId": "a/b"}, {"userId": ""}, {"userId": "ann", "more": 1}, {"userId": 7}, [], "ann"],
    )
    async def test_a_body_that_makes_no_sense_is_refused(self, sqlite_gateway: Gateway, body: object) -> None:
        answer = await sqlite_gateway.http.post("/apps/counter/sessions", json=body)
        is_problem(answer, 422, "invalid-request")

    @pytest.mark.parametrize("value", ["NaN", '"\\u0000"', '"\\ud800"', "[" * 300 + "]" * 300])
    async def test_s7_what_no_store_can_hold_is_refused(self, sqlite_gateway: Gateway, value: str) -> None:
        answer = await sqlite_gateway.http.post(
            "/apps/counter/sessions",
            content=f'{{"userId": "ann", "state": {{"x": {value}}}}}',
            headers={"content-type": "application/json"},
        )
        is_problem(answer, 400, "invalid-content")


class TestListAndFind:
    async def test_s47_they_are_listed_in_pages_newest_first(self, gateway: Gateway) -> None:
        user = f"user-{uuid.uuid4().hex[:8]}"
        for number in range(3):
            await created(gateway, userId=user, sessionId=f"s{number}", state={"x": 1})
        first = (await gateway.http.get("/apps/counter/sessions", params={"user": user, "limit": 2})).json()
        assert [session["id"] for session in first["sessions"]] == ["s2", "s1"]
        assert "state" not in first["sessions"][0]
        rest = await gateway.http.get(
            "/apps/counter/sessions", params={"user": user, "limit": 2, "cursor": first["nextCursor"]}
        )
        assert [session["id"] for session in rest.json()["sessions"]] == ["s0"]
        assert "nextCursor" not in rest.json()

    async def test_s48_they_are_found_by_typed_metadata(self, gateway: Gateway) -> None:
        ticket = uuid.uuid4().hex
        made = await created(gateway, metadata={"ticket": ticket, "step": 1})
        await created(gateway, metadata={"ticket": ticket, "step": "1"})
        found = await gateway.http.post(
            "/apps/counter/sessions:find", json={"metadata": {"ticket": ticket, "step": 1}}
        )
        assert [session["id"] for session in found.json()["sessions"]] == [made["id"]]

    async def test_a_cursor_of_nobodys_is_refused(self, sqlite_gateway: Gateway) -> None:
        answer = await sqlite_gateway.http.get("/apps/counter/sessions", params={"cursor": "x"})
        is_problem(answer, 400, "invalid-option")


class TestUpdate:
    async def test_s9_at_another_version_nothing_is_changed(self, gateway: Gateway) -> None:
        made = await created(gateway, sessionId="s1")
        path = f"/apps/counter/users/{made['userId']}/sessions/s1"
        body = {"stateDelta": {"x": 1}, "metadata": {"y": 2}, "expectedVersion": made["version"]}
        changed = (await gateway.http.patch(path, json=body)).json()
        assert (changed["state"], changed["metadata"]) == ({"x": 1}, {"y": 2})
        problem = is_problem(await gateway.http.patch(path, json=body), 409, "version-mismatch")
        assert problem["actual"] == changed["version"]

    async def test_under_one_key_it_happens_once(self, gateway: Gateway) -> None:
        made = await created(gateway, sessionId="s1")
        path = f"/apps/counter/users/{made['userId']}/sessions/s1"
        headers = {"Idempotency-Key": "u1"}
        body = {"stateDelta": {"x": 1}, "metadata": {"a": 1}}
        first, second = [await gateway.http.patch(path, json=body, headers=headers) for _ in range(2)]
        assert first.json() == second.json()
        other = await gateway.http.patch(path, json={**body, "stateDelta": {"x": 2}}, headers=headers)
        is_problem(other, 409, "event-conflict")

    @pytest.mark.parametrize("version", [True, False, "1", 1.5, -1, 2**54])
    async def test_a_version_is_a_whole_number(self, sqlite_gateway: Gateway, version: object) -> None:
        path = path_of(sqlite_gateway.key())
        refused = await sqlite_gateway.http.patch(path, json={"expectedVersion": version})
        is_problem(refused, 422, "invalid-request")
        find = {"metadata": {}, "limit": version}
        is_problem(
            await sqlite_gateway.http.post("/apps/counter/sessions:find", json=find), 422, "invalid-request"
        )

    async def test_one_that_changes_nothing_is_answered_and_leaves_no_trace(self, gateway: Gateway) -> None:
        made = await created(gateway, sessionId="s1", state={"x": 1}, metadata={"y": 2})
        path = f"/apps/counter/users/{made['userId']}/sessions/s1"
        nothing: list[dict[str, object]] = [{}, {"metadata": {}}, {"stateDelta": {}, "metadata": {}}]
        for body in (*nothing, {"expectedVersion": made["version"]}):
            answer = await gateway.http.patch(path, json=body)
            assert (answer.status_code, answer.json()) == (200, made), body
        assert (await gateway.http.get(path + "/events")).json()["events"] == []
        # It may be asked to tell whether somebody else changed the session meanwhile.
        elsewhere = await gateway.http.patch(path, json={"expectedVersion": made["version"] + 1})
        is_problem(elsewhere, 409, "version-mismatch")
        is_problem(await gateway.http.patch(path + "x", json={}), 404, "session-not-found")
        assert (await gateway.http.post(path + "/end")).status_code == 200
        assert (await gateway.http.patch(path, json={})).json()["endedAt"]
        is_problem(await gateway.http.patch(path, json={"stateDelta": {"x": 2}}), 409, "session-ended")

    async def test_two_ids_of_one_request_are_refused(self, sqlite_gateway: Gateway) -> None:
        answer = await sqlite_gateway.http.patch(
            "/apps/counter/users/ann/sessions/s1", json={"requestId": "a"}, headers={"Idempotency-Key": "b"}
        )
        is_problem(answer, 400, "invalid-option")

    async def test_s49_a_batch_tells_what_became_of_each(self, gateway: Gateway) -> None:
        made = await created(gateway, sessionId="s1")
        user = made["userId"]
        updates = [
            {"userId": user, "sessionId": "s1", "stateDelta": {"x": 1}},
            {"userId": user, "sessionId": "none", "stateDelta": {"x": 1}},
        ]
        done = await gateway.http.post("/apps/counter/sessions:batchUpdate", json={"updates": updates})
        first, second = done.json()["outcomes"]
        assert first["session"]["state"] == {"x": 1}
        assert second["problem"]["code"] == "session-not-found"
        refused = await gateway.http.post(
            "/apps/counter/sessions:batchUpdate", json={"updates": updates, "atomic": True}
        )
        is_problem(refused, 404, "session-not-found")


class TestSteering:
    async def test_s30_rewind_and_redo(self, gateway: Gateway) -> None:
        user = gateway.key().user_id
        first = await told(gateway, user)
        await told(gateway, user)
        path = f"/apps/counter/users/{user}/sessions/s1"
        before = (await gateway.http.get(path + "/status")).json()["session"]["state"]
        rewound = await gateway.http.post(
            path + "/rewind", json={"before": first["invocationId"]}, headers={"Idempotency-Key": "r1"}
        )
        assert rewound.status_code == 200, rewound.text
        assert rewound.json()["requestId"] == "r1"
        assert rewound.json()["session"]["state"] == {}
        again = await gateway.http.post(
            path + "/rewind", json={"before": first["invocationId"], "requestId": "r1"}
        )
        assert again.json()["seq"] == rewound.json()["seq"]
        redone = await gateway.http.post(path + "/rewind", json={"before": "r1"})
        assert redone.json()["session"]["state"] == before

    async def test_s27_of_an_unknown_invocation(self, sqlite_gateway: Gateway) -> None:
        user = sqlite_gateway.key().user_id
        await told(sqlite_gateway, user)
        path = f"/apps/counter/users/{user}/sessions/s1"
        answer = await sqlite_gateway.http.post(path + "/rewind", json={"before": "none"})
        is_problem(answer, 404, "invocation-not-found")
        is_problem(await sqlite_gateway.http.get(path + "/at/none"), 404, "invocation-not-found")

    async def test_a_fork_is_a_session_of_its_own(self, gateway: Gateway) -> None:
        user = gateway.key().user_id
        await told(gateway, user)
        second = await told(gateway, user)
        path = f"/apps/counter/users/{user}/sessions/s1"
        headers = {"Idempotency-Key": "f1"}
        body = {"before": second["invocationId"]}
        first, again = [await gateway.http.post(path + "/fork", json=body, headers=headers) for _ in "ab"]
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        made = first.json()
        assert (made["id"], made["userId"]) == ("f1", user)
        assert made["forkedFrom"]["before"] == second["invocationId"]
        other = await gateway.http.post(path + "/fork", json={}, headers=headers)
        is_problem(other, 409, "session-exists")

    async def test_the_past_is_shown_and_nothing_changed(self, gateway: Gateway) -> None:
        user = gateway.key().user_id
        await told(gateway, user)
        second = await told(gateway, user)
        path = f"/apps/counter/users/{user}/sessions/s1"
        now = (await gateway.http.get(path + "/status")).json()["session"]
        then = (await gateway.http.get(path + f"/at/{second['invocationId']}")).json()
        assert then["session"]["state"] != now["state"]
        assert then["session"]["head"] < now["head"]
        assert then["session"]["events"][0]["author"] == "user"
        assert (await gateway.http.get(path + "/status")).json()["session"] == now

    async def test_end_then_cancel_then_nothing_more(self, gateway: Gateway) -> None:
        user = gateway.key().user_id
        await told(gateway, user)
        path = f"/apps/counter/users/{user}/sessions/s1"
        ended = (await gateway.http.post(path + "/end")).json()
        assert ended["endedAt"]
        assert (await gateway.http.post(path + "/end", json={})).json() == ended
        assert (await gateway.http.post(path + "/cancel")).status_code == 204
        is_problem(await gateway.http.post(path + "/messages", json={"text": "x"}), 409, "session-ended")
        opened = await gateway.http.post(path + "/messages", json={"text": "Add one.", "reopen": True})
        assert opened.json()["status"] == "answered"

    async def test_compact_gives_the_summary(self, gateway: Gateway) -> None:
        user = gateway.key().user_id
        path = f"/apps/counter/users/{user}/sessions/s1"
        for _ in range(2):  # its policy would sum up after three
            await told(gateway, user)
        first = await gateway.http.post(path + "/compact", headers={"Idempotency-Key": "c1"})
        assert first.status_code == 200, first.text
        assert first.json()["summary"]["compaction"]["start"] == 1
        again = await gateway.http.post(path + "/compact", json={"requestId": "c1"})
        assert again.json() == first.json()
        context = (await gateway.http.get(path + "/context")).json()
        assert context["summarySeq"] == first.json()["seq"]
        assert "request" in context
        assert context["contents"]

    @pytest.mark.parametrize("what", ["status", "context", "events", "files", "at/m1"])
    async def test_of_no_session_there_is_nothing_to_look_at(
        self, sqlite_gateway: Gateway, what: str
    ) -> None:
        answer = await sqlite_gateway.http.get(path_of(sqlite_gateway.key(), f"/{what}"))
        is_problem(answer, 404, "session-not-found")

    @pytest.mark.parametrize("what", ["rewind", "fork", "cancel", "end", "compact"])
    async def test_of_no_session_there_is_nothing_to_steer(self, sqlite_gateway: Gateway, what: str) -> None:
        body = {"before": "m1"} if what == "rewind" else {}
        answer = await sqlite_gateway.http.post(path_of(sqlite_gateway.key(), f"/{what}"), json=body)
        is_problem(answer, 404, "session-not-found")


class TestEvents:
    async def test_pages_go_on_by_seq_and_show_what_was_rewound(self, gateway: Gateway) -> None:
        user = gateway.key().user_id
        first = await told(gateway, user)
        path = f"/apps/counter/users/{user}/sessions/s1"
        await gateway.http.post(path + "/rewind", json={"before": first["invocationId"]})
        seqs: list[int] = []
        after: int | None = 0
        while after is not None:
            page = (await gateway.http.get(path + "/events", params={"after": after, "limit": 2})).json()
            seqs += [event["seq"] for event in page["events"]]
            after = page.get("next")
        assert seqs == list(range(1, page["head"] + 1))
        live = (await gateway.http.get(path + "/events", params={"live": True})).json()
        assert [bool(event.get("rewind")) for event in live["events"]] == [True]

    async def test_no_page_is_too_long(self, sqlite_gateway: Gateway) -> None:
        path = path_of(sqlite_gateway.key(), "/events")
        for params in ({"limit": 0}, {"limit": 1001}, {"after": -1}):
            answer = await sqlite_gateway.http.get(path, params=params)
            is_problem(answer, 422, "invalid-request")
