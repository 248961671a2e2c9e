"""What every filesystem for artifacts must do: memory, files, S3 and GCS."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import ArtifactDamaged, ArtifactNotFound
from perdure.types import SessionKey
from storage.blob_keys import blob_key, identity, owner_of, prefix_of
from storage.blobs import BlobStore
from storage.schema import artifacts
from storage.sessions import SessionStore
from tests.conformance.events import event, say

CONTENTS = [b"", b"x", bytes(range(256)), "grüße\0".encode(), b"big" * 500_000]


@pytest.fixture
def blobs(url: str) -> BlobStore:
    return BlobStore(url)


def files_in(folder: Path) -> list[str]:
    """The files below a folder, by their relative paths."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("data", CONTENTS, ids=["empty", "one", "all bytes", "text", "large"])
async def test_s55_s56_bytes_come_back_equal(blobs: BlobStore, key: SessionKey, data: bytes) -> None:
    name = await blobs.write(key, data)
    assert name == await blobs.write(key, data)
    assert await blobs.read(name) == data


async def test_writers_at_once_agree(blobs: BlobStore, key: SessionKey) -> None:
    names = await asyncio.gather(*(blobs.write(key, b"same") for _ in range(8)))
    assert len(set(names)) == 1
    assert await blobs.read(names[0]) == b"same"


async def test_a_blob_that_is_gone_says_so(blobs: BlobStore, key: SessionKey) -> None:
    with pytest.raises(ArtifactNotFound, match="restore it"):
        await blobs.read(blob_key(key, b"never written"))


async def test_s56_blobs_are_found_dated_and_removed(blobs: BlobStore, key: SessionKey) -> None:
    assert await blobs.prefixes() == []
    assert await blobs.keys("counter/ada") == []
    others = replace(key, user_id="a/b ~")
    names = sorted([await blobs.write(key, b"one"), await blobs.write(key, b"two")])
    other = await blobs.write(others, b"one")
    assert await blobs.prefixes() == ["counter/a%2Fb%20%7E", "counter/ada"]
    owners = [owner_of(prefix) for prefix in await blobs.prefixes()]
    assert owners == [("counter", "a/b ~"), ("counter", "ada")]
    assert await blobs.keys("counter/ada") == names
    written = await blobs.modified(names[0])
    assert written is not None
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
    assert await blobs.remove(names[0])
    assert await blobs.modified(names[0]) is None
    assert await blobs.keys("counter/ada") == names[1:]
    assert await blobs.read(other) == b"one"


async def test_s56_an_orphan_is_collected_on_every_filesystem(url: str, key: SessionKey) -> None:
    store = await SessionStore.open("sqlite://", url)
    await say(store, key, "i1", artifact=("f", b"kept"))
    await store._blobs.write(key, b"orphan")
    assert await store.collect_blobs() == 0, "it is young"
    assert await store.collect_blobs(older_than=timedelta(0)) == 1
    assert (await store.load_artifact(key, "f"))[1] == b"kept"
    await store.delete(key)
    assert blob_key(key, b"kept") not in await store._blobs.keys("counter/ada")
    await store.close()


async def test_s56_a_draft_that_a_crash_left_is_collected_and_what_is_not_ours_is_not(
    tmp_path: Path, key: SessionKey
) -> None:
    store = await SessionStore.open("sqlite://", f"file://{tmp_path}")
    name = await store._blobs.write(key, b"data")
    draft = tmp_path / Path(name).parent / f".{Path(name).name}.{'0' * 32}"
    draft.write_bytes(b"da")
    being_written = draft.with_name(f".{Path(name).name}.{'1' * 32}")
    being_written.write_bytes(b"d")
    os.utime(draft, (0, 0))
    foreign = [tmp_path / "readme", tmp_path / "counter" / "ada" / "ab" / "notes", tmp_path / "x" / "y" / "z"]
    for file in foreign:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("not ours")
    assert await store.collect_blobs(older_than=timedelta(0)) == 2
    await store.close()
    left = [*foreign, being_written]
    assert sorted(files_in(tmp_path)) == sorted(str(file.relative_to(tmp_path)) for file in left)


async def test_s56_an_artifact_on_every_filesystem(url: str, key: SessionKey) -> None:
    store = await SessionStore.open("sqlite://", url)
    await store.create(key)
    for number, data in enumerate(CONTENTS):
        event_id = f"i{number}:x"
        version = await store.stage_artifact(key, "a/b c.bin", data, f"x/{number}", event_id=event_id)
        await store.append(key, event(event_id, artifact_delta={"a/b c.bin": version}))
    for number, data in enumerate(CONTENTS):
        found, loaded = await store.load_artifact(key, "a/b c.bin", version=number + 1)
        assert (loaded, found.mime_type, found.size) == (data, f"x/{number}", len(data))
    await store.close()


@pytest.mark.parametrize(
    "owner", ["..", ".", "../../x", "/etc", "a/b", "a\\b", "~", "é" * 120, "%2E%2E", "CON"]
)
async def test_s54_no_owner_leads_out_of_the_folder(tmp_path: Path, key: SessionKey, owner: str) -> None:
    root = tmp_path / "artifacts"
    store = await SessionStore.open("sqlite://", f"file://{root}")
    for each in (replace(key, app=owner), replace(key, user_id=owner), replace(key, session_id=owner)):
        await say(store, each, "i1", artifact=("a.txt", b"data"))
        found, data = await store.load_artifact(each, "a.txt")
        assert data == b"data"
        assert len(found.blob.split("/")) == 4
        assert (root / found.blob).read_bytes() == b"data"
    await store.close()
    assert {path.split("/")[0] for path in files_in(tmp_path)} == {"artifacts"}


LOOKALIKES = st.text(st.sampled_from("aAäÄ.~%4/éE\u0301ſsßSKK"), min_size=1, max_size=8)


@given(
    st.lists(st.one_of(LOOKALIKES, st.text(min_size=1, max_size=300)), min_size=2, max_size=6, unique=True)
)
def test_s54_different_owners_never_share_a_folder_whatever_the_filesystem_makes_of_names(
    owners: list[str],
) -> None:
    owners = [owner for owner in owners if owner.isprintable()]
    # As a filesystem does that looks at neither case nor form, or drops dots and spaces at the end.
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        folders = {
            unicodedata.normalize(form, prefix_of(SessionKey(app=owner, user_id="u", session_id="s")))
            .casefold()
            .split("/")[0]
            .rstrip(". ")
            for owner in owners
        }
        assert len(folders) == len(owners)
        assert folders.isdisjoint({"", ".", ".."})


@pytest.mark.parametrize("pair", [("ada", "Ada"), ("é", "e\u0301"), ("x" * 300, "X" * 300), ("a", "a.")])
async def test_s54_an_owner_has_no_blob_of_one_whose_name_differs_in_case_or_form(
    tmp_path: Path, key: SessionKey, pair: tuple[str, str]
) -> None:
    blobs = BlobStore(f"file://{tmp_path}")
    names = [await blobs.write(replace(key, user_id=each), b"data") for each in pair]
    prefixes = await blobs.prefixes()
    assert len({prefix.casefold() for prefix in prefixes}) == 2
    for each, name in zip(pair, names, strict=True):
        assert await blobs.keys(prefix_of(replace(key, user_id=each))) == [name]


def test_s54_no_owner_is_named_like_a_device(key: SessionKey) -> None:
    for owner in ("con", "NUL", "com1", "lpt9.txt"):
        segment = prefix_of(replace(key, user_id=owner)).split("/")[1]
        assert segment.startswith("%")
        assert owner_of(f"counter/{segment}") == ("counter", owner)
    assert prefix_of(replace(key, user_id="console")) == "counter/console"


async def test_s56_blobs_under_an_older_spelling_of_their_owner_load_stay_and_go(
    url: str, key: SessionKey
) -> None:
    """``Ada`` was a folder's name once, and is ``%41da`` now."""
    key = replace(key, user_id="Ada")
    store = await SessionStore.open("sqlite://", url)
    await say(store, key, "i1", artifact=("f", b"kept"))
    written = [blob_key(key, data) for data in (b"kept", b"orphan")]
    older = [name.replace("%41da", "Ada") for name in written]
    for name, data in zip(older, (b"kept", b"orphan"), strict=True):
        assert name.startswith("counter/Ada/")
        path = store._blobs._path(name)
        store._blobs._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        store._blobs._fs.pipe_file(path, data)
    await store._blobs.remove(written[0])

    async def rename(conn: AsyncConnection) -> None:
        await conn.execute(update(artifacts).values(blob=older[0]))

    await store._db.write(rename)
    assert identity("counter/Ada") == identity(prefix_of(key))
    assert (await store.load_artifact(key, "f"))[1] == b"kept"
    assert await store.collect_blobs(older_than=timedelta(0)) == 1
    assert await store._blobs.keys("counter/Ada") == [older[0]]
    await store.delete(key)
    assert await store._blobs.keys("counter/Ada") == []
    await store.close()


async def test_many_readers_of_one_blob_at_once(blobs: BlobStore, key: SessionKey) -> None:
    data = os.urandom(300_000)
    name = await blobs.write(key, data)
    assert set(await asyncio.gather(*(blobs.read(name) for _ in range(20)))) == {data}


async def test_a_blob_that_was_damaged_says_so(blobs: BlobStore, key: SessionKey) -> None:
    name = await blobs.write(key, b"data")
    for wrong, reason in ((b"dat", "3 bytes"), (b"Data", "not those that were saved")):
        blobs._fs.pipe_file(blobs._path(name), wrong)
        with pytest.raises(ArtifactDamaged, match=f"{reason}.*restore it"):
            await blobs.read(name)
        with pytest.raises(ArtifactDamaged, match=f"{reason}.*restore it"):
            _ = [chunk async for chunk in blobs.chunks(name, 4, 0, 4)]


def test_a_missing_package_is_named_with_the_way_to_install_it() -> None:
    script = (
        "import sys; sys.modules['gcsfs'] = None\n"
        "from storage.blobs import BlobStore\n"
        "try: BlobStore('gs://bucket/prefix')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("InvalidOption gs:// for artifacts needs another package")
    assert "pip install 'perdure[gcs]'" in done.stdout


def test_owners_that_look_alike_have_folders_of_their_own(key: SessionKey) -> None:
    owners = [
        "a",
        "A",
        ".",
        "..",
        "%2E",
        "~",
        "%7E",
        "a/b",
        "a%2Fb",
        "x" * 250,
        "x" * 249,
        "é" * 90,
        "é" * 91,
    ]
    keys = [blob_key(replace(key, user_id=owner), b"") for owner in owners]
    assert len(set(keys)) == len(owners)
    assert max(len(part) for each in keys for part in each.split("/")) <= 200


def test_a_key_is_the_hash_of_the_bytes(key: SessionKey) -> None:
    digest = hashlib.sha256(b"data").hexdigest()
    assert blob_key(key, b"data") == f"counter/ada/{digest[:2]}/{digest}"


async def test_a_crash_while_writing_a_file_leaves_no_blob(
    tmp_path: Path, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore(f"file://{tmp_path}")

    def fail(_handle: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("storage.blobs.os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            await blobs.write(key, b"data")
    assert files_in(tmp_path) == []
    assert await blobs.read(await blobs.write(key, b"data")) == b"data"


async def test_a_relative_folder_is_the_one_it_says(
    tmp_path: Path, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blobs = BlobStore("file://.perdure/artifacts")
    name = await blobs.write(key, b"data")
    assert (tmp_path / ".perdure" / "artifacts" / name).read_bytes() == b"data"
