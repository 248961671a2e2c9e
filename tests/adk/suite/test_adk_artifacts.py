"""The contract of ``BaseArtifactService``, as its docs state it; and what ours adds."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from google.adk.artifacts import BaseArtifactService
from google.adk.artifacts.artifact_util import get_artifact_uri
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.events import Event
from google.genai import types

from integrations.google_adk import PerdureArtifactService, PerdureSessionService
from perdure.types import SessionKey
from tests.adk.suite.conftest import Database, Services

APP, USER = "shop", "ada"
WHO: dict[str, Any] = {"app_name": APP, "user_id": USER}
IN_S1: dict[str, Any] = {**WHO, "session_id": "s1"}
PNG = types.Part.from_bytes(data=bytes(range(256)), mime_type="image/png")


@pytest.fixture
async def artifacts(services: Services) -> BaseArtifactService:
    for name in ("s1", "s2"):
        await services.sessions.create_session(**WHO, session_id=name)
    return services.artifacts


async def test_versions_count_from_0(artifacts: BaseArtifactService) -> None:
    for number in range(3):
        part = types.Part(text=f"v{number}")
        assert await artifacts.save_artifact(**IN_S1, filename="a.txt", artifact=part) == number
    assert await artifacts.save_artifact(**IN_S1, filename="b.txt", artifact=PNG) == 0
    assert await artifacts.list_versions(**IN_S1, filename="a.txt") == [0, 1, 2]


async def test_the_newest_is_loaded_or_the_version_asked_for(artifacts: BaseArtifactService) -> None:
    parts = [types.Part(text="one"), PNG, types.Part(text="three")]
    for part in parts:
        await artifacts.save_artifact(**IN_S1, filename="a", artifact=part)
    assert await artifacts.load_artifact(**IN_S1, filename="a") == parts[2]
    for number, part in enumerate(parts):
        assert await artifacts.load_artifact(**IN_S1, filename="a", version=number) == part
    for number in (3, -1):
        assert await artifacts.load_artifact(**IN_S1, filename="a", version=number) is None


async def test_what_is_not_there_is_none_or_empty(artifacts: BaseArtifactService) -> None:
    await artifacts.save_artifact(**IN_S1, filename="a", artifact=PNG)
    for who in ({**IN_S1, "session_id": "s2"}, {**IN_S1, "user_id": "bob"}, {**IN_S1, "app_name": "x"}):
        assert await artifacts.load_artifact(**who, filename="a") is None
        assert await artifacts.list_versions(**who, filename="a") == []
        assert await artifacts.list_artifact_versions(**who, filename="a") == []
        assert await artifacts.get_artifact_version(**who, filename="a") is None
        assert await artifacts.list_artifact_keys(**who) == []
    assert await artifacts.load_artifact(**IN_S1, filename="b") is None
    await artifacts.delete_artifact(**IN_S1, filename="b")


@pytest.mark.parametrize(
    "part",
    [
        types.Part(text="Größe 大 🙂\n"),
        types.Part(text=""),
        PNG,
        types.Part.from_bytes(data=b"x", mime_type="text/plain"),
        types.Part.from_bytes(data=b"", mime_type="text/csv"),
        types.Part(inline_data=types.Blob(data=b"\0\xff", mime_type="a/b", display_name="Ä.bin")),
        types.Part(file_data=types.FileData(file_uri="gs://bucket/o", mime_type="video/mp4")),
        types.Part(text="deep", thought=True, thought_signature=b"\xff\xfe"),
    ],
    ids=["text", "no text", "bytes", "bytes of text", "no bytes", "named", "reference", "thought"],
)
async def test_s56_a_part_reloads(artifacts: BaseArtifactService, part: types.Part) -> None:
    await artifacts.save_artifact(**IN_S1, filename="a", artifact=part)
    assert await artifacts.load_artifact(**IN_S1, filename="a") == part


@pytest.mark.parametrize("key", ["inlineData", "inline_data"])
async def test_a_part_may_be_a_dict(artifacts: BaseArtifactService, key: str) -> None:
    kind = "mimeType" if key == "inlineData" else "mime_type"
    part = {key: {kind: "text/csv", "data": "YSxi"}}
    await artifacts.save_artifact(**IN_S1, filename="a", artifact=part)
    loaded = await artifacts.load_artifact(**IN_S1, filename="a")
    assert loaded == types.Part.from_bytes(data=b"a,b", mime_type="text/csv")


async def test_a_part_that_is_no_artifact_is_refused(artifacts: BaseArtifactService) -> None:
    call = types.Part(function_call=types.FunctionCall(name="f", args={}))
    for part in (types.Part(), call):
        with pytest.raises(InputValidationError):
            await artifacts.save_artifact(**IN_S1, filename="a", artifact=part)
    assert await artifacts.list_artifact_keys(**IN_S1) == []


async def test_the_users_artifacts_are_seen_in_all_sessions(artifacts: BaseArtifactService) -> None:
    await artifacts.save_artifact(**IN_S1, filename="user:cv", artifact=PNG)
    await artifacts.save_artifact(**IN_S1, filename="own", artifact=PNG)
    in_s2 = {**WHO, "session_id": "s2"}
    assert await artifacts.save_artifact(**in_s2, filename="user:cv", artifact=types.Part(text="2")) == 1
    for who in (IN_S1, in_s2, WHO):
        assert await artifacts.load_artifact(**who, filename="user:cv") == types.Part(text="2")
    assert await artifacts.list_artifact_keys(**IN_S1) == ["own", "user:cv"]
    assert await artifacts.list_artifact_keys(**in_s2) == ["user:cv"]
    assert await artifacts.list_artifact_keys(**WHO) == ["user:cv"]
    assert await artifacts.list_artifact_keys(app_name=APP, user_id="bob", session_id="s1") == []


async def test_keys_are_sorted_and_complete(artifacts: BaseArtifactService) -> None:
    for name in ("b", "user:a", "z/y.txt", "März 2026.txt", "a"):
        await artifacts.save_artifact(**IN_S1, filename=name, artifact=PNG)
    names = await artifacts.list_artifact_keys(**IN_S1)
    assert names == sorted(["b", "user:a", "z/y.txt", "März 2026.txt", "a"])
    for name in names:
        assert await artifacts.load_artifact(**IN_S1, filename=name) == PNG


async def test_what_is_said_about_versions(artifacts: BaseArtifactService) -> None:
    before = time.time()
    await artifacts.save_artifact(**IN_S1, filename="a", artifact=PNG, custom_metadata={"x": {"y": None}})
    await artifacts.save_artifact(**IN_S1, filename="a", artifact=types.Part(text="t"))
    first, second = await artifacts.list_artifact_versions(**IN_S1, filename="a")
    assert (first.version, second.version) == (0, 1)
    assert (first.mime_type, second.mime_type) == ("image/png", "text/plain")
    assert (first.custom_metadata, second.custom_metadata) == ({"x": {"y": None}}, {})
    assert first.canonical_uri != second.canonical_uri
    assert before - 1 <= first.create_time <= second.create_time <= time.time() + 1
    assert await artifacts.get_artifact_version(**IN_S1, filename="a") == second
    assert await artifacts.get_artifact_version(**IN_S1, filename="a", version=0) == first
    assert await artifacts.get_artifact_version(**IN_S1, filename="a", version=2) is None
    assert await artifacts.load_artifact(**IN_S1, filename="a", version=0) == PNG


async def test_delete_takes_all_versions(artifacts: BaseArtifactService) -> None:
    for name in ("a", "a", "b", "user:c"):
        await artifacts.save_artifact(**IN_S1, filename=name, artifact=PNG)
    for name in ("a", "a", "user:c"):
        await artifacts.delete_artifact(**IN_S1, filename=name)
    assert await artifacts.list_artifact_keys(**IN_S1) == ["b"]
    for name in ("a", "user:c"):
        assert await artifacts.load_artifact(**IN_S1, filename=name) is None
        assert await artifacts.load_artifact(**IN_S1, filename=name, version=0) is None
        assert await artifacts.list_versions(**IN_S1, filename=name) == []
        assert await artifacts.get_artifact_version(**IN_S1, filename=name) is None
    await artifacts.save_artifact(**IN_S1, filename="a", artifact=types.Part(text="new"))
    assert await artifacts.load_artifact(**IN_S1, filename="a") == types.Part(text="new")
    assert len(await artifacts.list_versions(**IN_S1, filename="a")) == 1


async def test_a_reference_is_followed_within_its_scope(artifacts: BaseArtifactService) -> None:
    def link(**target: Any) -> types.Part:
        return types.Part(file_data=types.FileData(file_uri=get_artifact_uri(**target)))

    await artifacts.save_artifact(**IN_S1, filename="a", artifact=PNG)
    to_a = link(**IN_S1, filename="a", version=0)
    await artifacts.save_artifact(**IN_S1, filename="to a", artifact=to_a)
    await artifacts.save_artifact(**IN_S1, filename="x", artifact=link(**IN_S1, filename="to a", version=0))
    assert await artifacts.load_artifact(**IN_S1, filename="x") == PNG
    for elsewhere in ({**IN_S1, "session_id": "s2"}, {**IN_S1, "user_id": "bob"}, {**IN_S1, "app_name": "x"}):
        with pytest.raises(InputValidationError):
            await artifacts.save_artifact(
                **IN_S1, filename="y", artifact=link(**elsewhere, filename="a", version=0)
            )


async def test_a_circle_of_references_ends(artifacts: BaseArtifactService) -> None:
    uri = get_artifact_uri(**IN_S1, filename="a", version=0)
    part = types.Part(file_data=types.FileData(file_uri=uri))
    await artifacts.save_artifact(**IN_S1, filename="a", artifact=part)
    with pytest.raises(InputValidationError, match="recursion"):
        await artifacts.load_artifact(**IN_S1, filename="a")


# What ours adds


@pytest.fixture
async def mine(ours: PerdureSessionService) -> PerdureArtifactService:
    await ours.create_session(**WHO, session_id="s1")
    return ours.artifacts


async def test_s53_saves_at_once_give_distinct_versions(mine: PerdureArtifactService) -> None:
    saves = (mine.save_artifact(**IN_S1, filename="a", artifact=PNG) for _ in range(20))
    assert sorted(await asyncio.gather(*saves)) == list(range(20))


@pytest.mark.parametrize("name", ["", "../a", "/a", "a/../../b", "a\0b", "user:", "user:../a"])
async def test_s54_a_name_that_leads_out_is_refused(mine: PerdureArtifactService, name: str) -> None:
    with pytest.raises(InputValidationError):
        await mine.save_artifact(**IN_S1, filename=name, artifact=PNG)


@pytest.mark.parametrize("session_id", ["", " ", "user/own"])
async def test_a_session_id_that_none_can_have_is_refused(
    mine: PerdureArtifactService, session_id: str
) -> None:
    with pytest.raises(InputValidationError):
        await mine.save_artifact(**WHO, session_id=session_id, filename="a", artifact=PNG)


async def test_without_a_session_an_artifact_is_the_users(ours: PerdureSessionService) -> None:
    artifacts = ours.artifacts
    assert await artifacts.list_artifact_keys(**WHO) == []
    assert await artifacts.save_artifact(**WHO, filename="cv", artifact=PNG) == 0
    assert await artifacts.save_artifact(**WHO, filename="user:cv", artifact=types.Part(text="2")) == 1
    assert await artifacts.list_versions(**WHO, filename="cv") == [0, 1]
    # Also for a session that is not in the store.
    assert await artifacts.load_artifact(**IN_S1, filename="user:cv") == types.Part(text="2")
    assert await artifacts.list_artifact_keys(**IN_S1) == ["user:cv"]
    assert (await ours.list_sessions(app_name=APP)).sessions == []


async def test_files_of_a_session_that_is_made_later(services: Services) -> None:
    sessions, artifacts = services.sessions, services.artifacts
    assert await artifacts.save_artifact(**IN_S1, filename="a", artifact=PNG) == 0
    assert await artifacts.load_artifact(**IN_S1, filename="a") == PNG
    assert await artifacts.list_artifact_keys(**IN_S1) == ["a"]
    assert await sessions.get_session(**IN_S1) is None
    assert (await sessions.list_sessions(app_name=APP)).sessions == []
    state = {"own": 1, "user:u": 2}
    session = await sessions.create_session(**IN_S1, state=state)
    assert (session.state, session.events) == (state, [])
    assert await sessions.get_session(**IN_S1) == session
    with pytest.raises(AlreadyExistsError):
        await sessions.create_session(**IN_S1)
    assert await artifacts.save_artifact(**IN_S1, filename="a", artifact=PNG) == 1
    await sessions.append_event(session, Event(author="user", message="hello"))
    found = await sessions.get_session(**IN_S1)
    assert found is not None
    assert [event.author for event in found.events] == ["user"]


async def test_a_session_is_made_once_while_files_are_saved(ours: PerdureSessionService) -> None:
    saves = (ours.artifacts.save_artifact(**IN_S1, filename=f"f{n}", artifact=PNG) for n in range(8))
    makes = (ours.create_session(**IN_S1, state={"n": n}) for n in range(3))
    done = await asyncio.gather(*saves, *makes, return_exceptions=True)
    assert sum(isinstance(result, AlreadyExistsError) for result in done) == 2
    assert not [r for r in done if isinstance(r, Exception) and not isinstance(r, AlreadyExistsError)]
    assert len(await ours.artifacts.list_artifact_keys(**IN_S1)) == 8


async def test_s22_artifacts_go_with_the_session_but_not_the_users(ours: PerdureSessionService) -> None:
    await ours.create_session(**WHO, session_id="s1")
    for name in ("a", "user:b"):
        await ours.artifacts.save_artifact(**IN_S1, filename=name, artifact=PNG)
    await ours.delete_session(**WHO, session_id="s1")
    assert await ours.artifacts.load_artifact(**IN_S1, filename="a") is None
    assert await ours.artifacts.load_artifact(**WHO, filename="b") == PNG


async def test_bytes_without_a_type_and_large_metadata_reload(mine: PerdureArtifactService) -> None:
    part = types.Part(inline_data=types.Blob(data=b"x"))
    metadata = {"text": "ü" * 1000, "n": 1.5}
    await mine.save_artifact(**IN_S1, filename="a", artifact=part, custom_metadata=metadata)
    assert await mine.load_artifact(**IN_S1, filename="a") == part
    version = await mine.get_artifact_version(**IN_S1, filename="a")
    assert version is not None
    assert (version.mime_type, version.custom_metadata) == (None, metadata)
    for unstorable in ({"f": print}, {"n": float("nan")}):
        with pytest.raises(InputValidationError, match="custom_metadata"):
            await mine.save_artifact(**IN_S1, filename="b", artifact=part, custom_metadata=unstorable)


async def test_the_uri_of_a_version_can_be_referred_to(mine: PerdureArtifactService) -> None:
    for name in ("a b/ü.png", "user:c"):
        await mine.save_artifact(**IN_S1, filename=name, artifact=PNG)
        version = await mine.get_artifact_version(**IN_S1, filename=name)
        assert version is not None
        link = types.Part(file_data=types.FileData(file_uri=version.canonical_uri))
        await mine.save_artifact(**IN_S1, filename="link", artifact=link)
        assert await mine.load_artifact(**IN_S1, filename="link") == PNG


async def test_perdure_reads_the_files_as_they_are(database: Database) -> None:
    service = database.service()
    await service.create_session(**WHO, session_id="s1")
    await service.artifacts.save_artifact(**IN_S1, filename="a.png", artifact=PNG)
    await service.artifacts.save_artifact(**IN_S1, filename="a.txt", artifact=types.Part(text="Größe"))
    store = await database.store()
    key = SessionKey(app=APP, user_id=USER, session_id="s1")
    picture, data = await store.load_artifact(key, "a.png")
    assert (picture.version, picture.mime_type, data) == (1, "image/png", bytes(range(256)))
    text, data = await store.load_artifact(key, "a.txt")
    assert (text.mime_type.split(";")[0], data.decode()) == ("text/plain", "Größe")
