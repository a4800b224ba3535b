"""What a change would do, as every dry run and every plan answers it: keys, sizes, and what instances would make of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

from config_manager.api.rest.models import Answer, Name, about
from config_manager.api.rest.request import Api
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import forecast
from config_manager.storage.decisions.forecast import Runner
from config_manager.storage.decisions.instance_verdicts import Verdict
from config_manager.storage.state import ServiceState


class InstanceForecast(Answer):
    """What a live instance would make of a change: a forecast, by the schema that it says it was built with."""

    service: Name
    instance: Name
    enrolled: Annotated[bool, about("if not, what it says of itself is only a claim")]
    verdict: Annotated[
        Verdict,
        about(
            "hot: it applies it while it runs; restart: with its next start; same: nothing changes for it; refuses: "
            "its schema does not take it; unknown: its schema is not known"
        ),
    ]
    why: Annotated[str, about("in words; empty if there is nothing to say")]
    overrides: Annotated[
        list[str], about("keys that would change, and that its environment decides")
    ]
    library: Annotated[str, about("the client library that it runs")]


def runners(api: Api, services: Collection[str]) -> Mapping[str, Sequence[Runner]]:
    """The live instances of these services, by service."""
    found: dict[str, list[Runner]] = {name: [] for name in services}
    for one in api.system.statuses.statuses():
        receipt = one.receipt
        if not one.gone and receipt.service in found:
            runner = Runner(
                receipt.service,
                receipt.instance,
                one.verified,
                receipt.schema,
                receipt.library,
                receipt.overrides,
            )
            found[receipt.service].append(runner)
    return found


def forecast_of(
    api: Api,
    states: Sequence[ServiceState],
    new: forecast.NewSchemas | None = None,
    *,
    several: bool = False,
) -> JsonObject:
    """The members of a dry run's answer, of these next states. several: each change names its service."""
    before = api.system.view.committed
    told = forecast.services(before, states)
    running = runners(api, [state.service for state in states])
    instances = forecast.instances(before, api.system.shapes, states, running, new)
    if not several:
        [one] = told
        members = ("changes", "effective", "unchanged", "bytes")
        return {**{member: one[member] for member in members}, "instances": instances}
    return {
        **{
            member: [
                {"service": one["service"], **change} for one in told for change in one[member]
            ]
            for member in ("changes", "effective")
        },
        "instances": instances,
    }
