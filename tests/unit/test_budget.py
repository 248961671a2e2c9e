"""Budgets as they are declared, prices as they are found, and answers held against a schema."""

from __future__ import annotations

import math
import socket
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, Field, RootModel, field_validator

from activities.budgets import accounted, check_session_budget, check_turn_budget, is_used_up
from activities.limits import check_limits
from activities.prices import nano_usd
from activities.protocol import ModelTask
from perdure import Agent, Budget, Limits, Price
from perdure.budget import dollars
from perdure.errors import BudgetExceeded, InvalidAgent, InvalidAnswer, LimitExceeded, error_of
from perdure.structured import json_of, what_is_wrong
from perdure.types import Event, Session, SessionKey, Spent
from storage.records import Context
from storage.spending import tokens_of

SESSION = SessionKey(app="bounded", user_id="ada", session_id="main")
BOUNDED = Agent(name="bounded", budget=Budget(tokens=100, money=0.5, steps=10, turn_money=0.25, warn_at=0.8))
PRICED = Agent(name="priced", budget=Budget(prices={"mine": Price(input=2, output=10, cached=0.5)}))
FLASH = "gemini-3-flash-preview"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "Budget.tokens is 0; it is a whole number, 1 or more"),
        ({"steps": 1.5}, "Budget.steps is 1.5"),
        ({"money": 0}, "Budget.money is 0; it is a number of US dollars above 0"),
        ({"turn_money": math.nan}, "Budget.turn_money is nan"),
        ({"money": True}, "Budget.money is True"),
        ({"warn_at": 1.1}, "Budget.warn_at is 1.1; it is a share"),
        ({"warn_at": 0}, "Budget.warn_at is 0"),
        ({"prices": {"m": 1.0}}, "it is a dict from names of models to perdure.Price"),
    ],
)
def test_budgets_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAgent, match=message):
        Budget(**arguments)


@pytest.mark.parametrize("arguments", [{"input": -1, "output": 1}, {"input": 1, "output": None}])
def test_prices_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidAgent, match="US dollars for a million tokens, 0 or more"):
        Price(**arguments)


@pytest.mark.parametrize(
    ("inside", "used_up", "named"),
    [
        (Spent(tokens=99), Spent(tokens=100), "raise tokens"),
        (Spent(nano_usd=499_999_999), Spent(nano_usd=500_000_000), "raise money"),
        (Spent(model_calls=9), Spent(model_calls=10), "raise steps"),
    ],
)
def test_a_session_is_stopped_exactly_at_its_bounds(inside: Spent, used_up: Spent, named: str) -> None:
    check_session_budget(SESSION, BOUNDED, inside)
    assert not is_used_up(BOUNDED, inside)
    with pytest.raises(BudgetExceeded, match=named):
        check_session_budget(SESSION, BOUNDED, used_up)
    assert is_used_up(BOUNDED, used_up)


def test_a_turn_is_stopped_exactly_at_its_bounds() -> None:
    check_turn_budget(BOUNDED, "m1", Spent(nano_usd=249_999_999))
    with pytest.raises(BudgetExceeded, match="raise turn_money"):
        check_turn_budget(BOUNDED, "m1", Spent(nano_usd=250_000_000))
    limits = Limits(steps=3, tokens=50)
    check_limits(limits, ModelTask(invocation_id="m1", step=3), Spent(tokens=49))
    with pytest.raises(LimitExceeded, match="3 model calls"):
        check_limits(limits, ModelTask(invocation_id="m1", step=4), Spent(tokens=49))
    with pytest.raises(LimitExceeded, match="its limit is 50"):
        check_limits(limits, ModelTask(invocation_id="m1", step=3), Spent(tokens=50))


@pytest.mark.parametrize(
    ("before", "took", "warned"),
    [
        (0, 79, False),
        (0, 80, True),
        (79, 1, True),
        (80, 1, True),  # the first call of a turn says so again
    ],
)
def test_a_warning_comes_exactly_at_its_share(before: int, took: int, warned: bool) -> None:
    now = datetime.now(UTC)
    session = Session(
        key=SESSION,
        version=1,
        epoch=1,
        head=1,
        projection=[[1, None]],
        created_at=now,
        updated_at=now,
        spent=Spent(tokens=before),
    )
    answer = Event(
        id="m1:m1", invocation_id="m1", author="bounded", usage={"totalTokenCount": took}, meta={"step": 1}
    )
    said = accounted(BOUNDED, Context(session=session, summary=None, events=[]), answer, goes_on=False)
    assert ("budget" in said.meta) == warned


def test_a_price_of_ones_own_goes_first_and_knows_the_cache() -> None:
    usage = {"promptTokenCount": 1_000, "cachedContentTokenCount": 400, "totalTokenCount": 1_300}
    assert nano_usd(PRICED, "mine", usage) == 600 * 2_000 + 400 * 500 + 300 * 10_000
    assert nano_usd(PRICED, "another", usage) is None
    dear = Agent(name="dear", budget=Budget(prices={FLASH: Price(input=1_000, output=1_000)}))
    assert nano_usd(dear, FLASH, usage) == 1_300 * 1_000_000


def test_tokens_that_tools_of_the_models_server_put_into_the_prompt_are_prompt() -> None:
    usage = {"promptTokenCount": 1_000, "toolUsePromptTokenCount": 500, "totalTokenCount": 1_600}
    assert nano_usd(PRICED, "mine", usage) == 1_500 * 2_000 + 100 * 10_000


def test_a_usage_without_a_total_is_not_free() -> None:
    usage = {"promptTokenCount": 1_000, "candidatesTokenCount": 200, "thoughtsTokenCount": 100}
    assert nano_usd(PRICED, "mine", usage) == 1_000 * 2_000 + 300 * 10_000
    assert tokens_of(usage) == 1_300
    assert tokens_of({**usage, "totalTokenCount": 1_400}) == 1_400, "the model's own count goes first"
    assert tokens_of({}) == tokens_of({"totalTokenCount": None, "promptTokenCount": "7"}) == 0


def test_prompts_over_200_000_tokens_cost_what_the_list_says() -> None:
    def cost(prompt: int) -> int:
        usage = {"promptTokenCount": prompt, "candidatesTokenCount": 0, "totalTokenCount": prompt}
        found = nano_usd(PRICED, "gemini-2.5-pro", usage)
        assert found is not None
        return found

    assert cost(200_001) > 1.9 * cost(200_000), "all of it, and not only what is above"


def test_listed_prices_are_found_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a price was looked for elsewhere")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    usage = {"promptTokenCount": 10_000, "candidatesTokenCount": 500, "totalTokenCount": 10_500}
    plain = nano_usd(PRICED, FLASH, usage)
    assert plain is not None
    assert nano_usd(PRICED, f"models/{FLASH}", usage) == plain > 0
    cached = nano_usd(PRICED, FLASH, {**usage, "cachedContentTokenCount": 8_000})
    thought = nano_usd(PRICED, FLASH, {**usage, "thoughtsTokenCount": 700, "totalTokenCount": 11_200})
    assert cached is not None
    assert thought is not None
    assert cached < plain < thought
    odd = {**usage, "cachedContentTokenCount": 20_000}
    assert nano_usd(PRICED, FLASH, odd) == plain, "what makes no sense makes it no cheaper"


def test_amounts_are_readable() -> None:
    assert [dollars(amount) for amount in (0, 1, 1234.567, 0.5, 0.000000012)] == [
        *("$0.00", "$1.00", "$1,234.57", "$0.5", "$0.000000012"),
    ]


class Answer(BaseModel):
    """What is wanted."""

    x: int = Field(ge=0)
    more: dict[str, Any] = {}


def test_an_answer_is_held_against_the_schema() -> None:
    assert what_is_wrong(Answer, '{"x": 1}') is None
    assert what_is_wrong(Answer, '```json\n{"x": 1}\n```') is None
    assert json_of('```\n{"x": 1}\n```') == {"x": 1}
    assert what_is_wrong(Answer, '{"x": -1}') == ("- x: Input should be greater than or equal to 0", 1)
    for text in (
        "",
        "one",
        '{"x": 1} and more',
        '{"x": 1, "more": {"n": NaN}}',
        '{"x": 1, "more": {"a": "\\ud800"}}',
    ):
        assert what_is_wrong(Answer, text) is not None, text
    many = what_is_wrong(Answer, "[" + "1," * 3_000 + "1]")
    assert many is not None
    assert len(many[0]) < 5_000


@pytest.mark.parametrize(
    "fenced",
    [
        '```json\n{"x": 1}\n```',
        '```\n{"x": 1}```',
        '\n``` JSON\r\n{"x": 1}\r\n``` \n',
        '```json\n\n{"x": 1}\n\n```',
    ],
)
def test_a_fence_around_an_answer_is_none_of_it(fenced: str) -> None:
    assert what_is_wrong(Answer, fenced) is None
    assert json_of(fenced) == {"x": 1}


def test_what_is_no_fence_around_all_of_it_is_wrong() -> None:
    for text in (
        'Here:\n```json\n{"x": 1}\n```',
        '```json\n{"x": 1}\n```\nSo it is.',
        '```python\n{"x": 1}\n```',
    ):
        assert what_is_wrong(Answer, text) is not None, text


class Priced(BaseModel):
    """A validator that was not written for what a model may say."""

    what: str

    @field_validator("what")
    @classmethod
    def _listed(cls, what: str) -> str:
        return {"apple": "apple"}[what]


def test_what_a_validator_raises_makes_an_answer_wrong_and_no_more_than_that() -> None:
    assert what_is_wrong(Priced, '{"what": "apple"}') is None
    assert what_is_wrong(Priced, '{"what": "pear"}') == ("- the answer: KeyError: 'pear'", 1)


class Color(Enum):
    """One of a few."""

    red = "red"
    blue = "blue"


class Node(BaseModel):
    """It contains itself, and all else that a schema may have."""

    color: Color
    when: date | None = None
    either: int | str = 0
    below: list[Node] = []


@pytest.mark.parametrize(
    ("model", "fits", "wrong"),
    [
        (Node, '{"color": "red", "below": [{"color": "blue", "when": "2026-11-22", "either": "x"}]}', 2),
        (RootModel[list[Node]], '[{"color": "red"}]', 1),
        (RootModel[int], "7", 1),
    ],
)
def test_answers_of_any_shape_are_held_against_their_schema(
    model: type[BaseModel], fits: str, wrong: int
) -> None:
    assert Agent(name="shaped", output_schema=model).output_schema is model
    assert what_is_wrong(model, fits) is None
    found = what_is_wrong(model, '{"color": "green", "below": [{}]}')
    assert found is not None
    assert found[1] == wrong


def test_a_plain_type_is_told_how_to_be_a_schema() -> None:
    with pytest.raises(InvalidAgent, match=r"for a list or a plain type that is RootModel\[\.\.\.\]"):
        Agent(name="plain", output_schema=list[Node])  # type: ignore[arg-type]  # that is what is tested


def test_a_client_raises_what_a_gateway_refused() -> None:
    assert isinstance(error_of("invalid-answer", "it does not fit"), InvalidAnswer)
    assert isinstance(error_of("budget-exceeded", "nothing is left"), BudgetExceeded)


def test_the_schema_of_an_agent_is_checked() -> None:
    no_json: dict[str, Any] = {"default": object()}

    class Odd(BaseModel):
        x: Any = Field(json_schema_extra=no_json)
        y: type[int]

    for schema, message in ((dict, "is a subclass of pydantic.BaseModel"), (Odd, "has no JSON schema")):
        with pytest.raises(InvalidAgent, match=message):
            Agent(name="odd", output_schema=schema)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(InvalidAgent, match=r"which the runtime sets; use output_schema=\.\.\. alone"):
        Agent(name="twice", output_schema=Answer, generation={"responseMimeType": "text/plain"})
    assert Agent(name="once", generation={"response_mime_type": "application/json"}).generation
    with pytest.raises(InvalidAgent, match="output_key is 'temp:x'"):
        Agent(name="gone", output_key="temp:x")
