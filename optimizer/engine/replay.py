"""The decisions of an earlier run, read from its report, and the digest that says of which model it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.engine.attempt import Restrictions
from optimizer.engine.report import READABLE
from optimizer.errors import UsageError
from optimizer.io.model import to_proto
from optimizer.recipes.spec import parse_pass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optimizer.contract.passes import Pass
    from optimizer.engine.attempt import PassRun
    from optimizer.io.model import LoadedModel
    from optimizer.recipes.spec import Stage


def decisions_of(
    replay: str | Path | None, source: LoadedModel, stages: Sequence[Stage]
) -> list[list[Restrictions]] | None:
    """The limits that the report of an earlier run holds, one list a stage.

    Raises:
        UsageError: If the file is no report, of an unknown schema, or of another model or other stages.
    """
    if replay is None:
        return None
    try:
        report = json.loads(Path(replay).read_text(encoding="utf-8"))
        if (schema := report["schema"]) not in READABLE:
            raise UsageError(
                f"{replay}: is a report of schema {schema}, this version reads {' and '.join(map(str, READABLE))}:"
                f" replay it with the version that wrote it, onnxhone {report.get('versions', {}).get('onnxhone')}"
            )
        replayed, records = report["model"]["sha256"], report["stages"]
        specs = [[member["spec"] for member in record["passes"]] for record in records]
        decisions = [record["decisions"] for record in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{replay}: no report of onnxhone that can be replayed: {error!r}") from error
    if replayed != digest(source):
        raise UsageError(
            f"{replay}: is the report of another model ({report['model'].get('label')}); run without --replay"
        )
    if not _are_the_same(specs, stages):
        texts = ["+".join(members) for members in specs]
        raise UsageError(f"{replay}: its stages are {texts}, asked for are {[str(stage) for stage in stages]}")
    try:
        return [
            [limits_from(*pair, str(replay)) for pair in zip(row, stage.passes, strict=True)]
            for row, stage in zip(decisions, stages, strict=True)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{replay}: no decisions that can be replayed: {error!r}") from error


def _are_the_same(specs: Sequence[Sequence[str]], stages: Sequence[Stage]) -> bool:
    """Whether ``specs`` spell the passes of ``stages``, in whichever order of the options."""
    passes = [[str(member) for member in stage.passes] for stage in stages]
    if specs == passes:
        return True
    try:
        return [[str(parse_pass(spec)) for spec in members] for members in specs] == passes
    except UsageError:
        return False


def digest(source: LoadedModel) -> str:
    """SHA-256 of the model file (of the serialized model where there is no file), data files aside."""
    if source.path is not None:
        with source.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(to_proto(source.model).SerializeToString(deterministic=True)).hexdigest()


def decision_of(limit: Restrictions, ran: PassRun) -> Mapping[str, Any]:
    """What a report says of the limits in which a pass ran, and of what it decided."""
    decision = {"skip": limit.skip, "steps": sorted(limit.steps), "sites": sorted(map(list, limit.sites))}
    return decision if ran.choices is None or limit.skip else {**decision, "choices": ran.choices.to_json()}


def limits_from(decision: Mapping[str, Any], member: Pass, where: str) -> Restrictions:
    """The limits that a report's decision holds for the pass ``member``; an error begins with ``where``.

    Raises:
        UsageError: If the pass decides nothing of that kind.
        KeyError: If the decision lacks a key.
    """
    sites = frozenset((str(step), str(site)) for step, site in decision["sites"])
    limits = Restrictions(bool(decision["skip"]), frozenset(decision["steps"]), sites)
    if "choices" not in decision:
        return limits
    where = f"{where}: choices of {member.name}"
    if member.choices_type is None:
        raise UsageError(f"{where}: {decision['choices']!r}, but it has none; run without --replay")
    return replace(limits, choices=member.choices_type.from_json(decision["choices"], where))
