"""An analyst whose answers are JSON of a schema, and who may spend so much and no more.

    perdure dev examples.report
    perdure chat analyst                   # "How did the north do?"
    perdure sessions list analyst          # what each session has spent

See docs/budgets.md.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from perdure import Agent, Budget, Limits, tool

__all__ = ["Finding", "Report", "agent", "sales_of"]

_SALES = {"north": [120, 140, 95], "south": [80, 60, 110]}


class Finding(BaseModel):
    """One thing that the numbers say."""

    what: str
    numbers: list[int]


class Report(BaseModel):
    """What the analyst answers."""

    region: str
    findings: list[Finding] = Field(min_length=1, max_length=5)
    confidence: float = Field(ge=0, le=1)


@tool
def sales_of(region: str) -> list[int]:
    """The sales of the last three months.

    Args:
        region: north or south.
    """
    return _SALES.get(region, [])


agent = Agent(
    name="analyst",
    instruction="You answer questions about sales. Look the numbers up before you say anything.",
    description="Reports on sales, as JSON.",
    tools=[sales_of],
    output_schema=Report,
    output_key="last_report",
    limits=Limits(steps=8),
    budget=Budget(money=0.50, turn_money=0.10, warn_at=0.8),
)
