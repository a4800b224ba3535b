"""What runs where, beside what should run there: the instances' receipts over REST; and the way to
forget an instance that will not come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from config_manager.actors.forgetting import ForgetInstance
from config_manager.actors.statuses import Status
from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.write_terms import administer
from config_manager.config.names import parse_instance, parse_service
from config_manager.config.world import rfc3339
from config_manager.storage.state import Committed


async def get_status(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query("service")
    text = request.query.get("service")
    service = None if text is None else parse_service(text)
    if service is not None:
        request.grant.require("read", service)
    board, committed = api.system.statuses, api.system.view.committed
    return json_response(
        {
            "instances": [
                _instance(status, committed)
                for status in board.statuses(service)
                if request.grant.covers(status.receipt.service)
            ],
            "refused": board.refused,
        },
        headers=NO_STORE,
    )


async def delete_status(request: ApiRequest, api: Api) -> ApiResponse:
    service = parse_service(request.params["service"])
    instance = parse_instance(request.params["instance"])
    board, brokers = api.system.statuses, api.system.confirmations.brokers
    what = ForgetInstance.of(service, instance, board, brokers)
    answer = await administer(request, api, what)
    board.drop_forgotten(service, instance)
    return json_response(answer)


def _instance(status: Status, committed: Committed) -> Mapping[str, Any]:
    receipt = status.receipt
    wanted = committed.live(receipt.service)
    running = receipt.running
    runs_wanted = (running is None and wanted is None) or (
        running is not None
        and wanted is not None
        and (running.epoch_seq, running.revision, running.digest)
        == (wanted.epoch.seq, wanted.revision, wanted.digest)
    )
    return {
        "service": receipt.service,
        "instance": receipt.instance,
        "enrolled": status.verified,  # else all of this is what somebody claims
        "wanted": wanted and {"revision": wanted.revision, "digest": wanted.digest},
        "running": running and asdict(running),
        "in_sync": runs_wanted and not status.gone,
        "since": rfc3339(status.since),
        "received_at": rfc3339(status.received_at),
        "freshness": receipt.freshness,
        "source": receipt.source,
        "overrides": receipt.overrides,
        "last_attempt": receipt.last_attempt and receipt.last_attempt.to_object(),
        "library": receipt.library,
        "gone": status.gone,
        "correlation_id": receipt.correlation_id,
    }
