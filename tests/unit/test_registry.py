"""Finding agents by module path and by file."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure import Agent
from perdure.errors import InvalidAgent, UnknownAgent
from perdure.registry import Registry, load_agents

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports and puts on the path is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file below an empty current directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def agent_module(*names: str) -> str:
    lines = [f"{name} = Agent({name!r})" for name in names]
    return "\n".join(["from perdure import Agent", *lines, ""])


def test_a_module_gives_every_agent_at_its_top_level(write: Write) -> None:
    write("shop_agents.py", agent_module("seller", "buyer"))
    registry = load_agents(["shop_agents"])
    assert list(registry) == ["seller", "buyer"]
    assert len(registry) == 2
    assert "seller" in registry
    assert "nobody" not in registry
    assert registry.get("buyer") == Agent("buyer")
    assert dict(registry.agents) == {"seller": Agent("seller"), "buyer": Agent("buyer")}
    assert repr(registry) == "Registry(seller, buyer)"


@pytest.mark.parametrize(
    "agents",
    ["[Agent('one'), Agent('two')]", "(Agent('one'), Agent('two'))", "{1: Agent('one'), 2: Agent('two')}"],
)
def test_a_module_may_keep_them_in_a_list(write: Write, agents: str) -> None:
    write("listed_agents.py", f"from perdure import Agent\nagents = {agents}\n")
    assert list(load_agents(["listed_agents"])) == ["one", "two"]
    assert list(load_agents(["listed_agents:agents"])) == ["one", "two"]


def test_one_of_a_module(write: Write) -> None:
    path = write("shop_agents.py", agent_module("seller", "buyer"))
    assert list(load_agents(["shop_agents:buyer"])) == ["buyer"]
    assert list(load_agents([f"{path}:seller"])) == ["seller"]
    assert list(load_agents(["shop_agents:seller", "shop_agents:buyer", "shop_agents"])) == [
        "seller",
        "buyer",
    ]


def test_an_agent_under_two_names_is_one(write: Write) -> None:
    write("twice.py", agent_module("seller") + "agent = seller\nagents = [seller]\n")
    assert list(load_agents(["twice"])) == ["seller"]


def test_a_file_is_one_module_however_it_is_named(write: Write) -> None:
    counts = "import builtins\nbuiltins.runs = getattr(builtins, 'runs', 0) + 1\ndef f() -> None: ...\n"
    path = write(
        "pack/inner/counting.py", counts + "from perdure import Agent\nagent = Agent('c', tools=[f])\n"
    )
    write("pack/__init__.py", "")
    write("pack/inner/__init__.py", "")
    registry = load_agents([str(path), "pack/inner/counting.py", "./pack/../pack/inner/counting.py"])
    again = load_agents(["pack.inner.counting", str(path)])
    assert registry.get("c") is again.get("c")
    import builtins

    assert builtins.__dict__.pop("runs") == 1


def test_a_file_whose_name_is_taken_is_loaded_all_the_same(write: Write) -> None:
    path = write("json.py", agent_module("jason"))
    one, two = load_agents([str(path)]), load_agents(["json.py"])
    assert one.get("jason") is two.get("jason")
    assert "loads" in vars(sys.modules["json"])


def test_a_file_in_a_package_whose_name_is_taken_is_loaded_all_the_same(write: Write) -> None:
    write("email/__init__.py", "")
    path = write("email/agents.py", agent_module("mailer"))
    assert list(load_agents([str(path)])) == ["mailer"]


def test_two_files_of_one_name_are_two_modules(write: Write) -> None:
    one, two = write("a/bot.py", agent_module("one")), write("b/bot.py", agent_module("two"))
    assert list(load_agents([str(one), str(two)])) == ["one", "two"]


def test_a_file_finds_its_neighbours(write: Write) -> None:
    write("sub/neighbour_of_agents.py", "NAME = 'friend'\n")
    path = write(
        "sub/befriended.py",
        "from perdure import Agent\nfrom neighbour_of_agents import NAME\nagent = Agent(NAME)\n",
    )
    assert list(load_agents([str(path)])) == ["friend"]


def test_a_file_in_a_package_may_import_relatively(write: Write) -> None:
    write("relative_pack/__init__.py", "")
    write("relative_pack/names.py", "NAME = 'friend'\n")
    write(
        "relative_pack/agents.py", "from perdure import Agent\nfrom .names import NAME\nagent = Agent(NAME)\n"
    )
    assert list(load_agents(["relative_pack/agents.py"])) == ["friend"]


def test_types_of_the_module_resolve(write: Write) -> None:
    path = write(
        "typed_agents.py",
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from perdure import Agent

        @dataclass
        class Order:
            item: str

        def order(order: Order) -> str:
            return order.item

        agent = Agent("orders", tools=[order])
        """,
    )
    (declared,) = load_agents([str(path)]).get("orders").tools
    assert declared.parameters["properties"]["order"]["properties"] == {"item": {"type": "string"}}


def test_the_example_is_found_both_ways() -> None:
    from examples.counter import agent

    assert load_agents(["examples.counter", "examples/counter.py"]).get("counter") is agent


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "no_such_module_here",
            "'no_such_module_here': there is no module 'no_such_module_here'.*check the spelling",
        ),
        ("no_such_package.agents", "there is no module 'no_such_package'"),
        ("no/such.py", "'no/such.py': there is no Python file .*such.py"),
        ("folder/", "there is no Python file"),
        ("", "'' is neither a module path .* nor a file"),
        ("two words", "'two words' is neither a module path"),
        ("needy", "'needy' needs a module that is not there: No module named 'surely_not_installed'"),
        ("empty_of_agents", "'empty_of_agents' defines no agent"),
        ("one_agent:other", "one_agent has nothing named 'other'"),
        ("one_agent:Agent", "'one_agent:Agent' is a type, not a perdure.Agent"),
        ("one_agent:agent:seller", "neither a module path"),
    ],
)
def test_what_cannot_be_loaded_is_named(write: Write, spec: str, message: str) -> None:
    write("folder/x.txt", "")
    write("needy.py", "import surely_not_installed\n")
    write("empty_of_agents.py", "agents = []\nx = [1]\n")
    write("one_agent.py", agent_module("seller"))
    with pytest.raises(InvalidAgent, match=message):
        load_agents([spec])


@pytest.mark.parametrize("spec", ["broken_agents", "broken_agents.py", "taken/json.py"])
def test_an_error_in_the_module_is_chained_and_the_spec_is_named(write: Write, spec: str) -> None:
    for name in ("broken_agents.py", "taken/json.py"):
        write(name, "1 / 0\n")
    for _ in range(2):  # a second try runs it again, and does not find half a module
        with pytest.raises(
            InvalidAgent, match=f"agents '{spec}' cannot be loaded.*ZeroDivisionError"
        ) as caught:
            load_agents([spec])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_module_that_ends_the_program_is_refused(write: Write) -> None:
    write("leaving.py", "import sys\nsys.exit('no key')\n")
    with pytest.raises(InvalidAgent, match=r"agents 'leaving' cannot be loaded.*SystemExit: no key"):
        load_agents(["leaving"])


def test_an_agent_declared_wrongly_is_named_with_its_spec(write: Write) -> None:
    write("wrong.py", "from perdure import Agent\nAgent('a b')\n")
    with pytest.raises(InvalidAgent, match="agents 'wrong': 'a b' cannot be the name"):
        load_agents(["wrong"])


def test_a_syntax_error_is_named_with_its_spec(write: Write) -> None:
    write("unparsable.py", "def\n")
    with pytest.raises(
        InvalidAgent, match=r"agents 'unparsable\.py' cannot be loaded: its module raised SyntaxError"
    ):
        load_agents(["unparsable.py"])


def test_two_agents_of_one_name_are_refused(write: Write) -> None:
    write("one_seller.py", agent_module("seller"))
    write("other_seller.py", "from perdure import Agent\nagent = Agent('seller', instruction='other')\n")
    with pytest.raises(
        InvalidAgent, match="two agents are named 'seller', one in 'one_seller', one in 'other_seller'"
    ):
        load_agents(["one_seller", "other_seller"])
    with pytest.raises(InvalidAgent, match="two agents are named 'x'"):
        Registry([Agent("x"), Agent("x", instruction="other")])


def test_an_unknown_agent_is_a_typed_error_that_names_the_known() -> None:
    with pytest.raises(UnknownAgent, match=r"no agent named 'c' is served here \(there are: a, b\)"):
        Registry([Agent("b"), Agent("a")]).get("c")
    with pytest.raises(UnknownAgent, match=r"there are: none"):
        Registry().get("c")
