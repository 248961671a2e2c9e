"""Whether Temporal still waits for the attempt that is about to write.

Most writes of a turn carry the session's epoch, and are refused when that has moved. Some
cannot: what opens a session does not know its epoch yet, an end or a rewind holds whatever
the epoch is, and two attempts of one call share it. A late attempt of such a write would make
a deleted session again, end one that was opened again, or list the bytes of one attempt with
the words of another.

So these ask Temporal, as the last thing in their transaction, with the session's row locked.
Whoever takes the work over, or deletes the session, does so after Temporal has given the
attempt up, and then needs that lock: either he waits for the write, or it is refused.
"""

from __future__ import annotations

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from perdure.errors import StaleEpoch

__all__ = ["still_wanted"]


async def still_wanted(count: int | None = None) -> None:
    """Refuse an attempt that another has taken over from, or whose workflow is closed.

    Args:
        count: what the attempt's heartbeats carry (:class:`activities.runtime.Attempts`), where
            that has changed since it began.

    Raises:
        StaleEpoch: Temporal does not wait for this attempt any more.
    """
    info = activity.info()
    attempt = activity.client().get_async_activity_handle(task_token=info.task_token)
    try:
        # A heartbeat is answered from the workflow's own record, and takes the place of the last one.
        await attempt.heartbeat(*(info.heartbeat_details if count is None else [count]))
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
    except AsyncActivityCancelledError as error:
        if error.details is None or not error.details.cancel_requested:
            raise
    else:
        return
    raise StaleEpoch(
        f"attempt {info.attempt} of {info.activity_type} for {info.workflow_id} came too late: it was "
        "cancelled, or started again elsewhere; drop the write"
    )
