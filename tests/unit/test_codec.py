"""The codec: what it hides, what it can read again, and what it refuses."""

from __future__ import annotations

import base64

import pytest
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from activities.codec import ENCODING, SealedPayloads, codec, converter, parse_keys
from perdure.errors import InvalidOption, PayloadDamaged, UnknownKey
from perdure.settings import Settings

ONE, TWO = ("one", b"1" * 32), ("two", b"2" * 32)
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"SECRET"')
BASE64 = base64.b64encode(b"1" * 32).decode()


async def test_a_payload_is_hidden_and_read_again() -> None:
    [sealed] = await SealedPayloads([ONE]).encode([PLAIN])
    assert b"SECRET" not in sealed.SerializeToString()
    assert b"json/plain" not in sealed.SerializeToString()
    assert sealed.metadata["encoding"] == ENCODING
    assert sealed.metadata["encryption-key-id"] == b"one"
    assert await SealedPayloads([ONE]).decode([sealed]) == [PLAIN]


async def test_the_same_twice_is_not_seen_to_be_the_same() -> None:
    one, two = await SealedPayloads([ONE]).encode([PLAIN, PLAIN])
    assert one.data != two.data


async def test_the_first_key_encrypts_and_all_of_them_decrypt() -> None:
    old = await SealedPayloads([ONE]).encode([PLAIN])
    both = SealedPayloads([TWO, ONE])
    new = await both.encode([PLAIN])
    assert new[0].metadata["encryption-key-id"] == b"two"
    assert await both.decode([*old, *new]) == [PLAIN, PLAIN]


async def test_what_was_written_before_there_were_keys_is_read_as_it_is() -> None:
    assert await SealedPayloads([ONE]).decode([PLAIN]) == [PLAIN]


async def test_an_unknown_key_is_named_and_so_are_those_that_are_there() -> None:
    sealed = await SealedPayloads([ONE]).encode([PLAIN])
    with pytest.raises(UnknownKey, match=r"key 'one', and the keys here are two"):
        await SealedPayloads([TWO]).decode(sealed)


@pytest.mark.parametrize("change", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:5]])
async def test_what_was_changed_is_refused(change: object) -> None:
    [sealed] = await SealedPayloads([ONE]).encode([PLAIN])
    assert callable(change)
    sealed.data = change(sealed.data)
    with pytest.raises(PayloadDamaged, match="key 'one'"):
        await SealedPayloads([ONE]).decode([sealed])


async def test_an_id_that_belonged_to_another_key_is_refused() -> None:
    sealed = await SealedPayloads([ONE]).encode([PLAIN])
    with pytest.raises(PayloadDamaged, match="key 'one'"):
        await SealedPayloads([("one", b"3" * 32)]).decode(sealed)


async def test_a_payload_cannot_pass_for_one_under_another_id() -> None:
    [sealed] = await SealedPayloads([ONE]).encode([PLAIN])
    sealed.metadata["encryption-key-id"] = b"same"
    with pytest.raises(PayloadDamaged):
        await SealedPayloads([("same", ONE[1])]).decode([sealed])


def test_keys_are_read_from_the_setting() -> None:
    assert parse_keys(f"two:{BASE64}, one:{BASE64}") == [("two", b"1" * 32), ("one", b"1" * 32)]


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "one",
        ":" + BASE64,
        f"a b:{BASE64}",
        "one:not base64!",
        f"one:{BASE64[:20]}",
        f"one:{BASE64},one:{BASE64}",
    ],
)
def test_keys_that_cannot_be_are_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        SealedPayloads(parse_keys(text))
    assert BASE64[:8] not in str(raised.value)
    assert "openssl rand -base64 32" in str(raised.value)


@pytest.mark.parametrize("keys", [None, SecretStr(""), SecretStr(" ")])
async def test_without_keys_nothing_is_encrypted_and_nothing_encrypted_is_read(
    keys: SecretStr | None,
) -> None:
    found = codec(keys)
    assert not found.encrypts
    assert await found.encode([PLAIN]) == [PLAIN]
    assert await found.decode([PLAIN]) == [PLAIN]
    with pytest.raises(UnknownKey, match="key 'one', and there are no keys here"):
        await found.decode(await SealedPayloads([ONE]).encode([PLAIN]))


def test_keys_are_not_shown() -> None:
    assert BASE64 not in repr(Settings(_env_file=None, codec_keys=SecretStr(f"one:{BASE64}")))


async def test_the_words_of_a_failure_are_encrypted_and_its_type_is_not() -> None:
    sealing = converter(Settings(_env_file=None, codec_keys=SecretStr(f"one:{BASE64}")))
    failure = Failure()
    await sealing.encode_failure(ApplicationError("SECRET", type="SomeType"), failure)
    assert b"SECRET" not in failure.SerializeToString()
    assert failure.application_failure_info.type == "SomeType"
    error = await sealing.decode_failure(failure)
    assert isinstance(error, ApplicationError)
    assert error.message == "SECRET"
    again = Failure()  # raised again, as a workflow does with what it read from its history
    await sealing.encode_failure(error, again)
    assert b"SECRET" not in again.SerializeToString()
