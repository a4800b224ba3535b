"""Plans over REST: what a change would do, kept, and applied as it was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from config_manager.actors.messages import Write
from config_manager.api.resources.plan_models import (
    AppliedPlan,
    ApplyRequest,
    DeletedPlan,
    PlanAnswer,
    PlanList,
    PlanRequest,
)
from config_manager.api.resources.rollbacks import (
    check_order,
    of_order,
    told_of,
)
from config_manager.api.resources.schema_changes import ALLOW_BREAKING, ALLOW_LOSSY
from config_manager.api.resources.schemas import comparing
from config_manager.api.rest.forecasts import runners
from config_manager.api.rest.limits import MOST_BYTES_OF_A_PAGE
from config_manager.api.rest.models import (
    read,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Path, Query, number
from config_manager.api.rest.request import (
    NO_STORE,
    Api,
    ApiRequest,
    ApiResponse,
    json_response,
)
from config_manager.api.rest.writing import (
    ADMINISTRATION,
    WRITE,
    propagation,
    terms_of,
    write_terms_of,
)
from config_manager.config.errors import (
    FieldError,
    InvalidValues,
    NotFound,
    Refusal,
    SchemaInvalid,
)
from config_manager.config.names import pointer
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import plans
from config_manager.storage.decisions.changes import Occasion
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.planning import Planned, Wish, planned
from config_manager.storage.decisions.plans import ApplyPlan, DeletePlan, MakePlan
from config_manager.storage.decisions.rollback import Refused
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import KeptPlan, up_to_bytes
from config_manager.storage.store import Store

_PAGE = 50
_MOST = 500


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_ID = Path("id", "the plan's id", {"type": "string", "pattern": "^p-[0-9a-f]{12}$"}, str)
_LIMIT = number("limit", f"plans; {_PAGE}", least=1, most=_MOST)


def _parse_after(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:  # noqa: PLR2004  below 2^53
        raise ValueError("expected `next_after` of the page before")
    return int(text)


_AFTER = Query(
    "after",
    "`next_after` of the page before",
    {"type": "string", "pattern": "^[0-9]{1,15}$"},
    _parse_after,
)


@operation(
    "Say what a change would do, and keep it as a plan",
    answers={201: PlanAnswer},
    problems=(404, 409),
    takes=(ALLOW_BREAKING, ALLOW_LOSSY, *ADMINISTRATION),
    body=PlanRequest,
    description="What changes per key, what stays, and what each live instance would make of it. What a write would "
    "refuse is refused here, too. The plan keeps the result: `POST …/{id}/apply` writes exactly that, once, within 24 "
    "hours, and only if `base` is as it was. The newest 100 plans are kept.\n\n"
    "A rollback is planned by itself; its members are those of `POST /api/v1/config/epoch/rollback`. The token must "
    "be for every service that is named.",
)
async def make_plan(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    body = read(request, PlanRequest)
    _check(request, body)
    reason = body.reason
    if body.rollback is not None:
        reason = reason or body.rollback.reason
        if reason is None and "reason" not in request.query:
            reason = told_of(body.rollback)
    terms = terms_of(request).because(reason)
    what: Decidable[Any]
    try:
        what = MakePlan(planned=await _planned(request, api, body, terms))
    except Refusal as error:
        if terms.idempotency is None:
            raise
        what = Refused(error)  # the repetition of what was done is answered all the same
    answer = await api.system.storing.ask(Write(what, terms), request.context)
    return json_response(answer, 201, headers=NO_STORE)


@operation(
    "The plans that are kept, newest first",
    answers={200: PlanList},
    problems=(503, 504),
    takes=(_LIMIT, _AFTER),
    description="Those of which every service is one that the token is for. Page on with `after=` the answer's "
    "`next_after`, until it is null.",
)
async def list_plans(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    limit, before = _LIMIT.of(request) or _PAGE, _AFTER.of(request)
    kept = await api.system.reading.past(lambda store: store.plans(before=before), request.context)
    visible = [one for one in kept if _is_visible(request, one)]
    page = list(up_to_bytes(visible[:limit], _size, MOST_BYTES_OF_A_PAGE))
    committed, now = api.system.view.committed, api.system.world.clock.now()
    entries = [
        {
            **plans.about(one, committed, api.system.shapes, now),
            "services": list(one.services),
        }
        for one in page
    ]
    next_after = str(page[-1].seq) if len(page) < len(visible) else None
    return json_response({"plans": entries, "next_after": next_after}, headers=NO_STORE)


@operation(
    "A plan",
    answers={200: PlanAnswer},
    problems=(404, 503, 504),
    takes=(_ID,),
    description="As it was made; `state` says whether it can still be applied.",
)
async def get_plan(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    plan = await _demand_plan(request, api)
    now = api.system.world.clock.now()
    answer = plans.view(plan, api.system.view.committed, api.system.shapes, now)
    if "kept" in answer:  # services that it does not touch
        answer["kept"] = [name for name in answer["kept"] if request.grant.covers(name)]
    return json_response(answer, headers=NO_STORE)


@operation(
    "Apply a plan: write what it shows, all or nothing",
    answers={200: AppliedPlan},
    problems=(404, 409),
    takes=(_ID, *WRITE),
    body=ApplyRequest,
    optional_body=True,
    description="One transaction and one revision; several services are a new epoch, too. What does not change "
    "is not written. 409 `plan-stale` if the base moved (`moved` says what, and by whom), `plan-used` if it was applied "
    "before, `plan-expired` after 24 hours. The token must be for every service of the plan.",
)
async def apply_plan(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, ApplyRequest) if request.body else ApplyRequest()
    write_terms = write_terms_of(request).because(body.reason)
    answer = await _use(request, api, write_terms.terms, ApplyPlan)
    if write_terms.terms.dry_run:
        return json_response({**answer, "dry_run": True})
    if answer["services"]:
        revisions = [(name, answer["revision"]) for name in answer["services"]]
        answer = {**answer, "propagation": await propagation(api, revisions, write_terms)}
    return json_response(answer)


@operation(
    "Let go of a plan",
    answers={200: DeletedPlan},
    problems=(404,),
    takes=(_ID, *ADMINISTRATION),
    description="What it wrote stays. The token must be for every service of the plan.",
)
async def delete_plan(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    return json_response(await _use(request, api, terms_of(request), DeletePlan))


# ── planning ───────────────────────────────────────────────────────────────────────────────────


def _check(request: ApiRequest, body: PlanRequest) -> None:
    """Raises InvalidValues, Forbidden."""
    wished = {**body.services, **body.patch, **body.schemas}
    if body.rollback is not None:
        if wished:
            detail = "a rollback is planned by itself"
            raise InvalidValues(body.REFUSED, [FieldError("/rollback", detail)])
        try:
            check_order(request, body.rollback)
        except InvalidValues as error:
            raise InvalidValues(body.REFUSED, _within("/rollback", error.errors)) from None
    elif not wished:
        detail = "expected at least one service in services, patch or schemas; or a rollback"
        raise InvalidValues(body.REFUSED, [FieldError("", detail)])
    if twice := sorted(body.services.keys() & body.patch.keys()):
        detail = "replaced in services already: name it there or here"
        wrong = [FieldError(pointer("patch", name), detail) for name in twice]
        raise InvalidValues(body.REFUSED, wrong)
    for name in wished:
        request.grant.require("write", name)


async def _planned(request: ApiRequest, api: Api, body: PlanRequest, terms: Terms) -> Planned:
    """Beside the writer: what it is worked out from is what the plan names as its base. Raises what
    `storage.decisions.planning` refuses, SchemaInvalid, Forbidden, TooSlowError."""
    committed, shapes = api.system.view.committed, api.system.shapes
    on = Occasion(
        terms.by, terms.reason, api.system.world.clock.now(), correlation_id=request.correlation_id
    )
    order = body.rollback
    if order is None:
        wished = {**body.services, **body.patch, **body.schemas}
        running = runners(api, wished)

        def work_out() -> Planned:
            wish = Wish(
                services=body.services,
                patch=body.patch,
                schemas=_compiled(body.schemas),
                allow_breaking=bool(ALLOW_BREAKING.of(request)),
                allow_lossy=bool(ALLOW_LOSSY.of(request)),
            )
            return planned(committed, on, shapes, wish, running)

        return await comparing(request, work_out)
    everyone = runners(api, committed.services)

    def take_back(kept: Store) -> Planned:
        rollback = of_order(request, api, kept, committed, order, is_preview=False)
        return planned(committed, on, shapes, Wish(rollback=rollback), everyone)

    return await api.system.reading.past(take_back, request.context)


def _compiled(schemas: Mapping[str, JsonObject]) -> dict[str, CompiledSchema]:
    """Raises SchemaInvalid, with pointers into the request."""
    compiled: dict[str, CompiledSchema] = {}
    for name, schema in schemas.items():
        try:
            compiled[name] = CompiledSchema(schema)
        except SchemaInvalid as error:
            detail = f"{name}: {error.detail}"
            raise SchemaInvalid(detail, _within(pointer("schemas", name), error.errors)) from None
    return compiled


def _within(at: str, errors: Sequence[FieldError]) -> list[FieldError]:
    return [FieldError(at + one.pointer, one.detail) for one in errors]


# ── finding one ────────────────────────────────────────────────────────────────────────────────


def _is_visible(request: ApiRequest, plan: KeptPlan) -> bool:
    return all(map(request.grant.covers, plan.services))


async def _demand_plan(request: ApiRequest, api: Api) -> KeptPlan:
    """Raises NotFound, also if the token is not for all of its services: nobody learns that it is there."""
    plan_id = _ID.of(request)
    found = await api.system.reading.past(lambda kept: kept.plan_beside(plan_id), request.context)
    if found is not None and not _is_visible(request, found):
        found = None
    return plans.demanded(found, plan_id)


async def _use(
    request: ApiRequest, api: Api, terms: Terms, order: type[ApplyPlan | DeletePlan]
) -> JsonObject:
    """Have it done to a plan. Raises NotFound, Forbidden, and what that refuses."""
    what: ApplyPlan | DeletePlan | Refused
    try:
        plan = await _demand_plan(request, api)
    except NotFound as error:
        if terms.idempotency is None:
            raise
        what = Refused(error)  # the repetition of what was done is answered all the same
    else:
        for name in plan.services:
            request.grant.require("write", name)
        what = order(id=plan.id)
    answer: JsonObject = await api.system.storing.ask(Write(what, terms), request.context)
    return answer


def _size(plan: KeptPlan) -> int:
    return sum(map(len, plan.services))
