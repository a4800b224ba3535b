"""What Prometheus scrapes: what was counted (`actors.measuring`), and what the views say now.

It asks no actor, so it answers while nothing can be written."""

from __future__ import annotations

from typing import get_args

import trio

from config_manager.actors.measuring import OURS
from config_manager.actors.notified import Result
from config_manager.actors.system import System
from config_manager.api.rest.operations import operation
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse
from config_manager.config.metrics import CONTENT_TYPE, Family, Labels, Sampled, text
from config_manager.config.our_version import our_version
from config_manager.config.process_figures import process_figures
from config_manager.storage.decisions.drift import DRIFTS, STATES


@operation(
    "What is counted and timed, for Prometheus",
    answers={200: str},
    description="Text format 0.0.4. `docs/metrics.md` has every name, the alerts and the dashboard. It shows all "
    "services at once, so a token that is narrowed to services is refused.",
    produces="text/plain",
)
async def metrics(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    request.grant.require_every_service()
    shown = text(families(api))
    return ApiResponse(200, shown.encode(), NO_STORE, CONTENT_TYPE.encode())


def families(api: Api) -> list[Family]:
    """Everything that a scrape shows."""
    system = api.system
    return [
        *_whole(system, api),
        *_parts(system),
        *_instances(system),
        *system.measures.families,
        Sampled(
            f"{OURS}notifications_total",
            "Messages to targets of notifications: delivered; failed, a try that is made again; given-up.",
            {(result,): system.notifier.results[result] for result in get_args(Result)},
            ("result",),
            kind="counter",
        ),
        *process_figures(),
    ]


def _whole(system: System, api: Api) -> list[Family]:
    """The server, and what it holds."""
    report, services = system.health(), system.view.committed.services.values()
    behind_since = system.cache.behind_since
    cache_age_s = 0.0 if behind_since is None else trio.current_time() - behind_since
    build: dict[Labels, float] = {(our_version(),): 1}
    return [
        Sampled(f"{OURS}build_info", "Which version runs; always 1.", build, ("version",)),
        Sampled(f"{OURS}up", "1 while GET /health says ok.", report.ok),
        Sampled(f"{OURS}read_only", "1 while nothing can be written.", report.mode == "read-only"),
        Sampled(f"{OURS}revision", "The newest revision.", report.revision),
        Sampled(f"{OURS}epoch_seq", "The number of the newest epoch.", report.epoch_seq),
        Sampled(
            f"{OURS}services",
            "Services with a configuration.",
            sum(not state.deleted for state in services),
        ),
        Sampled(
            f"{OURS}outbox_services",
            "Services whose newest revision no broker is known to hold.",
            report.outbox_depth,
        ),
        Sampled(
            f"{OURS}cache_age_seconds",
            "For how long the last-known-good cache has lacked something; 0 while it has everything.",
            cache_age_s,
        ),
        Sampled(f"{OURS}live_pages", "Open streams of news, pages' included.", len(api.streams)),
        Sampled(f"{OURS}sessions", "People who are logged in to pages.", 0),
        Sampled(
            f"{OURS}broker_connected",
            "1 while this broker is connected, by its URL without a login.",
            {(url,): state == "connected" for url, state in report.broker.items()},
            ("broker",),
        ),
    ]


def _parts(system: System) -> list[Family]:
    """The actors."""
    actors, label = system.states.actors, ("actor",)
    return [
        Sampled(
            f"{OURS}actor_up",
            "1 while this part of the server runs.",
            {(one.name,): one.state == "running" for one in actors},
            label,
        ),
        Sampled(
            f"{OURS}mailbox_messages",
            "Requests that wait for this part.",
            {(one.name,): one.waiting for one in actors},
            label,
        ),
        Sampled(
            f"{OURS}mailbox_peak_messages",
            "The most requests that have waited for this part at once, since the start.",
            {(one.name,): one.most_waiting for one in actors},
            label,
        ),
        Sampled(
            f"{OURS}actor_restarts_total",
            "How often this part crashed and was started again.",
            {(one.name,): one.restarts for one in actors},
            label,
            kind="counter",
        ),
    ]


def _instances(system: System) -> list[Family]:
    """What runs where."""
    counts = system.drift.counts
    return [
        Sampled(
            f"{OURS}instances",
            "Instances, by what they run beside what is wanted.",
            {(state,): counts[state] for state in STATES},
            ("state",),
        ),
        Sampled(
            f"{OURS}drifting_services",
            "Services with an instance that drifts.",
            system.drift.drifting_services,
        ),
        Sampled(
            f"{OURS}drift_events_total",
            "Drift that began or ended.",
            {
                (state, event): system.drift.told[state, event]
                for state in STATES
                if state in DRIFTS
                for event in ("began", "ended")
            },
            ("state", "event"),
            kind="counter",
        ),
        Sampled(
            f"{OURS}receipts_refused_total",
            "Messages on receipts' topics that were no receipts, or too many.",
            system.statuses.refused,
            kind="counter",
        ),
    ]
