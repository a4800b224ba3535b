"""Taking back over REST: a service, everything, one change, or the newest one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar, cast

from config_manager.actors.messages import Write
from config_manager.api.resources.configs import ConfigAnswer, EpochAnswer, tagged, view
from config_manager.api.rest.conditions import PRECONDITIONS, preconditions_of
from config_manager.api.rest.models import (
    INTEGER,
    KEY,
    Answer,
    Body,
    Name,
    Reader,
    SeveralWrong,
    about,
    read,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import SERVICE
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import (
    WRITE,
    ReasonInBody,
    WarningAnswer,
    WriteTerms,
    outcome_of,
    write_terms_of,
)
from config_manager.config.errors import (
    Busy,
    FieldError,
    Forbidden,
    InvalidValues,
    NothingToTakeBack,
    NotThereThen,
    Refusal,
    UndoConflict,
)
from config_manager.config.names import is_key, pointer
from config_manager.config.strict_json import MAX_INTEGER, JsonObject
from config_manager.storage.decisions import taking_back
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.intents import EpochWritten, Written
from config_manager.storage.decisions.rollback import Moved, Refused, Rollback, RollbackEpoch
from config_manager.storage.state import Committed
from config_manager.storage.store import Store

D = TypeVar("D", bound=Decidable[Any])

_TRIES = 8
"""How often the past is read anew if somebody writes in between."""
_MOST_KEYS = 500


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


def _parse_revision(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise ValueError("expected a revision: an integer from 0")
    return value


def _parse_keys(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    keys = cast("list[object]", value if isinstance(value, list) else [])
    if not 1 <= len(keys) <= _MOST_KEYS:
        raise ValueError(f"expected a list of 1 to {_MOST_KEYS} keys")
    wrong = [
        FieldError(pointer(number), "expected a key's name")
        for number, one in enumerate(keys)
        if not isinstance(one, str) or not is_key(one)
    ]
    if wrong:
        raise SeveralWrong(wrong)
    return tuple(dict.fromkeys(map(str, keys)))


def _parse_last(value: Any) -> bool:
    if value is not None and value is not True:
        raise ValueError("expected true")
    return bool(value)


def _revision_schema(description: str) -> JsonObject:
    return {**INTEGER, "description": description}


def _keys_schema(description: str) -> JsonObject:
    items = {"type": "array", "items": KEY, "minItems": 1, "maxItems": _MOST_KEYS}
    return {**items, "description": description}


def _parse_needed_revision(value: Any) -> int:
    revision = _parse_revision(value)
    if revision is None:
        raise ValueError("expected a revision: an integer from 0")
    return revision


class RollbackRequest(Body):
    """To which revision of the server's a service shall go back."""

    REFUSED: ClassVar[str] = "the order is not as it should be; nothing was written"

    to_revision: Annotated[
        int, Reader(_parse_needed_revision, _revision_schema("what was there as of this one"))
    ]
    keys: Annotated[
        tuple[str, ...] | None,
        Reader(_parse_keys, _keys_schema("only these keys; all if it is left out")),
    ] = None
    reason: ReasonInBody = None


class EpochRollbackRequest(Body):
    """What to take back: everything after `to_revision`, one revision (`undo`), or the newest change (`last`). One of
    the three."""

    REFUSED: ClassVar[str] = "the order is not as it should be; nothing was written"

    to_revision: Annotated[
        int | None,
        Reader(_parse_revision, _revision_schema("every service as of this revision")),
    ] = None
    undo: Annotated[
        int | None,
        Reader(_parse_revision, _revision_schema("the one revision or epoch to take back")),
    ] = None
    last: Annotated[
        bool,
        Reader(
            _parse_last,
            {
                "type": "boolean",
                "enum": [True],
                "description": "the newest change of values that was not taken back yet",
            },
        ),
    ] = False
    keys: Annotated[
        tuple[str, ...] | None,
        Reader(
            _parse_keys,
            _keys_schema("with `undo`: keys to take back although they were written since"),
        ),
    ] = None
    reason: ReasonInBody = None


class _Preview(Answer):
    errors: Annotated[
        Sequence[WarningAnswer],
        about(
            "of a dry run: values that today's schema does not take; it would be refused for them"
        ),
    ] = ()


class RollbackAnswer(_Preview, ConfigAnswer):
    """A service's configuration after it went back; of a dry run, what that would change of its effective values."""


class EpochRollbackAnswer(_Preview, EpochAnswer):
    """The epoch that took something back."""

    kept: Annotated[
        Sequence[Name], about("services that were not there before, and stay as they are")
    ] = ()
    undone: Annotated[
        int | None, about("the revision that was taken back; null: all after `to_revision`")
    ] = None


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_REFUSED = (
    "409 `rollback-refused` if today's schema does not take some of the values; `errors` names them. Values of an "
    "older schema are moved as `x-was` says. Secrets stay as they are. A dry run answers what would change of the "
    "effective values, what would be refused, and which instances would get other values."
)


@operation(
    "Write again what a service had as of a revision",
    answers={200: RollbackAnswer, 201: RollbackAnswer},
    problems=(404, 409, 412),
    takes=(*PRECONDITIONS, *WRITE),
    body=RollbackRequest,
    tagged=True,
    description=f"A revision of its own, so nothing is lost; 404 `not-there-then` if there was no such service. {_REFUSED}",
)
async def rollback_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    body = read(request, RollbackRequest)
    write_terms = write_terms_of(request).because(
        body.reason or _reason(request, f"rollback to revision {body.to_revision}")
    )
    preconditions = preconditions_of(request)

    def decision(committed: Committed, kept: Store) -> Rollback:
        _demand_past(committed, body.to_revision)
        target = taking_back.as_of(kept, committed, api.system.shapes, service, body.to_revision)
        if target is None:
            raise NotThereThen(
                f"as of revision {body.to_revision} nobody had written {service} yet, or it was deleted; GET "
                f"/api/v1/config/{service}/history says since when it is there"
            )
        is_preview = write_terms.terms.dry_run
        return Rollback(
            service=service,
            target=target,
            keys=body.keys,
            preconditions=preconditions,
            preview=is_preview,
        )

    written: Written = await _decided(request, api, write_terms, decision)
    state = written.state
    answer = view(api, service, state)
    answer |= await outcome_of(api, [state], write_terms, written.changes, written.warnings)
    if write_terms.terms.dry_run:
        return json_response({**answer, **_preview(written.errors)})
    return tagged(answer, 201 if written.first else 200)


@operation(
    "Take back everything since a revision, one change, or the newest one, as an epoch",
    answers={200: EpochRollbackAnswer},
    problems=(404, 409),
    takes=WRITE,
    body=EpochRollbackRequest,
    description="`to_revision`: every service has what it had then; one that was not there is kept, and named. "
    "The token must be for every service.\n\n"
    "`undo`: one revision or epoch, though others came after it: 409 `undo-conflict` if one of its keys was "
    "written since, unless `keys` lists it.\n\n"
    "`last`: the newest revision or epoch that changed values, is no rollback and was not taken back yet. So "
    "twice goes further back, never forth; 409 `nothing-to-take-back` at the end.\n\n"
    f"The token must be for every service that changes. {_REFUSED}",
)
async def rollback_epoch(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, EpochRollbackRequest)
    check_order(request, body)
    write_terms = write_terms_of(request).because(body.reason or _reason(request, told_of(body)))

    def decision(committed: Committed, kept: Store) -> RollbackEpoch:
        return of_order(request, api, kept, committed, body, is_preview=write_terms.terms.dry_run)

    written: EpochWritten = await _decided(request, api, write_terms, decision)
    names = [state.service for state in written.services]
    answer: JsonObject = {
        "config_epoch": written.config_epoch,
        "epoch_seq": written.epoch_seq,
        "revision": written.revision,
        "services": names,
        "kept": list(written.kept),
        "undone": written.undone,
        **await outcome_of(api, written.services, write_terms, None, written.warnings),
    }
    if write_terms.terms.dry_run:
        answer["changes"] = [
            {"service": name, **change.to_object()}
            for name, changes in written.changes.items()
            for change in changes
        ]
        answer |= _preview(written.errors)
    return json_response(answer)


def check_order(request: ApiRequest, body: EpochRollbackRequest) -> None:
    """Raises InvalidValues, and Forbidden if only a token for every service may ask that."""
    given = [
        name
        for name, value in (
            ("to_revision", body.to_revision), ("undo", body.undo), ("last", body.last or None)
        )
        if value is not None
    ]  # fmt: skip
    if len(given) != 1:
        at = pointer(given[1]) if given else ""
        error = FieldError(at, "expected one of to_revision, undo and last")
        raise InvalidValues(body.REFUSED, [error])
    if body.keys is not None and body.undo is None:
        raise InvalidValues(body.REFUSED, [FieldError("/keys", "only with undo")])
    if body.to_revision is not None and request.grant.is_narrowed:
        raise Forbidden(
            f"{request.by!r} is for {', '.join(request.grant.services)}; everything can be taken back "
            "only with a token for every service"
        )


def _demand_write(request: ApiRequest, services: Iterable[str]) -> None:
    """Raises Forbidden, which names no service that the token is not for."""
    request.grant.require("write")
    if not all(map(request.grant.covers, services)):
        raise Forbidden(
            f"{request.by!r} is for {', '.join(request.grant.services)}; this concerns other services, too"
        )


def told_of(body: EpochRollbackRequest) -> str:
    """The reason, if nobody gives one."""
    if body.to_revision is not None:
        return f"rollback to revision {body.to_revision}"
    return "rollback of the newest change" if body.last else f"rollback of revision {body.undo}"


def of_order(
    request: ApiRequest,
    api: Api,
    kept: Store,
    committed: Committed,
    body: EpochRollbackRequest,
    *,
    is_preview: bool,
) -> RollbackEpoch:
    """What it comes to, read from what is kept. Raises NotThereThen, UndoConflict, NothingToTakeBack, and Forbidden if
    the token is not for every service that it names."""
    shapes, read_at = api.system.shapes, committed.revision
    if body.to_revision is not None:
        _demand_past(committed, body.to_revision)
        targets = taking_back.everything(kept, committed, shapes, body.to_revision)
        return RollbackEpoch(
            targets=targets,
            kept=(),
            read_at=read_at,
            to_revision=body.to_revision,
            preview=is_preview,
        )
    made: tuple[str, ...] = ()
    revision = body.undo
    try:
        if revision is None:
            revision, made = taking_back.newest_left(kept, committed, shapes)
        _demand_past(committed, revision)
        targets, also_made = taking_back.undo(kept, committed, shapes, revision, body.keys or ())
    except UndoConflict as error:
        _demand_write(request, [one["service"] for one in error.moved])
        raise
    except NothingToTakeBack:
        if request.grant.is_narrowed:  # it names others' services
            raise NothingToTakeBack(taking_back.nothing_left(())) from None
        raise
    stay = tuple(sorted({*made, *also_made}))
    _demand_write(request, (*targets, *stay))
    return RollbackEpoch(
        targets=targets,
        kept=stay,
        read_at=read_at,
        undone=revision,
        preview=is_preview,
    )


def _demand_past(committed: Committed, revision: int) -> None:
    """Raises NotThereThen."""
    if revision > committed.revision:
        raise NotThereThen(
            f"revision {revision} is still to come; the newest one is {committed.revision}"
        )


# ── reading, deciding, and again ───────────────────────────────────────────────────────────────


async def _decided(
    request: ApiRequest,
    api: Api,
    write_terms: WriteTerms,
    decision: Callable[[Committed, Store], D],
) -> Any:
    """Read the past beside the writer, then let it decide; from the beginning if somebody wrote in between. Raises
    Busy if that happens all the time."""
    terms = write_terms.terms
    for _ in range(_TRIES):
        committed = api.system.view.committed
        what: Decidable[Any]
        try:
            what = await api.system.reading.past(partial(decision, committed), request.context)
        except Refusal as error:
            if terms.idempotency is None:
                raise
            what = Refused(error)
        try:
            return await api.system.storing.ask(Write(what, terms), request.context)
        except Moved:
            continue
    raise Busy("others write all the time, and what is to be taken back depends on it; try again")


def _reason(request: ApiRequest, told: str) -> str | None:
    """What history says if the caller gives no reason."""
    return None if "reason" in request.query else told


def _preview(errors: Sequence[FieldError]) -> JsonObject:
    return {"errors": [one._asdict() for one in errors]}
