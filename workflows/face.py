"""What the Temporal UI shows of a session: search attributes and the current details, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from perdure import searchattributes
from perdure.budget import dollars
from perdure.types import SessionKey
from workflows.messages import Status
from workflows.wait_messages import AskedAgent, Waiting

__all__ = ["details", "set_status", "tag"]

_APP = SearchAttributeKey.for_keyword(searchattributes.APP)
_USER = SearchAttributeKey.for_keyword(searchattributes.USER)
_STATUS = SearchAttributeKey.for_keyword(searchattributes.STATUS)


def tag(key: SessionKey, status: str) -> None:
    """Set the search attributes, where the client that started the session set none."""
    if workflow.info().typed_search_attributes.get(_APP) is None:
        workflow.upsert_search_attributes(
            [_APP.value_set(key.app), _USER.value_set(key.user_id), _STATUS.value_set(status)]
        )


def set_status(status: str) -> None:
    """Change the status by which sessions are filtered. One history event; only for a change."""
    workflow.upsert_search_attributes([_STATUS.value_set(status)])


def details(status: Status, steps: Iterable[str]) -> str:
    """What the session does now, its totals and its last steps. Kept out of the history.

    The UI renders bold text, code and lists, and no tables.
    """
    lines = [
        _headline(status),
        "",
        *[f"- **Waits** for {each.title}: `{each.call_id}`{_progress(each)}" for each in status.waiting],
        *[f"- **Asked** {_asked(each)}" for each in status.agents],
        *[f"- **Joined** by `{item_id}`" for item_id in status.joined],
        f"- **Status** {status.status}",
        f"- **Queued** {_count(status.queued, 'message')}",
        f"- **Turns** {status.turns}, with {_count(status.model_calls, 'model call')} "
        f"and {_count(status.tool_calls, 'tool call')}",
        f"- **Tokens** {status.tokens:,}{_money(status.usd)}",
        f"- **Rewinds** {status.rewinds}",
    ]
    if status.turn_tokens:
        lines.append(f"- **This turn** {status.turn_tokens:,} tokens{_money(status.turn_usd)}")
    if status.budget:
        lines.append(f"- **Budget** {', '.join(_bounds(status.budget))}")
    if status.warning:
        lines.append(f"- **Nearly spent**: {status.warning}")
    if status.refused:
        ids = ", ".join(f"`{one}`" for one in status.refused_ids)
        lines.append(f"- **Refused**, the inbox being full, {_count(status.refused, 'message')}; last {ids}")
    if status.mail or status.dropped:
        lines.append(
            f"- **Early** {_count(status.mail, 'notification')} kept, and {status.dropped} dropped, "
            "too many being kept"
        )
    if status.last_error:
        lines += ["", f"**Last error** `{status.last_error.type}`: {status.last_error.message}"]
    if last := [f"{number}. {step}" for number, step in enumerate(steps, 1)]:
        lines += ["", "**Last steps**, newest first", "", *last]
    return "\n".join(lines)


def _headline(status: Status) -> str:
    if not status.doing:
        return "**Idle**"
    if status.status == "waiting":  # for what, stands below
        calls = _count(len(status.waiting), "call")
        return f"**Waiting**: nothing runs, and `{status.invocation_id}` waits with {calls}"
    return f"**Working**: {status.doing}, for `{status.invocation_id}`"


def _money(amount: float) -> str:
    return f", {dollars(amount)}" if amount else ""


def _bounds(budget: Mapping[str, float]) -> Iterator[str]:
    for name, bound in budget.items():
        if name in ("money", "turn_money"):
            yield dollars(bound) + (" a turn" if name == "turn_money" else "")
        else:
            yield f"{bound:,.0f} {'model calls' if name == 'steps' else name}"


def _asked(agent: AskedAgent) -> str:
    waits = ", ".join(f"{each.title}: `{each.call_id}`" for each in agent.waiting)
    stands = "is ending" if agent.ending else f"waits for {waits}" if waits else "works"
    return f"{agent.tool} in the session `{agent.session}`, which {stands}"


def _progress(waiting: Waiting) -> str:
    told = [f"{waiting.percent:g}%"] if waiting.percent is not None else []
    # Somebody's words: one line, and no Markdown of theirs.
    text = " ".join((waiting.text or "").replace("`", "'").split())
    return " ".join(["", *told, *([f"`{text}`"] if text else [])])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
