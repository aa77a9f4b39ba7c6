"""The decisions of an earlier run, read from its report, and the digest that says of which model it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.engine.attempt import Restrictions
from optimizer.engine.report import READABLE
from optimizer.errors import UsageError
from optimizer.io.model import to_proto

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        specs = ["+".join(member["spec"] for member in record["passes"]) for record in records]
        decisions = [[limits_from(decision) for decision in record["decisions"]] for record in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{replay}: no report of onnxhone that can be replayed: {error!r}") from error
    if replayed != digest(source):
        raise UsageError(
            f"{replay}: is the report of another model ({report['model'].get('label')}); run without --replay"
        )
    if specs != [str(stage) for stage in stages]:
        raise UsageError(f"{replay}: its stages are {specs}, asked for are {[str(stage) for stage in stages]}")
    return decisions


def digest(source: LoadedModel) -> str:
    """SHA-256 of the model file (of the serialized model where there is no file), data files aside."""
    if source.path is not None:
        with source.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(to_proto(source.model).SerializeToString(deterministic=True)).hexdigest()


def _decision(limit: Restrictions, ran: PassRun) -> Mapping[str, Any]:
    decision = {"skip": limit.skip, "steps": sorted(limit.steps), "sites": sorted(map(list, limit.sites))}
    return {**decision, "choices": dict(ran.choices)} if ran.choices and not limit.skip else decision


def limits_from(decision: Mapping[str, Any]) -> Restrictions:
    """The limits that a report's decision holds."""
    sites = frozenset((str(step), str(site)) for step, site in decision["sites"])
    return Restrictions(bool(decision["skip"]), frozenset(decision["steps"]), sites, choices=decision.get("choices"))
