"""``dev.json`` in the data folder: where the parts of ``perdure dev`` are.

It outlives the run, so that the next one uses the same ports, and so that ``perdure chat``
and ``perdure sessions`` in the same folder find the stack with no flags.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from perdure.errors import InvalidOption
from perdure.settings import Settings

__all__ = ["DevFile", "read", "served_by", "settings_in", "write"]

_NAME = "dev.json"
_WHERE = ("temporal_address", "temporal_namespace", "task_queue")


class DevFile(BaseModel):
    """What is written down of a running ``perdure dev``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    temporal_port: int | None = None
    ui_port: int | None = None
    gateway_port: int | None = None
    model_port: int | None = None
    """Of the Gemini stand-in; None where Gemini itself is used."""
    settings: dict[str, Any] = {}
    """The settings that lead to it, by their names in :class:`perdure.settings.Settings`."""
    serves: tuple[str, ...] = ()
    """The names of the agents that its worker serves; none: not known."""


def write(data: Path, file: DevFile) -> None:
    """Write it, whole or not at all."""
    draft = data / f"{_NAME}.new"
    draft.write_text(json.dumps(file.model_dump(), indent=2) + "\n")
    draft.replace(data / _NAME)


def read(data: Path) -> DevFile | None:
    """What the folder says, or None if no ``perdure dev`` ever ran on it.

    Raises:
        InvalidOption: the file is there and is not ours.
    """
    path = data / _NAME
    try:
        return DevFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InvalidOption(
            f"{path} is not what perdure dev writes; remove it and start perdure dev again"
        ) from error


def settings_in(data: Path, base: Settings) -> Settings:
    """`base`, and what it leaves at its default as ``perdure dev`` on this folder has it."""
    file = read(data)
    if file is None:
        return base
    found = {
        name: tuple(value) if isinstance(value, list) else value for name, value in file.settings.items()
    }
    return base.model_copy(update={name: found[name] for name in found.keys() - base.model_fields_set})


def served_by(data: Path, settings: Settings) -> tuple[str, ...]:
    """The names of the agents of this folder's ``perdure dev``; none where the settings lead elsewhere."""
    file = read(data)
    if file is None:
        return ()
    here = {name: file.settings[name] for name in _WHERE if name in file.settings}
    return file.serves if here.items() <= settings.model_dump(include=set(_WHERE)).items() else ()
