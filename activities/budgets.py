"""What an agent's budget says to a step, before the model is asked and after it has answered.

What the session has spent comes with its row, which every step reads anyway; what the turn
has spent is in its own events, which are in every prompt of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from activities.prices import nano_usd
from activities.runtime import log
from perdure.agent import Agent
from perdure.budget import dollars
from perdure.errors import BudgetExceeded, SessionEnded, SessionNotFound
from perdure.types import NANO, Event, Json, JsonObject, Session, SessionKey, Spent
from storage.sessions import Context, SessionStore
from storage.spending import counts_of, spent_on, tokens_of

__all__ = [
    "accounted",
    "append_bill",
    "check_session_budget",
    "check_turn_budget",
    "count_in_vain",
    "is_used_up",
    "spent_in_turn",
    "spent_meta",
    "taken_by",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bound:
    """One thing that is bounded."""

    whose: str
    name: str
    spent: float
    limit: float

    @property
    def used_up(self) -> bool:
        """Whether nothing is left of it."""
        return self.spent >= self.limit

    def __str__(self) -> str:
        if self.name == "money":
            return f"the {self.whose} has spent {dollars(self.spent)} of its {dollars(self.limit)}"
        what = "model calls" if self.name == "steps" else self.name
        return f"the {self.whose} has used {self.spent:,.0f} of its {self.limit:,.0f} {what}"


def check_session_budget(key: SessionKey, agent: Agent, spent: Spent) -> None:
    """Whether the model may be asked for a session at all.

    Raises:
        BudgetExceeded: it has spent what the agent's budget allows.
    """
    for bound in _of_session(agent, spent):
        if bound.used_up:
            raise BudgetExceeded(
                f"{bound}: {key}; raise {bound.name} in the Budget of agent {agent.name}, or use "
                "another session"
            )


def check_turn_budget(agent: Agent, invocation_id: str, spent: Spent) -> None:
    """Whether the model may be asked once more for a turn, by what the turn has cost.

    Raises:
        BudgetExceeded: it has cost what the agent's budget allows.
    """
    for bound in _of_turn(agent, spent):
        if bound.used_up:
            raise BudgetExceeded(
                f"{bound}: {invocation_id}; raise turn_money in the Budget of agent {agent.name}, or ask "
                "for less"
            )


def is_used_up(agent: Agent, spent: Spent) -> bool:
    """Whether a session has spent what the agent's budget allows."""
    return any(bound.used_up for bound in _of_session(agent, spent))


def accounted(agent: Agent, context: Context, event: Event, *, goes_on: bool) -> Event:
    """An event of a turn with what its meta says of money: the sum of a turn that ends, and warnings.

    Args:
        agent: whose budget it is.
        context: what there was before the event.
        event: the answer of a step, or the end of the turn.
        goes_on: the turn does.
    """
    turn, step = spent_in_turn(context, event.invocation_id), spent_on(event)
    meta: JsonObject = {}
    if not goes_on:
        meta["turn"] = counts_of(turn + step)
    if told := _warnings(agent, context.session.spent, turn, step, goes_on=goes_on):
        meta["budget"] = told
    return replace(event, meta={**event.meta, **meta})


def spent_in_turn(context: Context, invocation_id: str) -> Spent:
    """What the model calls of a running turn took so far, one that shortened its prompt included."""
    events = [*context.events, *([context.summary] if context.summary is not None else [])]
    mine = (spent_on(event) for event in events if event.invocation_id == invocation_id)
    return sum(mine, Spent())


def taken_by(agent: Agent, model: str, usage: Mapping[str, Json]) -> Spent:
    """What a call took that gave no answer. As a call it is counted with what comes after it."""
    return Spent(tokens=tokens_of(usage), nano_usd=nano_usd(agent, model, usage) or 0)


def spent_meta(agent: Agent, model: str, usage: JsonObject, lost: Spent) -> JsonObject:
    """What the meta of an event says of what was spent on it, beside its usage.

    Args:
        agent: whose budget may know prices.
        model: which model was asked.
        usage: of the call.
        lost: what tries before it took.
    """
    told: JsonObject = {}
    nano = nano_usd(agent, model, usage) if usage else None
    if nano is not None or lost.nano_usd:
        told["nano_usd"] = (nano or 0) + lost.nano_usd
    if lost.tokens:
        told["tokens"] = tokens_of(usage) + lost.tokens
    return {"spent": told} if told else {}


async def count_in_vain(store: SessionStore, key: SessionKey, read: Session, name: str, spent: Spent) -> None:
    """Note in the log what a model call took that came to nothing there, as far as that is known.

    The turn that it was for may be over, and rewound: so it is an event by itself, as that of an agent that
    was asked and cancelled.

    Args:
        store: where the session lives.
        key: the session.
        read: the session as the call was made for; one that was made anew under its name pays nothing.
        name: of the event; under one name it counts once.
        spent: what it took.
    """
    if spent == Spent():
        return
    try:
        if (await store.get(key, max_events=0)).created_at == read.created_at:
            await append_bill(store, key, name, replace(spent, model_calls=1))
    except (SessionNotFound, SessionEnded) as error:
        log(logging.INFO, "spent.uncounted", key, name, "%s", type(error).__name__)


async def append_bill(store: SessionStore, key: SessionKey, name: str, spent: Spent, **more: Json) -> None:
    """Append an event that says nothing but what was spent; under one name it counts once.

    Args:
        store: where the session lives.
        key: the session.
        name: of the event, which is an invocation by itself.
        spent: what it was.
        more: what else its meta says.

    Raises:
        SessionNotFound, SessionEnded: there is nothing to append it to.
    """
    meta = {**more, "spent": counts_of(spent)}
    event = Event(id=name, invocation_id=name, author="perdure", meta=meta)
    await store.append(key, event, first_wins=True)


def _warnings(agent: Agent, session: Spent, turn: Spent, step: Spent, *, goes_on: bool) -> list[str]:
    """What is worth a warning after a step: once a turn of each bound, its own only while it goes on."""
    if agent.budget is None:
        return []
    share, after = agent.budget.warn_at, session + step
    first = turn == Spent()
    bounds = zip(_of_session(agent, session), _of_session(agent, after), strict=True)
    told = [now for was, now in bounds if _near(now, share) and (first or not _near(was, share))]
    if goes_on:
        bounds = zip(_all_of_turn(agent, turn), _all_of_turn(agent, turn + step), strict=True)
        told += [now for was, now in bounds if _near(now, share) and not _near(was, share)]
    return [str(bound) for bound in told]


def _near(bound: _Bound, share: float) -> bool:
    return bound.spent >= bound.limit * share


def _of_session(agent: Agent, spent: Spent) -> Iterator[_Bound]:
    budget = agent.budget
    if budget is None:
        return
    limits = {"tokens": budget.tokens, "money": budget.money, "steps": budget.steps}
    for name, limit in limits.items():
        if limit is not None:
            yield _Bound(whose="session", name=name, spent=_amount(spent, name), limit=limit)


def _of_turn(agent: Agent, spent: Spent) -> Iterator[_Bound]:
    if agent.budget is not None and agent.budget.turn_money is not None:
        yield _Bound(whose="turn", name="money", spent=_amount(spent, "money"), limit=agent.budget.turn_money)


def _all_of_turn(agent: Agent, spent: Spent) -> Iterator[_Bound]:
    """Those of its limits, too."""
    yield from _of_turn(agent, spent)
    for name, limit in (("tokens", agent.limits.tokens), ("steps", agent.limits.steps)):
        if limit is not None:
            yield _Bound(whose="turn", name=name, spent=_amount(spent, name), limit=limit)


def _amount(spent: Spent, name: str) -> float:
    return {"tokens": spent.tokens, "money": spent.nano_usd / NANO, "steps": spent.model_calls}[name]
