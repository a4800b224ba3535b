"""Every error with a stable name, in one tree and one table.

    ConfigManagerError
    ├── Refusal                     a request was understood and refused; the actor goes on
    │   ├── MalformedRequest        bytes that are not what they claim to be (name, JSON, header)
    │   │   └── InvalidName         a service, key or secret name outside the grammar, or reserved
    │   ├── NotAuthenticated        no token, or an unknown one
    │   ├── Forbidden               a known token that may not do this, or not from here
    │   ├── NotFound                no such service, revision, root, page
    │   │   └── NotThereThen        no such service as of that revision or time
    │   ├── MethodNotAllowed
    │   ├── RevisionConflict        If-Match names another revision than the current one
    │   ├── Conflict                the current state does not allow it, such as a name that is taken
    │   ├── NothingToTakeBack       no change is left that could be taken back
    │   ├── UndoConflict            a key of the change that is to be undone was written since
    │   ├── PlanStale               what a plan was worked out from has moved
    │   ├── PlanUsed                a plan that was applied
    │   ├── PlanExpired             a plan that was not applied in time
    │   ├── StillThere              an instance that is to be forgotten is still heard
    │   ├── TooLarge                body over 1 MiB, or an envelope over 256 KiB
    │   ├── UnsupportedMediaType
    │   ├── InvalidValues           JSON that the service's model does not allow; one entry per field
    │   │   ├── UseSecrets          a secret's value where no secret may be
    │   │   ├── SchemaInvalid       no JSON Schema that may describe a service
    │   │   ├── SchemaBreaking      a schema that breaks stored values, new code or an instance
    │   │   ├── MigrationLossy      a schema that would lose stored values
    │   │   ├── ReportTooLarge      a report that would need more evidence than one may hold
    │   │   ├── RollbackRefused     values of then that today's schema does not take
    │   │   └── IdempotencyMismatch the same Idempotency-Key with another request
    │   ├── TooManyRequests         more unknown tokens, or more writes, than the limit allows
    │   ├── SecretUnreadable        a stored secret does not open: altered, or its key is gone
    │   ├── KeyUnusable             a stored public key to which nothing can be sealed
    │   ├── ReadOnly                the database cannot be written now
    │   ├── OutcomeUnknown          the disk failed during a commit, which may have become durable
    │   ├── Busy                    a mailbox stayed full, or an actor was restarting: try again
    │   ├── TooManyStreams          no room for another stream: in all, or of this token
    │   ├── DeadlineExceeded        accepted, but not answered in time: the outcome is unknown
    │   ├── DiskRefused             a file other than the database can't be read or written now
    │   └── StorageFull             the disk is full; nothing was written
    ├── ServerUnreachable           a command asked a server, and no answer of ours came
    ├── ServerSays                  a command asked a server, which answered with a problem
    ├── AuditBroken             a row of the audit is not what it was when it was written
    ├── ReportBroken            a report does not verify
    ├── OpenDrift               instances do not run what they should
    ├── NotConformant           a client that was tried does not do what docs/wire.md says
    ├── NotDelivered            a test of a notification was not answered with 2xx
    └── StartError                  the process cannot start (or go on) as asked
        ├── SettingsInvalid         a setting or the command line does not parse
        ├── PortTaken
        ├── DataDirUnusable         a data directory can't be made, entered or written, and has no database
        ├── DiskFailed              a file beside a database, or of a command, can't be read or written
        ├── DatabaseUnopenable      wrong key, not a database, or an instance.json without a database
        ├── KeyFileUnsafe           others can read a key file
        ├── DataDirInUse            another process holds the data directory
        ├── RecoveryRefused         a recovery key is mistyped or another's, or the sealed keys were altered
        ├── RootRefused             a trust root does not verify
        ├── NothingKept             no last-known-good configuration in the client's state
        ├── NothingDelivered        a required configuration came neither from a broker nor from the state
        ├── ConfigurationStale      for `max_stale_s` nothing has proved that what runs is current
        └── ForkedAway              a configuration was opened before a fork and used in the child

`DESCRIPTIONS` (`config.error_table`) is the one place where an error becomes a status code, an exit code and a log level. A class's
docstring is the `meaning` that `GET /problems/{name}` answers: when it comes, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from config_manager.config.error_table import (
    DESCRIPTIONS as DESCRIPTIONS,
    ConfigManagerError as ConfigManagerError,
    Description as Description,
    FieldError as FieldError,
    describe,
    the_reason as the_reason,
)
from config_manager.config.process_errors import (
    AuditBroken as AuditBroken,
    ConfigurationStale as ConfigurationStale,
    DatabaseUnopenable as DatabaseUnopenable,
    DataDirInUse as DataDirInUse,
    DataDirUnusable as DataDirUnusable,
    DiskFailed as DiskFailed,
    ForkedAway as ForkedAway,
    KeyFileUnsafe as KeyFileUnsafe,
    NotConformant as NotConformant,
    OpenDrift as OpenDrift,
    NotDelivered as NotDelivered,
    NothingDelivered as NothingDelivered,
    NothingKept as NothingKept,
    PortTaken as PortTaken,
    RecoveryRefused as RecoveryRefused,
    ReportBroken as ReportBroken,
    RootRefused as RootRefused,
    ServerSays as ServerSays,
    ServerUnreachable as ServerUnreachable,
    SettingsInvalid as SettingsInvalid,
    StartError as StartError,
)


class Refusal(ConfigManagerError):
    """Understood and turned down: an answer, not a crash."""


class MalformedRequest(Refusal):
    """A body, parameter, header or path does not parse. Correct what `detail` names."""


class InvalidName(MalformedRequest):
    """The name of a service, an instance or a secret is outside the grammar, or reserved. Choose another."""


class NotAuthenticated(Refusal):
    """No token, or an unknown one. Send `Authorization: Bearer …`; the first start wrote one to `keys/admin.token`."""


class Forbidden(Refusal):
    """The token may not do this, or not from here. Use one that may, or ask an administrator for one."""


class NotFound(Refusal):
    """There is no such thing. Look at the list, such as `GET /api/v1/config`, or at `GET /docs` for paths."""


class NotThereThen(NotFound):
    """There was no such service then, or the revision is still to come. `GET …/history` says since when it is there."""


class MethodNotAllowed(Refusal):
    """The path has no such method. Use one of those in `Allow`."""

    def __init__(self, detail: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.allowed = tuple(allowed)


class RevisionConflict(Refusal):
    """The caller's `If-Match` is not the service's current revision, or the service has a revision although
    the caller expected none. Read again, look at what changed, and repeat with the new ETag."""

    def __init__(self, service: str, expected: str | None, current_revision: int) -> None:
        super().__init__(
            f"{service} is at revision {current_revision}. If-None-Match: * writes what nobody has "
            "written yet, and is all that it is good for here; to change what there is, use If-Match"
            if expected is None
            else f"{service} is at revision {current_revision}, not {expected}; "
            "read it again, look at what changed, and repeat the write with its ETag"
        )
        self.expected = expected
        self.current_revision = current_revision

    @property
    def extensions(self) -> Mapping[str, Any]:
        return {"expected": self.expected, "current_revision": self.current_revision}


class Conflict(Refusal):
    """What is there does not allow it, such as a name that is taken. `detail` says what to change first."""


class NothingToTakeBack(Refusal):
    """No change of values is left that has not been taken back, or this one changes nothing any more. Look at the
    history; `to_revision` writes what was there at any revision."""


class UndoConflict(Refusal):
    """A key of the change was written since: `moved` names each. List it in `keys` to take it back all the same."""

    def __init__(self, detail: str, moved: Sequence[Mapping[str, Any]] = ()) -> None:
        """moved: `{"service", "key", "revision"}` of each key, with the newest revision that wrote it."""
        super().__init__(detail)
        self.moved = tuple(moved)

    @property
    def extensions(self) -> Mapping[str, Any]:
        return {"moved": list(self.moved)}


class PlanStale(Refusal):
    """What the plan was worked out from was changed since: `moved` names what, and by whom. Look at that, and plan
    again; nothing was written."""

    def __init__(self, detail: str, moved: Sequence[Mapping[str, Any]] = ()) -> None:
        """moved: `{"service", "what", "was", "is", "by"}` of each revision or schema that is another."""
        super().__init__(detail)
        self.moved = tuple(moved)

    @property
    def extensions(self) -> Mapping[str, Any]:
        return {"moved": list(self.moved)}


class PlanUsed(Refusal):
    """The plan was applied already: a plan is used once. `applied` says when, by whom, and which revision that
    is."""

    def __init__(self, detail: str, applied: Mapping[str, Any] = MappingProxyType({})) -> None:
        super().__init__(detail)
        self.applied = applied

    @property
    def extensions(self) -> Mapping[str, Any]:
        return {"applied": dict(self.applied)}


class PlanExpired(Refusal):
    """The plan was good for 24 hours, and they are over. Plan again; nothing was written."""


class StillThere(Refusal):
    """An instance that is to be forgotten is still heard.

    Stop it, or wait until its broker says that it is gone (15 s after it died). An instance that died
    together with its broker counts as gone once it has left a change of its service unanswered for 5
    minutes, or has said nothing for a day.
    """


class TooLarge(Refusal):
    """A body has 1 MiB at most, a service's signed message 256 KiB. Send less."""


class UnsupportedMediaType(Refusal):
    """The body's type or coding is not taken. Send what `Accept`, `Accept-Patch` or `Accept-Encoding` says."""

    def __init__(self, detail: str, accepted: Mapping[str, str] = MappingProxyType({})) -> None:
        """accepted: the headers that say which types are taken (RFC 9110, 15.5.16; RFC 5789)."""
        super().__init__(detail)
        self.accepted = accepted


class InvalidValues(Refusal):
    """JSON, but not what the service's schema or the call allows. Correct what `errors` points at."""

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)

    @property
    def extensions(self) -> Mapping[str, Any]:
        return {"errors": [{"pointer": e.pointer, "detail": e.detail} for e in self.errors]}


class UseSecrets(InvalidValues):
    """A secret's value stands among the values. Set it with `POST /api/v1/secrets`, and leave it out here."""


class SchemaInvalid(InvalidValues):
    """It is no JSON Schema that may describe a service. Correct what `errors` points at, in the schema."""


class SchemaBreaking(InvalidValues):
    """The schema breaks stored values, code that is built with it, or an instance that runs. Look at
    `differences` and `breaks`; change the schema, or ask for it with `allow_breaking` and a reason."""

    def __init__(
        self,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        differences: Sequence[Mapping[str, Any]] = (),
        breaks: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(detail, errors)
        self.differences = tuple(differences)
        self.breaks = breaks

    @property
    def extensions(self) -> Mapping[str, Any]:
        also = {"differences": list(self.differences), "breaks": dict(self.breaks)}
        return {**super().extensions, **also}


class RollbackRefused(InvalidValues):
    """Today's schema does not take some values of then: `errors` names each. Take back other keys (`keys`), or write
    the values as they have to be now."""


class ReportTooLarge(InvalidValues):
    """The report would need more rows of the audit, or more receipts, than one may hold. Ask for a shorter span, or for
    one `service`."""


class MigrationLossy(InvalidValues):
    """A stored value would be lost as the schema's `x-was` moves it. Correct that, or ask for it with `allow_lossy`;
    a value that has no counterpart, such as an integer with a fraction, has to be changed first."""


class IdempotencyMismatch(InvalidValues):
    """The same Idempotency-Key came with another request within 24 h. Take a new one."""


class TooManyRequests(Refusal):
    """Too many unknown tokens from an address, or more writes than the limit. Wait for `Retry-After` seconds."""

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class SecretUnreadable(Refusal):
    """A stored secret does not open: it was altered, or its key is gone. Put `keys/secrets.key` back, or set it
    anew."""


class KeyUnusable(Refusal):
    """Nothing can be sealed to a stored public key: it is of low order, or no key at all. Revoke the
    instance, and enrol it with new keys."""


class ReadOnly(Refusal):
    """The database can't be written now. `reasons` in `GET /health` says why; repeat after `Retry-After`."""


class OutcomeUnknown(Refusal):
    """The disk failed in the middle of the commit: it may have become durable. Read, then repeat."""


class Busy(Refusal):
    """The server has too much to do, or a part of it starts again. Repeat after `Retry-After`."""


class TooManyStreams(Refusal):
    """Too many streams (`GET /api/v1/watch`) are open, in all or of this token. End one, or repeat after `Retry-After`."""


class DeadlineExceeded(Refusal):
    """The outcome is unknown: read before you repeat. An Idempotency-Key makes repeating safe."""


class DiskRefused(Refusal):
    """The request needs a file that can't be read or written now; nothing was changed. Repair the disk or its
    rights."""


class StorageFull(Refusal):
    """The disk is full, and nothing was written. Free some space."""


describe(
    {
        Refusal: Description("refused", "Refused", 400, 1),
        MalformedRequest: Description("malformed-request", "The request is malformed", 400, 2),
        InvalidName: Description("invalid-name", "Not a valid name", 400, 2),
        NotAuthenticated: Description(
            "not-authenticated", "A valid token is needed", 401, 5, "warning"
        ),
        Forbidden: Description("forbidden", "Not allowed", 403, 5, "warning"),
        NotFound: Description("not-found", "Not found", 404, 6),
        NotThereThen: Description("not-there-then", "Not there then", 404, 6),
        MethodNotAllowed: Description("method-not-allowed", "Method not allowed", 405, 2),
        RevisionConflict: Description("revision-conflict", "Somebody else wrote first", 412, 7),
        Conflict: Description("conflict", "Stands against what is there", 409, 7),
        NothingToTakeBack: Description(
            "nothing-to-take-back", "There is nothing to take back", 409, 7
        ),
        UndoConflict: Description("undo-conflict", "It was written again since", 409, 7),
        RollbackRefused: Description(
            "rollback-refused", "Today's schema does not take what was there", 409, 7
        ),
        PlanStale: Description("plan-stale", "The plan's base has moved", 409, 7),
        PlanUsed: Description("plan-used", "The plan was applied already", 409, 7),
        PlanExpired: Description("plan-expired", "The plan is past its time", 409, 7),
        StillThere: Description("still-there", "It is still heard", 409, 7),
        TooLarge: Description("too-large", "Too large", 413, 2),
        UnsupportedMediaType: Description(
            "unsupported-media-type", "Unsupported media type", 415, 2
        ),
        InvalidValues: Description("invalid-values", "The values are not allowed", 422, 2),
        UseSecrets: Description("use-secrets", "Secrets have a call of their own", 422, 2),
        SchemaInvalid: Description("schema-invalid", "Not a schema for a service", 422, 2),
        SchemaBreaking: Description("schema-breaking", "The schema breaks something", 409, 7),
        MigrationLossy: Description("migration-lossy", "Values would be lost", 422, 2),
        ReportTooLarge: Description("report-too-large", "The report is too large", 422, 2),
        IdempotencyMismatch: Description(
            "idempotency-mismatch", "This Idempotency-Key was used for another request", 422, 7
        ),
        TooManyRequests: Description(
            "too-many-requests", "Too many requests", 429, 1, "warning", 1
        ),
        SecretUnreadable: Description(
            "secret-unreadable", "A stored secret does not open", 409, 3, "error"
        ),
        KeyUnusable: Description("key-unusable", "A public key can't be used", 409, 5, "error"),
        ReadOnly: Description("read-only", "Read-only for now", 503, 1, "warning", 5),
        OutcomeUnknown: Description(
            "outcome-unknown", "It may have been written", 503, 1, "warning", 5
        ),
        Busy: Description("busy", "Busy, try again", 503, 1, "warning", 1),
        TooManyStreams: Description(
            "too-many-streams", "Too many streams are open", 503, 1, "warning", 5
        ),
        DeadlineExceeded: Description(
            "deadline-exceeded", "Not answered in time", 504, 1, "warning"
        ),
        DiskRefused: Description(
            "disk-refused", "A file can't be read or written", 503, 1, "error", 5
        ),
        StorageFull: Description("storage-full", "No space left", 507, 1, "error"),
    }
)
