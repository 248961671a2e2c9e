"""What sessions may spend, and what models cost that no price list knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.checks import check_int
from perdure.errors import InvalidAgent

__all__ = ["Budget", "Price", "dollars"]


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a model costs, in US dollars for a million tokens.

    Args:
        input: of a prompt.
        output: of an answer, thoughts included.
        cached: of what of a prompt comes from the model's cache; as ``input`` where None.

    Raises:
        InvalidAgent: a price that is no number from 0 up.
    """

    input: float
    output: float
    cached: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached"):
            given = getattr(self, name)
            if not (given is None and name == "cached") and not _is_number(given):
                raise InvalidAgent(
                    f"Price.{name} is {given!r}; it is US dollars for a million tokens, 0 or more"
                )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a session may spend on its model calls, and what a turn may cost.

    It is looked at before each model call: where something is used up, the model is not asked, and the
    turn ends in a typed error. So the last call may go past it. What was rewound has been paid for and
    counts; so do summaries. A turn's own steps and tokens are bounded by
    :class:`perdure.agent.Limits`.

    Args:
        tokens: that all model calls of the session may take together, prompts, thoughts and answers.
        money: what they may cost, in US dollars.
        steps: how many they may be.
        turn_money: what the calls of one turn may cost, in US dollars.
        warn_at: which share of any of these, and of the turn's ``Limits.steps`` and ``Limits.tokens``,
            is worth a warning, in the log and in the status.
        prices: of models that the list of prices does not know, or knows otherwise, by name.

    Raises:
        InvalidAgent: nothing that is bounded, or a bound that makes no sense.
    """

    tokens: int | None = None
    money: float | None = None
    steps: int | None = None
    turn_money: float | None = None
    warn_at: float = 0.8
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price], hash=False)

    def __post_init__(self) -> None:
        for name in ("tokens", "steps"):
            if (count := getattr(self, name)) is not None:
                check_int(f"Budget.{name}", count, least=1)
        for name in ("money", "turn_money"):
            amount = getattr(self, name)
            if amount is not None and (not _is_number(amount) or amount == 0):
                raise InvalidAgent(f"Budget.{name} is {amount!r}; it is a number of US dollars above 0")
        if not _is_number(self.warn_at) or not 0 < self.warn_at <= 1:
            raise InvalidAgent(f"Budget.warn_at is {self.warn_at!r}; it is a share, above 0 and up to 1")
        prices: object = self.prices
        if not isinstance(prices, Mapping) or not all(
            isinstance(name, str) and isinstance(price, Price) for name, price in prices.items()
        ):
            raise InvalidAgent(
                f"Budget.prices is {prices!r}; it is a dict from names of models to perdure.Price"
            )

    @property
    def bounds(self) -> dict[str, float]:
        """What it bounds, by name."""
        given = {name: getattr(self, name) for name in ("tokens", "money", "steps", "turn_money")}
        return {name: bound for name, bound in given.items() if bound is not None}

    @property
    def in_money(self) -> bool:
        """Whether it bounds money, and prices have to be known."""
        return self.money is not None or self.turn_money is not None


def dollars(amount: float) -> str:
    """An amount of US dollars as people read it, small ones to the last digit."""
    if amount >= 1 or not amount:
        return f"${amount:,.2f}"
    return f"${amount:.9f}".rstrip("0")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
