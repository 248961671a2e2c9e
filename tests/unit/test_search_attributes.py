"""What a worker makes of the search attributes that Temporal has, before it serves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesResponse
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from perdure.errors import InvalidOption, TemporalUnavailable
from perdure.settings import Settings
from worker import _check_search_attributes


async def check(answer: ListSearchAttributesResponse | RPCError) -> None:
    async def list_search_attributes(request: Any, *, retry: bool) -> ListSearchAttributesResponse:
        assert retry
        if isinstance(answer, RPCError):
            raise answer
        return answer

    service = SimpleNamespace(list_search_attributes=list_search_attributes)
    client = cast(Client, SimpleNamespace(operator_service=service))
    await _check_search_attributes(client, Settings(_env_file=None))


async def test_a_worker_does_not_start_where_they_are_missing() -> None:
    with pytest.raises(InvalidOption, match=r"PerdureApp, PerdureStatus, PerdureUser.*temporal setup"):
        await check(ListSearchAttributesResponse())


async def test_a_temporal_that_is_away_has_not_said_that_it_lists_none() -> None:
    with pytest.raises(TemporalUnavailable, match="start the worker again"):
        await check(RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b""))


@pytest.mark.parametrize("status", [RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED])
async def test_where_they_cannot_be_listed_they_are_taken_as_set_up(status: RPCStatusCode) -> None:
    await check(RPCError("no such service", status, b""))
