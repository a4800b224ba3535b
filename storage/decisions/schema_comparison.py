"""What is different between two schemas of a service, and for whom each difference breaks something. Pure.

Three directions. stored: values that were allowed by the old schema, once the new one is active. new code: an
instance with the new schema, which reads what was written under the old. old code: the other way round.
What is written is closed: no unknown keys. Code takes unknown keys as its schema declares, fills in its own
defaults, and is sent a variant (`migrating.variant`) of what it does not take as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from config_manager.config.names import pointer
from config_manager.config.strict_json import JsonObject, is_object
from config_manager.storage.decisions import counterexamples, migrating
from config_manager.storage.decisions.containment import Proofs, bare
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.migrating import Move
from config_manager.storage.decisions.schema_rules import names_in
from config_manager.storage.decisions.schema_vocabulary import subschemas

Verdict = Literal["ok", "changes", "breaks"]
"""changes: values stay valid, and mean or do something else."""
Direction = Literal["stored", "new_code", "old_code"]
Proof = Literal["proved", "not proved"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. pointer: of the key in the new schema's values, "" for a rule. proof: whether it is certain;
    what could not be proved harmless counts as breaking. example: a value that shows it, None if none was
    found; `has_example` tells null from none. was: the key's earlier name, of a `renamed` one."""

    change: str
    pointer: str
    stored: Verdict
    new_code: Verdict
    old_code: Verdict
    proof: Proof = "proved"
    example: Any = None
    has_example: bool = False
    was: str | None = None

    def to_json(self) -> JsonObject:
        """As answered and kept. `example` and `was` are left out where there is none."""
        said: JsonObject = {
            "change": self.change,
            "pointer": self.pointer,
            "stored": self.stored,
            "new_code": self.new_code,
            "old_code": self.old_code,
            "proof": self.proof,
        }
        if self.has_example:
            said["example"] = self.example
        if self.was is not None:
            said["was"] = self.was
        return said


def verdict(differences: Iterable[Difference], direction: Direction) -> Verdict:
    """Of a whole comparison: the worst of its differences."""
    found = {getattr(one, direction) for one in differences}
    return "breaks" if "breaks" in found else "changes" if "changes" in found else "ok"


def compare(old: CompiledSchema, new: CompiledSchema) -> tuple[Difference, ...]:
    """Every difference that matters to somebody, in the order of the new schema's keys, rules last. Takes less
    than a second for any two schemas, and a millisecond for usual ones."""
    if old.digest == new.digest:
        return ()
    return tuple(_Comparison(old, new).differences())


@dataclass(frozen=True, slots=True)
class _Fit:
    """Whether the new schema takes what the old takes (forward), and the other way round (back)."""

    forward: bool
    back: bool
    proof: Proof = "proved"
    example: counterexamples.Found | None = None

    @property
    def verdicts(self) -> tuple[Verdict, Verdict, Verdict]:
        forward: Verdict = "ok" if self.forward else "breaks"
        return forward, forward, "ok" if self.back else "breaks"

    @property
    def word(self) -> str:
        if self.forward:
            return "widened"
        return "narrowed" if self.back else "changed"


@dataclass
class _Comparison:
    old: CompiledSchema
    new: CompiledSchema
    proofs: Proofs = field(default_factory=Proofs)

    def __post_init__(self) -> None:
        self._moves = migrating.moves(self.old, self.new)
        self._of_old, self._of_new = _mentioned(self.old), _mentioned(self.new)

    def differences(self) -> Iterator[Difference]:
        old, new = self.old, self.new
        moved = {move.new: move for move in self._moves.values()}
        for key in new.keys:
            if key in moved:
                yield from self._moved(moved[key])
            elif key in old.properties:
                yield from self._same_key(key)
            else:
                yield self._added(key)
        for key in old.keys:
            if key not in new.properties and key not in self._moves:
                yield self._removed(key)
        if old.closed != new.closed:
            yield Difference("closed" if new.closed else "opened", "", "ok", "ok", "ok")
        yield from self._rules()

    def _added(self, key: str) -> Difference:
        needed = key in _needed(self.new)
        judged = key in self._of_new
        forward: Verdict = "breaks" if needed or judged else "ok"
        back: Verdict = "breaks" if key in self._of_old else "ok"
        change = "required key added" if needed else "key added"
        proof: Proof = "proved" if needed or not (judged or back == "breaks") else "not proved"
        return Difference(change, pointer(key), forward, forward, back, proof)

    def _removed(self, key: str) -> Difference:
        needed = key in _needed(self.old)
        forward: Verdict = "changes"
        if self.new.closed or key in self._of_new:
            forward = "breaks"
        back: Verdict = "breaks" if needed or key in self._of_old else "changes"
        change = "required key removed" if needed else "key removed"
        return Difference(change, pointer(key), "breaks", forward, back)

    def _same_key(self, key: str) -> Iterator[Difference]:
        a, b, where = self.old.properties[key], self.new.properties[key], pointer(key)
        fit = self._fit(a, b)
        if not (fit.forward and fit.back):
            yield self._difference(fit.word, key, fit)
        yield from self._needs(key, key)
        if a.get("x-unit") != b.get("x-unit"):
            yield Difference("unit changed", where, "breaks", "breaks", "breaks")
        if (key in self.old.secrets) != (key in self.new.secrets):
            yield Difference("secret changed", where, "breaks", "breaks", "breaks")
        yield from self._default(key, key)

    def _moved(self, move: Move) -> Iterator[Difference]:
        """Values go up with the version, and down in a variant."""
        a, b = self.old.properties[move.old], self.new.properties[move.new]
        renamed = move.old != move.new
        forward = self._covers(b, migrating.shape_after(move, a))
        back = self._covers(a, migrating.shape_before(move, b)) and not _may_fail(move)
        fit = _Fit(forward, back, "proved" if forward and back else "not proved")
        judged = {move.old, move.new} & (self._of_old | self._of_new)
        if judged and ("multiply" in move.was or "map" in move.was or renamed):
            fit = _Fit(forward=False, back=False, proof="not proved")
        was = move.old if renamed else None
        change = "renamed" if renamed else "converted"
        yield self._difference(change, move.new, fit, was=was)
        yield from self._needs(move.old, move.new)
        if "multiply" not in move.was and a.get("x-unit") != b.get("x-unit"):
            where = pointer(move.new)
            yield Difference("unit changed", where, "breaks", "breaks", "breaks")
        if (move.old in self.old.secrets) != (move.new in self.new.secrets):
            where = pointer(move.new)
            yield Difference("secret changed", where, "breaks", "breaks", "breaks")
        if not move.was.keys() & {"multiply", "map"}:
            yield from self._default(move.old, move.new)

    def _needs(self, before: str, after: str) -> Iterator[Difference]:
        was, is_now = before in _needed(self.old), after in _needed(self.new)
        if is_now and not was:
            yield Difference("became required", pointer(after), "breaks", "breaks", "ok")
        if was and not is_now:
            yield Difference("became optional", pointer(after), "ok", "ok", "breaks")

    def _default(self, before: str, after: str) -> Iterator[Difference]:
        a, b = self.old.properties[before], self.new.properties[after]
        if ("default" in a) == ("default" in b) and _same(a.get("default"), b.get("default")):
            return
        forward = after in self._of_new
        back = before in self._of_old
        yield Difference(
            "default changed",
            pointer(after),
            "breaks" if forward else "ok",
            "breaks" if forward else "changes",
            "breaks" if back else "ok",
            "not proved" if forward or back else "proved",
        )

    def _difference(self, change: str, key: str, fit: _Fit, was: str | None = None) -> Difference:
        example = fit.example
        return Difference(
            change,
            pointer(key),
            *fit.verdicts,
            proof=fit.proof,
            example=example.value if example else None,
            has_example=example is not None,
            was=was,
        )

    def _fit(self, a: JsonObject, b: JsonObject) -> _Fit:
        bare_a, bare_b = bare(a), bare(b)
        if _same(bare_a, bare_b):
            return _Fit(forward=True, back=True)
        answers = self.proofs.covers(bare_b, bare_a), self.proofs.covers(bare_a, bare_b)
        forward, back = answers[0] == "yes", answers[1] == "yes"
        example, proved = None, "unknown" not in answers
        if not forward:
            example = counterexamples.taken_by_one_only(bare_a, bare_b)
            proved = proved or (example is not None and answers[1] != "unknown")
        elif not back:
            example = counterexamples.taken_by_one_only(bare_b, bare_a)
            proved = proved or example is not None
        return _Fit(forward, back, "proved" if proved else "not proved", example)

    def _covers(self, taking: JsonObject, taken: JsonObject) -> bool:
        one, other = bare(taking), bare(taken)
        return _same(one, other) or self.proofs.covers(one, other) == "yes"

    def _rules(self) -> Iterator[Difference]:
        before, after = _each_rule(self.old), _each_rule(self.new)
        gained, lost = bool(after.keys() - before.keys()), bool(before.keys() - after.keys())
        if gained or lost:
            word = "changed" if gained and lost else "added" if gained else "removed"
            forward: Verdict = "breaks" if gained else "ok"
            back: Verdict = "breaks" if lost else "ok"
            yield Difference(f"rule {word}", "", forward, forward, back, "not proved")


class _Everything(frozenset[str]):
    """The keys of rules that speak of keys in general."""

    def __contains__(self, key: object) -> bool:
        return True

    def __and__(self, other: Any) -> frozenset[str]:
        return frozenset(other)

    __rand__ = __and__

    def __or__(self, other: Any) -> _Everything:
        return self

    __ror__ = __or__


_GENERAL = frozenset(
    {"additionalProperties", "maxProperties", "minProperties", "patternProperties"}
    | {"propertyNames", "const", "enum"}
)


def _mentioned(schema: CompiledSchema) -> frozenset[str]:
    """The keys that rules depend on: another default of one may break a rule that is the same as before."""
    if _speaks_of_all(schema.rules):
        return _Everything()
    compared = {one[end] for one in schema.comparisons for end in ("lower", "upper")}
    return names_in(schema.rules) | compared


def _speaks_of_all(rule: Any) -> bool:
    if not is_object(rule):
        return False
    return bool(_GENERAL & rule.keys()) or any(
        _speaks_of_all(item)
        for keyword, _, item in subschemas(rule)
        if keyword not in ("properties", "items", "prefixItems", "contains")
    )


def _each_rule(schema: CompiledSchema) -> Mapping[bytes, Any]:
    rules = schema.rules
    own = {name: rules[name] for name in ("if", "then", "else") if name in rules}
    parted = [
        *rules.get("allOf", ()),
        *([own] if own else ()),
        *({"needs": [key, sorted(n)]} for key, n in rules.get("dependentRequired", {}).items()),
        *(
            {"compare": [one["lower"], one["upper"], one.get("strict", False)]}
            for one in schema.comparisons
        ),
    ]
    return {_key(bare(one)): one for one in parted}


def _needed(schema: CompiledSchema) -> frozenset[str]:
    """The keys that must be given, because they have no default."""
    required = schema.schema.get("required", ())
    return frozenset(key for key in required if "default" not in schema.properties[key])


def _may_fail(move: Move) -> bool:
    """Whether a value may have no counterpart for older code: an integer there, a number here."""
    return (
        "multiply" in move.was
        and move.old_kind == "integer"
        and not (move.new_kind == "integer" and move.was["multiply"][0] == 1)
    )


def _same(one: Any, other: Any) -> bool:
    return _key(one) == _key(other)


def _key(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
