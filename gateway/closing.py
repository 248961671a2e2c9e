"""Closing a session's workflow from outside, before its session is deleted.

It is cancelled, so that it ends its turn and answers who waits, and shows as canceled in
Temporal's UI. One that cannot do so by itself, because no worker is there or its database is
away, is terminated.
"""

from __future__ import annotations

import asyncio
import logging

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from gateway.typed import done
from perdure.types import SessionKey

__all__ = ["CLOSING", "close_workflow"]

CLOSING = 10.0
"""Seconds that a workflow gets to close by itself: it has an end marker to write, and no more."""

_NO_WORKFLOW = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)
"""There is none, or there can be none: a session of a store used without workflows may have a longer id."""

_log = logging.getLogger("perdure.gateway")


async def close_workflow(client: Client, key: SessionKey, *, within: float = CLOSING) -> bool:
    """Close the workflow of a session, and wait until it is closed.

    Only the chain of runs that is open now is closed, never that of a successor under the same id.

    Args:
        client: of the namespace that it runs in.
        key: the session.
        within: seconds until it is terminated.

    Returns:
        Whether one was open.
    """
    try:
        run = await client.get_workflow_handle(key.workflow_id).describe()
    except RPCError as error:
        if error.status in _NO_WORKFLOW:
            return False
        raise
    if run.status is not WorkflowExecutionStatus.RUNNING:
        return False
    chain = run.raw_description.workflow_execution_info.first_run_id
    open_now = client.get_workflow_handle(key.workflow_id, first_execution_run_id=chain)
    followed = client.get_workflow_handle(key.workflow_id, run_id=run.run_id)
    await done(_close(open_now, followed, key, within))  # or it has closed by itself
    return True


async def _close(
    chain: WorkflowHandle[object, object],
    followed: WorkflowHandle[object, object],
    key: SessionKey,
    within: float,
) -> None:
    await chain.cancel(reason="the session is being deleted")
    try:
        await asyncio.wait_for(followed.result(), within)
    except WorkflowFailureError:  # how a workflow that was cancelled says that it is closed
        return
    except TimeoutError:
        _log.warning("the workflow of %s did not close in %g seconds and is terminated", key, within)
        await chain.terminate(reason="the session is being deleted, and its workflow did not close by itself")
