"""Finding agents: by module path (``examples.counter``) or file (``examples/counter.py``).

Either may be followed by ``:name``, for one object of the module only. Loading an agent
runs its module, once per process: however often and by whichever path a file is named,
it is one module, so an agent named twice is one agent.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

from perdure.agent import Agent
from perdure.agenttool import lineage
from perdure.errors import InvalidAgent, UnknownAgent
from perdure.transfer import agent_tool
from perdure.types import SessionKey

__all__ = ["Registry", "load_agents"]

_PRIVATE = "perdure_agents_"
"""Begins the names of modules made of files whose own name is taken by another module."""
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Registry:
    """The agents a worker serves, by name. Iterating gives the names.

    Args:
        agents: no two of one name, unless they are equal.

    Raises:
        InvalidAgent: two agents of one name.
    """

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents: dict[str, Agent] = {}
        for agent in agents:
            if self._agents.setdefault(agent.name, agent) != agent:
                raise InvalidAgent(
                    f"two agents are named {agent.name!r}; a session could not tell: rename one"
                )

    @property
    def agents(self) -> Mapping[str, Agent]:
        """All of them by name, in the order in which they were given."""
        return MappingProxyType(self._agents)

    def get(self, app: str) -> Agent:
        """The agent of that name.

        Raises:
            UnknownAgent: there is none here; the message names those there are.
        """
        try:
            return self._agents[app]
        except KeyError:
            names = ", ".join(sorted(self._agents)) or "none"
            raise UnknownAgent(
                f"no agent named {app!r} is served here (there are: {names}); "
                "start a worker with --agents and the module or file that defines it"
            ) from None

    def of(self, key: SessionKey) -> Agent:
        """The agent that answers in a session: the app's, or the one that is its tool.

        Raises:
            UnknownAgent: there is none here; or the app's agent has no such tool any more.
        """
        agent = self.get(key.app)
        for name in lineage(key.session_id):
            tool = agent_tool(agent, name)
            if tool is None:
                raise UnknownAgent(
                    f"session {key} is one of an agent that {agent.name!r} had as its tool {name!r}, and has "
                    "no more; give it that tool again, or delete the session"
                )
            agent = tool.agent
        return agent

    def __contains__(self, app: object) -> bool:
        return app in self._agents

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)

    def __repr__(self) -> str:
        return f"Registry({', '.join(self._agents)})"


def load_agents(specs: Iterable[str]) -> Registry:
    """Load the agents that modules and files define at their top level.

    The current directory, and for a file its own (for one in a package, the package's
    parent), are added at the end of ``sys.path``, so that a module finds its neighbours
    and can hide nothing that is installed.

    Args:
        specs: each ``package.module``, ``path/to/file.py``, or one of these and ``:name``,
            where the name is an agent or a list of agents.

    Raises:
        InvalidAgent: the message names the spec; what the module itself raised is chained.
    """
    agents: dict[str, tuple[Agent, str]] = {}
    for spec in specs:
        for agent in _agents_of(spec):
            known, where = agents.setdefault(agent.name, (agent, spec))
            if known != agent:
                raise InvalidAgent(
                    f"two agents are named {agent.name!r}, one in {where!r}, one in {spec!r}; rename one"
                )
    return Registry(agent for agent, _ in agents.values())


def _agents_of(spec: str) -> list[Agent]:
    source, attribute = _split(spec)
    module = _module(source, spec)
    if attribute is None:
        found = [agent for value in vars(module).values() for agent in _as_agents(value)]
        if not found:
            raise InvalidAgent(
                f"{spec!r} defines no agent: nothing at its top level is a perdure.Agent or a list of them"
            )
        return found
    if not hasattr(module, attribute):
        raise InvalidAgent(f"{spec!r}: {source} has nothing named {attribute!r} at its top level")
    found = _as_agents(getattr(module, attribute))
    if not found:
        raise InvalidAgent(f"{spec!r} is a {type(getattr(module, attribute)).__name__}, not a perdure.Agent")
    return found


def _as_agents(value: object) -> list[Agent]:
    if isinstance(value, Agent):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple) and value and all(isinstance(item, Agent) for item in value):
        return list(value)
    return []


def _split(spec: str) -> tuple[str, str | None]:
    source, colon, attribute = spec.rpartition(":")
    if colon and source and attribute.isidentifier():
        return source, attribute
    return spec, None


def _module(source: str, spec: str) -> ModuleType:
    importlib.invalidate_caches()
    if source.endswith(".py") or "/" in source or os.sep in source:
        path = Path(source).expanduser().resolve()
        if not path.is_file() or path.suffix != ".py":
            raise InvalidAgent(f"agents {spec!r}: there is no Python file {path}")
        return _loaded(_name_of(path), spec, path)
    if not _DOTTED.fullmatch(source):
        raise InvalidAgent(
            f"agents {spec!r} is neither a module path (package.module) nor a file (path/file.py)"
        )
    _add_to_path(Path.cwd())
    return _loaded(source, spec)


def _loaded(name: str, spec: str, path: Path | None = None) -> ModuleType:
    try:
        if path is not None and name.startswith(_PRIVATE):
            return _import_file(name, path)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise InvalidAgent(
                f"agents {spec!r}: there is no module {error.name!r}, neither installed nor in "
                f"{Path.cwd()}; check the spelling, or name the file"
            ) from error
        raise InvalidAgent(f"agents {spec!r} needs a module that is not there: {error}") from error
    except InvalidAgent as error:
        raise InvalidAgent(f"agents {spec!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InvalidAgent(
            f"agents {spec!r} cannot be loaded: its module raised {type(error).__name__}: {error}"
        ) from error


def _name_of(path: Path) -> str:
    """The name under which a file is always imported: its dotted one, if that leads to this file."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    _add_to_path(root)
    dotted = ".".join(parts)
    top = path if len(parts) == 1 else root / parts[0] / "__init__.py"
    if _DOTTED.fullmatch(dotted) and _origin(parts[0]) == top:
        return dotted
    return f"{_PRIVATE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _origin(top: str) -> Path | None:
    """The file behind a top-level module or package, without running it."""
    if top in sys.modules:
        origin = getattr(sys.modules[top], "__file__", None)
    else:
        found = importlib.util.find_spec(top)
        origin = None if found is None else found.origin
    return None if origin is None else Path(origin).resolve()


def _import_file(name: str, path: Path) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None, "a path that ends in .py has a loader"
    assert module_spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # before it runs: dataclasses and pydantic look their module up there
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _add_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
