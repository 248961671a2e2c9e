"""What Temporal stores, encrypted: AES-256-GCM under keys with ids, so that keys can be changed.

Every payload goes through it: messages, the inputs and results of activities, heartbeats,
what a run hands to the next, outcomes of updates, answers of queries, summaries and details,
and the words of failures. What Temporal itself reads stays clear: ids of workflows, updates
and activities (they name app, user and session), names of types and queues, types of errors,
and the search attributes.

A payload without our mark is left as it is, so that what was written before the keys were
given can still be read. The first key encrypts, all of them decrypt. A process without keys
has the codec too, to refuse what is encrypted: the SDK drops a signal that its converter
cannot read, and tries again and again where a codec fails.

The hazard of AES-GCM is a nonce used twice under one key. Nonces are random, 96 bits: a key
is good for some four thousand million payloads.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadCodec

from activities.conversion import SealableFailureConverter, data_converter
from perdure.errors import InvalidOption, PayloadDamaged, UnknownKey
from perdure.settings import Settings

__all__ = ["ENCODING", "SealedPayloads", "codec", "converter", "parse_keys"]

ENCODING = b"binary/encrypted"
"""The mark of a payload of ours, in its metadata; the Temporal UI knows it by this name."""

_KEY_ID = "encryption-key-id"
_CIPHER = "encryption-cipher"
_CIPHER_NAME = b"AES-256-GCM"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM = 'write them as "new-id:base64,old-id:base64", each of 32 bytes, as `openssl rand -base64 32` prints'


class SealedPayloads(PayloadCodec):
    """Encrypts payloads under the first key, and decrypts them under whichever it was.

    Args:
        keys: id and 32 bytes of each; the newest first. With none it encrypts nothing.

    Raises:
        InvalidOption: one id twice, or a key of another length.
    """

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        for key_id, key in keys:
            if len(key) != _KEY_BYTES:
                raise InvalidOption(f"codec key {key_id!r} has {len(key)} bytes and needs 32; {_FORM}")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys}
        if len(self._ciphers) != len(keys):
            raise InvalidOption(f"two codec keys have one id; {_FORM}")
        self._newest = keys[0][0] if keys else None

    @property
    def encrypts(self) -> bool:
        """Whether there is a key."""
        return self._newest is not None

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The payloads, encrypted under the newest key."""
        newest = self._newest
        return list(payloads) if newest is None else [self._seal(payload, newest) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The payloads as they were; those that are not encrypted are given back as they are.

        Raises:
            UnknownKey: one was encrypted under a key that is not among ours.
            PayloadDamaged: one is not what was encrypted.
        """
        return [self._open(payload) for payload in payloads]

    def _seal(self, payload: Payload, key_id: str) -> Payload:
        nonce = os.urandom(_NONCE_BYTES)
        name = key_id.encode()
        sealed = self._ciphers[key_id].encrypt(nonce, payload.SerializeToString(), name)
        metadata = {"encoding": ENCODING, _CIPHER: _CIPHER_NAME, _KEY_ID: name}
        return Payload(metadata=metadata, data=nonce + sealed)

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        name = payload.metadata.get(_KEY_ID, b"")
        key_id = name.decode("utf-8", "replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            ours = (
                f"the keys here are {', '.join(self._ciphers)}" if self._ciphers else "there are no keys here"
            )
            raise UnknownKey(
                f"a payload was encrypted under key {key_id!r}, and {ours}; "
                "add that one to the end of PERDURE_CODEC_KEYS"
            )
        try:
            data = cipher.decrypt(payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:], name)
        except (InvalidTag, ValueError):
            raise PayloadDamaged(
                f"a payload encrypted under key {key_id!r} is not what was written, or the key of that id "
                "was another; compare the keys of the process that wrote it"
            ) from None
        return Payload.FromString(data)


def parse_keys(text: str) -> list[tuple[str, bytes]]:
    """The keys that ``PERDURE_CODEC_KEYS`` names: ``id:base64``, separated by commas, the newest first.

    Raises:
        InvalidOption: it is not of that form. No key is quoted.
    """
    keys = []
    for number, item in enumerate(text.split(","), 1):
        key_id, found, encoded = item.strip().partition(":")
        if not found or not _NAME.fullmatch(key_id):
            raise InvalidOption(
                f"codec key number {number} has no id of up to 64 letters, digits, '.', '_' or '-'; {_FORM}"
            )
        try:
            keys.append((key_id, base64.b64decode(encoded, validate=True)))
        except binascii.Error:
            raise InvalidOption(f"codec key {key_id!r} is not base64; {_FORM}") from None
    return keys


def codec(keys: SecretStr | None) -> SealedPayloads:
    """The codec for these keys.

    Raises:
        InvalidOption: they are not of the form that :func:`parse_keys` reads.
    """
    text = keys.get_secret_value().strip() if keys is not None else ""
    return SealedPayloads(parse_keys(text) if text else [])


def converter(settings: Settings) -> DataConverter:
    """What every client, worker and replay of these settings speaks: plain JSON, encrypted if keys are set.

    Raises:
        InvalidOption: the keys are not of the form that :func:`parse_keys` reads.
    """
    found = codec(settings.codec_keys)
    if not found.encrypts:
        return replace(data_converter, payload_codec=found)
    return replace(data_converter, payload_codec=found, failure_converter_class=SealableFailureConverter)
