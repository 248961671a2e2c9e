"""The changes of the workflow that histories recorded before them do not know.

Each has an id for ``workflow.patched``, which says in a run that began before the change that
things are to go on as they did then, and notes the change in the history of any other. It
costs an event a run, so each is asked for only where old and new code would part ways.
docs/durability.md tells how to make another. An id is never used twice, and goes only when no
run can be open that began before it.
"""

from __future__ import annotations

__all__ = ["BOUNDED_INBOX", "CALLS_AT_ONCE", "CANCELS_WHAT_WAITS", "HANDED_BACK"]

BOUNDED_INBOX = "bounded-inbox"
"""Messages that come by a signal are refused when too many wait."""

CALLS_AT_ONCE = "calls-at-once"
"""Of many parallel calls of one step, only so many run at a time."""

CANCELS_WHAT_WAITS = "cancels-what-waits"
"""A cancel finds a message that waits for its turn, too."""

HANDED_BACK = "handed-back"
"""An activity that its worker has handed back, since it stops, is run again by another."""
