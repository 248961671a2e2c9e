"""The memory of media: bounded, and of no consequence."""

from __future__ import annotations

import pytest

from activities.media import inline_of, reference_part, with_media
from activities.media_cache import MediaCache
from perdure.errors import ArtifactDamaged
from perdure.types import JsonObject
from tests.unit.test_oversize import KEY, Shelf, picture


def shown(shelf: Shelf, name: str, data: bytes) -> JsonObject:
    """What a log has of a picture, which is on the shelf."""
    part = picture(data)
    inline = inline_of(part)
    assert inline is not None
    shelf.files[name] = (data, "image/png")
    return {"role": "user", "parts": [reference_part(part, inline, name, 1)]}


async def prompt(shelf: Shelf, contents: list[JsonObject], cache: MediaCache | None) -> list[JsonObject]:
    return await with_media(shelf.store, KEY, contents, limit=10**6, cache=cache)


def test_those_used_least_recently_make_room() -> None:
    cache = MediaCache(size=100)
    for name in ("a", "b"):
        cache.keep(name, name.encode() * 40)
    assert cache.get("a") == b"a" * 40
    cache.keep("c", b"c" * 40)
    assert [cache.get(name) is not None for name in ("a", "b", "c")] == [True, False, True]
    assert (len(cache), cache.size) == (2, 80)
    cache.keep("d", b"d" * 101)
    assert cache.get("d") is None, "more than there is room for pushes out nothing"
    assert cache.size == 80
    cache.keep("e", b"e" * 100)
    assert (len(cache), cache.size) == (1, 100)


def test_kept_twice_it_counts_once() -> None:
    cache = MediaCache(size=100)
    for _ in range(3):
        cache.keep("a", b"a" * 60)
    assert (len(cache), cache.size) == (1, 60)


@pytest.mark.parametrize(("size", "reads"), [(10_000, 1), (0, 3), (2_999, 3), (None, 3)])
async def test_a_prompt_is_the_same_with_it_and_without(size: int | None, reads: int) -> None:
    shelf = Shelf()
    cache = None if size is None else MediaCache(size=size)
    contents = [shown(shelf, "cat.png", b"c" * 3_000)]
    for _ in range(3):
        assert await prompt(shelf, contents, cache) == [{"role": "user", "parts": [picture(b"c" * 3_000)]}]
    assert shelf.read == ["cat.png"] * reads


async def test_the_session_is_asked_each_time() -> None:
    shelf = Shelf()
    cache = MediaCache(size=10_000)
    contents = [shown(shelf, "cat.png", b"c" * 3_000)]
    await prompt(shelf, contents, cache)
    shelf.files["cat.png"] = (b"d" * 3_000, "image/png")  # deleted, and saved anew under the same version
    assert await prompt(shelf, contents, cache) == [{"role": "user", "parts": [picture(b"d" * 3_000)]}]
    del shelf.files["cat.png"]
    [content] = await prompt(shelf, contents, cache)
    assert "gone" in content["parts"][0]["text"]


async def test_what_is_damaged_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    cache = MediaCache(size=10_000)
    contents = [shown(shelf, "cat.png", b"c" * 3_000)]
    whole = shelf.stream_artifact

    async def damaged(*args: object, **kwargs: object) -> tuple[object, object]:
        found, chunks = await whole(*args, **kwargs)  # type: ignore[arg-type]  # as it was called

        async def cut() -> object:
            async for chunk in chunks:
                yield chunk
                raise ArtifactDamaged("cut")

        return found, cut()

    with monkeypatch.context() as patch:
        patch.setattr(shelf, "stream_artifact", damaged)
        [content] = await prompt(shelf, contents, cache)
        assert "gone" in content["parts"][0]["text"]
    assert len(cache) == 0
    assert await prompt(shelf, contents, cache) == [{"role": "user", "parts": [picture(b"c" * 3_000)]}]
