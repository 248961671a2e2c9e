"""What a model call cost, in money: by the list of prices that the package genai-prices brings.

The list is part of the installed package and nothing is fetched; a newer one comes with a newer release
of it. An agent's budget may name prices of its own, which go first. A call is priced once, when it is
made, and the event keeps that: what a session has spent does not change with the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import genai_prices
from genai_prices.data_snapshot import get_snapshot

from perdure.agent import Agent
from perdure.agenttool import AgentTool
from perdure.budget import Price
from perdure.errors import InvalidAgent
from perdure.types import NANO, Json, JsonObject
from storage.spending import tokens_of

__all__ = ["check_prices", "nano_usd"]

PROVIDER = "google"
MILLION = 1_000_000


def nano_usd(agent: Agent, model: str, usage: Mapping[str, Json]) -> int | None:
    """What a call cost, in billionths of a US dollar, rounded up; None where nobody knows the model's price.

    Args:
        agent: whose budget may say it.
        model: which model was asked.
        usage: the call's ``usageMetadata``.
    """
    own = _own_price(agent, model)
    dollars = _by_own_price(own, usage) if own is not None else _by_list(_plain(model), usage)
    return None if dollars is None else int(-(-dollars * NANO // 1))


def check_prices(agents: Iterable[Agent]) -> None:
    """Refuse agents whose budget is in money while nobody knows what their models cost.

    Raises:
        InvalidAgent: such a one; its calls would count for nothing.
    """
    for agent in agents:
        _check_prices(agent, counts=False)


def _check_prices(agent: Agent, *, counts: bool) -> None:
    """The same of one agent and those that are its tools; ``counts`` where another's budget pays for it."""
    counts = counts or (agent.budget is not None and agent.budget.in_money)
    for other in [*agent.sub_agents, *(tool.agent for tool in agent.tools if isinstance(tool, AgentTool))]:
        _check_prices(other, counts=counts)
    if counts:
        summarises = agent.compaction.model if agent.compaction is not None else None
        for model in {agent.model, summarises or agent.model}:
            if _own_price(agent, model) is None and not _is_listed(_plain(model)):
                raise InvalidAgent(
                    f"agent {agent.name!r} is paid from a budget in money, and the price of {model!r} is not "
                    f"known; give Budget(prices={{{model!r}: Price(input=..., output=...)}}), in US dollars "
                    "for a million tokens, or bound tokens instead"
                )


def _own_price(agent: Agent, model: str) -> Price | None:
    return agent.budget.prices.get(model) if agent.budget is not None else None


def _by_own_price(price: Price, usage: Mapping[str, Json]) -> Decimal:
    asked, answered = _asked_and_answered(usage)
    cached = min(_count(usage, "cachedContentTokenCount"), asked)
    from_cache = price.input if price.cached is None else price.cached
    each = ((asked - cached, price.input), (cached, from_cache), (answered, price.output))
    return sum((count * Decimal(str(dollars)) for count, dollars in each), Decimal()) / MILLION


def _by_list(model: str, usage: Mapping[str, Json]) -> Decimal | None:
    if not _is_listed(model):
        return None
    try:
        told: JsonObject = {"modelVersion": model, "usageMetadata": dict(usage)}
        detailed = genai_prices.extract_usage(told, provider_id=PROVIDER)
        return genai_prices.calc_price(detailed.usage, model, provider_id=PROVIDER).total_price
    except (ValueError, TypeError):
        # Details that it cannot make sense of make the call no cheaper.
        asked, answered = _asked_and_answered(usage)
        totals = genai_prices.Usage(input_tokens=asked, output_tokens=answered)
        return genai_prices.calc_price(totals, model, provider_id=PROVIDER).total_price


def _is_listed(model: str) -> bool:
    try:
        get_snapshot().find_provider_model(model, None, PROVIDER, None)
    except LookupError:
        return False
    return True


def _plain(model: str) -> str:
    return model.removeprefix("models/")


def _asked_and_answered(usage: Mapping[str, Json]) -> tuple[int, int]:
    """Tokens that went in, those of tools that the model's server ran included, and tokens that came out."""
    asked = _count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount")
    return asked, max(tokens_of(usage) - asked, 0)


def _count(usage: Mapping[str, Json], name: str) -> int:
    count = usage.get(name)
    return count if isinstance(count, int) and count > 0 else 0
