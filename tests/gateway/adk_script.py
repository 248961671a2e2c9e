"""Requests to send to google-adk's API server and to ours, and what is known to differ in the answers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.testing import call, say

__all__ = ["SCRIPT", "Differs", "Step", "comparable"]

SESSIONS = "/apps/tally/users/ada/sessions"
S1 = f"{SESSIONS}/s1"
FILES = f"{S1}/artifacts"
REPORT = f"{FILES}/report.txt"


@dataclass(frozen=True, kw_only=True)
class Differs:
    """A difference on purpose. ``docs/adk.md`` gives the reason in the row that begins with ``row``."""

    row: str
    theirs: str
    """What the answer of google-adk's server contains: its status, a space, and of its body."""
    ours: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One request."""

    method: str
    path: str
    body: Any = None
    raw: str | None = None
    """A body that is no JSON, or none that this client would write."""
    answers: Sequence[Any] = ()
    """What the model will answer, in parts."""
    fails: int | None = None
    """The status that the model's server will answer with."""
    differs: Differs | None = None

    @property
    def name(self) -> str:
        """For the test's report."""
        return f"{self.method} {self.path} {self.raw or json.dumps(self.body)}"[:150]


def get(path: str, differs: Differs | None = None) -> Step:
    return Step(method="GET", path=path, differs=differs)


def post(path: str, body: Any, differs: Differs | None = None) -> Step:
    return Step(method="POST", path=path, body=body, differs=differs)


def run(
    text: str | None,
    *answers: Any,
    path: str = "/run",
    session: str = "s1",
    app: str | None = "tally",
    differs: Differs | None = None,
    **more: Any,
) -> Step:
    said = {"newMessage": {"role": "user", "parts": [{"text": text}]}} if text is not None else {}
    body = {"appName": app, "userId": "ada", "sessionId": session, **said, **more}
    return Step(method="POST", path=path, body=body, answers=answers, differs=differs)


NO_AGENT = '404 {"detail":"Agent not found: \'nope\'.'
NO_REST = Differs(
    row="Status 404 and 405 of a path",
    theirs='{"detail":"Not Found"}',
    ours='"urn:perdure:problem:route-not-found"',
)

SCRIPT: Sequence[Step] = (
    # Apps
    get("/health"),
    get("/list-apps"),
    get("/list-apps?relative_path=./"),
    get("/list-apps?detailed=true"),
    get("/list-apps?detailed=maybe"),
    get("/version", Differs(row="`/version`", theirs='200 {"version":"2.', ours='200 {"version":"0.')),
    get(
        "/apps/tally/app-info",
        Differs(
            row="Schemas of tools",
            theirs='"title":"countParams"',
            ours='"additionalProperties":false',
        ),
    ),
    get(
        "/apps/nope/app-info",
        Differs(
            row="An app that is not there",
            theirs=NO_AGENT + " No matching directory",
            ours=NO_AGENT + '"}',
        ),
    ),
    # Sessions
    post(SESSIONS, {"sessionId": "s1", "state": {"mode": "test", "user:lang": "en", "app:place": 1}}),
    post(SESSIONS, {"sessionId": "s1"}),
    post(SESSIONS, {"sessionId": " s2 ", "state": {"deep": {"b": [1, None, {"ä": 1.5}], "a": "“x”"}}}),
    Step(method="POST", path=SESSIONS),
    post(f"{SESSIONS}/s3", {"k": 1}),
    post(f"{SESSIONS}/s3", None),
    post(SESSIONS, {"state": 5}),
    post(SESSIONS, {"options": {"ttl": 5}}),
    post(SESSIONS, {"options": {"state": {}}}),
    Step(method="POST", path=SESSIONS, raw="{bad"),
    post(
        SESSIONS,
        {
            "sessionId": "s4",
            "events": [
                {
                    "id": "11111111-2222-3333-4444-555555555555",
                    "invocationId": "e-11111111-2222-3333-4444-555555555555",
                    "author": "user",
                    "timestamp": 1760000000.5,
                    "content": {"role": "user", "parts": [{"text": "hello"}]},
                },
                {
                    "id": "11111111-2222-3333-4444-666666666666",
                    "invocationId": "e-11111111-2222-3333-4444-555555555555",
                    "author": "tally",
                    "timestamp": 1760000001.25,
                    "content": {
                        "role": "model",
                        "parts": [{"inline_data": {"data": "+/8=", "mime_type": "image/png"}}],
                    },
                    "modelVersion": "some",
                    "finishReason": "STOP",
                    "usageMetadata": {"totalTokenCount": 5},
                    "customMetadata": {"mine": 1, "__adk_internal_x": 2},
                },
            ],
        },
    ),
    get(f"{SESSIONS}/s4"),
    post(SESSIONS, {"events": [{"author": "tally", "longRunningToolIds": ["x"]}]}),
    post(SESSIONS, {"events": [{"author": "tally", "actions": {"stateDelta": {"a": 1}}}]}),
    post(
        SESSIONS,
        {"events": [{"content": {"parts": [{"functionCall": {"name": "adk_request_input", "args": {}}}]}}]},
    ),
    get(S1),
    get(f"{SESSIONS}/none"),
    get("/apps/tally/users/nobody/sessions"),
    get(SESSIONS),
    # A change of state
    Step(method="PATCH", path=S1, body={"stateDelta": {"mode": "live"}}),
    Step(
        method="PATCH",
        path=f"{SESSIONS}/none",
        body={"stateDelta": {"mode": "live"}},
        differs=Differs(
            row="`PATCH` of a session that is not there",
            theirs='404 {"detail":"Session not found"}',
            ours='"urn:perdure:problem:session-not-found"',
        ),
    ),
    # Turns
    run("Hello", say("Hi there: ünïcödé, “quotes”")),
    run(
        "Count eve",
        call("count", call_id="c1", name="eve"),
        say("Eve was here once."),
        stateDelta={"note": 1},
    ),
    run("Count without ids", call("count", name="kim"), say("Kim, too.")),
    run("Save a report", call("report", call_id="c4", filename="report.txt"), say("Saved.")),
    run("Hello again", say("Hi."), role="assistant"),
    run("Save another", call("report", call_id="c5", filename="a/b.txt"), say("Saved."), path="/run_sse"),
    run(
        "And one more",
        call("report", call_id="c6", filename="report.txt"),
        say("Saved."),
        path="/run_sse",
        functionCallEventId="x",
    ),
    run("Stream", say("A stream of words."), path="/run_sse", session="s2", streaming=True),
    run(
        "Stream a call",
        call("count", call_id="c7", name="zoe"),
        say("Zoe was here."),
        path="/run_sse",
        session="s2",
        streaming=True,
    ),
    get(
        f"{SESSIONS}/s2",
        Differs(
            row="A streamed answer, read again",
            theirs='"role":"model"},"partial":false,"finishReason":"STOP"',
            ours='"role":"model"},"finishReason":"STOP"',
        ),
    ),
    get(S1),
    get(SESSIONS),
    # Turns that cannot be
    run("Hi", session="none"),
    run("Hi", session="none", path="/run_sse"),
    run(
        "Hi",
        app="nope",
        differs=Differs(
            row="An app that is not there",
            theirs=NO_AGENT + " No matching directory",
            ours=NO_AGENT + '"}',
        ),
    ),
    run(
        "Hi",
        app=None,
        differs=Differs(
            row="`/run` without an app",
            theirs='400 {"detail":"app_name is required when ADK_DEFAULT_APP_NAME is not set"}',
            ours='400 {"detail":"app_name is required"}',
        ),
    ),
    run(
        None,
        say("Nothing was said."),
        session="s3",
        differs=Differs(
            row="`/run` without a message",
            theirs='200 [{"modelVersion":"stand-in","content":{"parts":[{"text":"Nothing was said."}]',
            ours='400 {"detail":"Running an agent requires a new_message',
        ),
    ),
    post("/run", {"appName": "tally", "userId": "ada"}),
    post("/run_sse", {"appName": "tally", "sessionId": "s1", "newMessage": {"parts": [{"text": 5}]}}),
    post("/run", [1]),
    run(
        "Explode",
        call("explode", call_id="c8"),
        say("It exploded."),
        session="s3",
        differs=Differs(
            row="A tool that raises",
            theirs="500 Internal Server Error",
            ours='200 [{"modelVersion":"stand-in"',
        ),
    ),
    run(
        "Count two",
        [call("count", call_id="c2", name="eve"), call("count", call_id="c3", name="bob")],
        say("Both."),
        session="s4",
        differs=Differs(
            row="Several calls in one step",
            theirs='"response":{"eve":1}}},{"functionResponse":{"id":"c3"',
            ours='"response":{"eve":1}}}],"role":"user"}',
        ),
    ),
    Step(
        method="POST",
        path="/run",
        body={
            "appName": "tally",
            "userId": "ada",
            "sessionId": "s3",
            "newMessage": {"role": "user", "parts": [{"text": "Fail"}]},
        },
        fails=400,
        differs=Differs(
            row="A model that fails",
            theirs="500 Internal Server Error",
            ours='200 [{"errorCode":"ModelRefused","errorMessage":',
        ),
    ),
    # Artifacts
    get(FILES),
    get(REPORT),
    get(f"{REPORT}?version=0"),
    get(f"{REPORT}?version=7"),
    get(f"{REPORT}?version=x"),
    get(f"{REPORT}/versions"),
    get(f"{REPORT}/versions/0"),
    get(f"{REPORT}/versions/latest"),
    get(f"{REPORT}/versions/7"),
    get(f"{REPORT}/versions/-1"),
    get(f"{REPORT}/versions/x"),
    get(f"{REPORT}/versions/metadata"),
    get(f"{REPORT}/versions/0/metadata"),
    get(f"{REPORT}/versions/latest/metadata"),
    get(f"{REPORT}/versions/7/metadata"),
    get(f"{FILES}/a/b.txt"),
    get(f"{FILES}/none.txt"),
    get(f"{FILES}/none.txt/versions"),
    get(f"{FILES}/none.txt/versions/metadata"),
    get(f"{FILES}/none.txt/versions/latest/metadata"),
    get(f"{SESSIONS}/none/artifacts/x"),
    post(FILES, {"filename": "a note.txt", "artifact": {"text": "ünïcödé"}}),
    post(FILES, {"filename": "a note.txt", "artifact": {"text": ""}}),
    post(
        FILES,
        {
            "filename": "user:logo.png",
            "artifact": {"inlineData": {"data": "+/8=", "mimeType": "image/png"}},
            "customMetadata": {"k": [1, "x"]},
        },
    ),
    post(FILES, {"filename": "empty", "artifact": {}}),
    post(FILES, {"filename": "odd", "artifact": {"no": 1}}),
    post(FILES, {"artifact": {"text": "x"}}),
    post(
        FILES,
        {"filename": "../out.txt", "artifact": {"text": "x"}},
        Differs(
            row="A name with `..`",
            theirs='200 {"version":0,',
            ours='400 {"detail":"artifact name',
        ),
    ),
    post(
        f"{SESSIONS}/none/artifacts",
        {"filename": "x.txt", "artifact": {"text": "x"}},
        Differs(
            row="A file for a session that is not there",
            theirs='200 {"version":0,',
            ours='404 {"detail":"Session not found"}',
        ),
    ),
    get(f"{FILES}/a%20note.txt"),
    get(f"{FILES}/user:logo.png"),
    get(f"{FILES}/user:logo.png/versions/0/metadata"),
    get(f"{SESSIONS}/s3/artifacts/user:logo.png"),
    Step(method="DELETE", path=f"{FILES}/a/b.txt"),
    Step(method="DELETE", path=f"{FILES}/a/b.txt"),
    get(f"{FILES}/a/b.txt"),
    get(f"{FILES}/a/b.txt/versions"),
    # The rest
    Step(
        method="PATCH",
        path="/apps/tally/users/ada/memory",
        body={"sessionId": "s1"},
    ),
    Step(method="PATCH", path="/apps/tally/users/ada/memory", body={"sessionId": "nope"}),
    Step(method="PATCH", path="/apps/tally/users/ada/memory", body={}),
    post("/agent-identity/finalize", {}),
    get("/nope", NO_REST),
    Step(method="DELETE", path=f"{SESSIONS}/s3"),
    Step(method="DELETE", path=f"{SESSIONS}/s3"),
    get(f"{SESSIONS}/s3"),
    get(SESSIONS),
    Step(
        method="PATCH",
        path=f"{SESSIONS}/s2",
        body={"stateDelta": {"deep": None}},
        differs=Differs(
            row="null in a state delta", theirs='"state":{"deep":null,"visits"', ours='"state":{"visits"'
        ),
    ),
)

_TIME = re.compile(r'"(timestamp|lastUpdateTime|createTime)":[0-9.e+]+')
_GIVEN = ("1760000000.5", "1760000001.25")
_ID = re.compile(
    r'"(?:adk-)?(?:e-|p-)?(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})(?::[a-z0-9.]+)?"'
)
_PROMPT = re.compile(r'"(promptTokenCount|totalTokenCount|tokenCount)":\d+')


def comparable(text: str) -> str:
    """An answer's body without what has to differ between two servers.

    Ids become their place among the ids of the answer, so that it still shows which are the
    same; times become 0; sizes of the prompt, which google-adk adds its own words to, too.
    """
    text = _TIME.sub(lambda found: found[0] if found[0].endswith(_GIVEN) else f'"{found[1]}":0', text)
    text = _PROMPT.sub(r'"\1":0', text)
    text = text.replace('"canonicalUri":"memory://', '"canonicalUri":"artifact://')
    ids: dict[str, str] = {}
    return _ID.sub(lambda found: ids.setdefault(found[0], f'"id{len(ids) + 1}"'), text)
