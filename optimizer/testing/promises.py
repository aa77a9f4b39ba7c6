"""What every pass promises, one function a promise: it is given a trial and says what does not hold, in one line."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx

from optimizer.contract.passes import Gain, Note, Sites, Step
from optimizer.engine.gates import signature_failure
from optimizer.errors import ModelError, ReferenceRunError
from optimizer.evaluation.runtime.session import session
from optimizer.graph import queries, traversal
from optimizer.io.model import check_structure, complaint_of_checker
from optimizer.io.protos.proto_diff import difference
from optimizer.testing.models import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    from optimizer.testing.trials import Run, Trial

    Promise: TypeAlias = Callable[[Trial], str]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_SUMMARY = 120


def is_a_value(trial: Trial) -> str:
    """A pass is a frozen dataclass that its options make again, with a name, a summary, a gain, and named steps."""
    tried = trial.tried
    if not _is_frozen(type(tried)):
        return "is no frozen dataclass: decorate it with @dataclass(frozen=True)"
    if type(tried)(**tried.options()) != tried:
        return f"is not made again by its options {tried.options()}"
    if not _NAME.fullmatch(tried.name):
        return f"is called {tried.name!r}: names are small letters and digits, words with dashes between"
    if not tried.summary or "\n" in tried.summary or len(tried.summary) > _LONGEST_SUMMARY:
        return f"has no summary of one line of up to {_LONGEST_SUMMARY} characters"
    if tried.gain not in list(Gain):
        return f"has the gain {tried.gain!r}, which is none of optimizer.Gain"
    names = [step.name for step in tried.steps() if isinstance(step, Step)]
    return "" if len(set(names)) == len(tried.steps()) else f"has steps that are no Step, or share a name: {names}"


def works_or_refuses(trial: Trial) -> str:
    """A pass works, or raises ``PreconditionError`` with the reason: with feeds and, as under ``--no-run``, without."""
    for run in trial.runs:
        if run.refusal is not None and not str(run.refusal):
            return "refuses without a reason"
        strange = [note for note in run.result.notes if not (isinstance(note, Note) and note.subject and note.reason)]
        if strange:
            return f"has a note without subject or reason: {strange[0]}"
        if failure := _structure(trial, run):
            return failure
    return ""


def keeps_the_reference(trial: Trial) -> str:
    """No run writes into a tensor, which the clones share, nor changes the reference."""
    trial.runs  # noqa: B018 - runs the pass
    return trial.damage()


def keeps_the_interface(trial: Trial) -> str:
    """Inputs and outputs keep names, order, types, shapes and texts; so do the model and what stays of it."""
    return next(filter(None, (_changed_interface(trial.before, run) for run in trial.runs)), "")


def _changed_interface(before: Run, after: Run) -> str:
    failure = signature_failure(before.result.model, after.result.model)
    if failure is not None:
        return failure.reason
    for kind in ("input", "output"):
        for old, new in zip(getattr(before.proto.graph, kind), getattr(after.proto.graph, kind), strict=True):
            if path := difference(old, new):
                return f"changed {path} of the {kind} {old.name!r}"
    for text in ("name", "doc_string", "metadata_props"):
        if getattr(before.proto.graph, text) != getattr(after.proto.graph, text):
            return f"changed the graph's {text}"
    return _lost_text(before.result.model, after.result.model) or _lost_domain(before, after)


def keeps_names_unique(trial: Trial) -> str:
    """No two nodes, and no two values of a graph with its subgraphs, share a name that did not before."""
    for kind, names in (("nodes", _node_names), ("values", _value_names)):
        before, *after = (
            {name for name, count in Counter(names(run.result.model)).items() if count > 1}
            for run in (trial.before, *trial.runs)
        )
        if new := set().union(*after) - before:
            return f"two {kind} are called {min(name for _, name in new)!r}"
    return ""


def counts_changes(trial: Trial) -> str:
    """``changes`` names what was done, with a number above zero, and is empty if and only if nothing was."""
    return next(filter(None, (_miscounted(trial.before, run) for run in trial.runs)), "")


def _miscounted(before: Run, after: Run) -> str:
    changes = dict(after.result.changes)
    for kind, count in changes.items():
        if not (kind and isinstance(kind, str)) or isinstance(count, bool) or not isinstance(count, int) or count < 1:
            return f"counts {kind!r}: {count!r}; leave kinds out that did not happen"
    path = difference(before.proto, after.proto)
    if changes and path is None:
        return f"counts {changes}, but the model is the same"
    return f"counts nothing, but changed {path}" if path and not changes else ""


def asks_for_permission(trial: Trial) -> str:
    """What the manager denies is not done: no step, and no single place; each step is one of ``steps()``."""
    choices, full = trial.plain.result.choices, trial.replayed  # a search asks for more than it does
    named = {step.name for step in trial.tried.steps()}
    asked = dict.fromkeys(step for step, _ in full.permitted)
    if unnamed := [step for step in asked if step not in named]:
        return f"asks for the step {unnamed[0]!r}, which steps() does not name"
    if not named:
        return ""  # the manager can only undo it whole
    nothing = trial.run(sites=Sites(frozenset(named)), choices=choices)
    if nothing.result.changes or nothing.content != trial.before.content:
        return f"changes the model though all its steps are denied: {dict(nothing.result.changes)}"
    if not full.result.changes or not full.permitted:
        return ""
    if choices is None:  # what is permitted is done
        ignored = [
            pair for pair in dict.fromkeys((full.permitted[0], full.permitted[-1])) if _ignores(trial, full, pair)
        ]
    else:  # a search asks for all that it may choose from
        ignored = list(full.permitted) if all(_ignores(trial, full, pair) for pair in full.permitted) else []
    return f"changes {ignored[0][1]!r} though {ignored[0][0]!r} is denied there" if ignored else ""


def _ignores(trial: Trial, full: Run, pair: tuple[str, str]) -> bool:
    """Whether denying one place makes no difference, though no other place took its turn."""
    without = trial.run(sites=Sites(denied=frozenset({pair})), choices=full.result.choices)
    others = [other for other in full.permitted if other != pair]
    return list(without.permitted) == others and without.content == full.content


def is_deterministic(trial: Trial) -> str:
    """Two runs give the same bytes, changes, notes and choices."""
    first, second = trial.plain, trial.run()
    if first.content != second.content:
        return f"gave two models in two runs: they differ in {difference(first.proto, second.proto)}"
    for part in ("changes", "notes", "choices"):
        if getattr(first.result, part) != getattr(second.result, part):
            return f"gave two {part} in two runs"
    return ""


def repeats_its_choices(trial: Trial) -> str:
    """What a search decided is written into the report as JSON, and gives the same bytes when it is read back."""
    choices, kind = trial.plain.result.choices, trial.tried.choices_type
    if choices is None:
        return ""
    if kind is None or type(choices) is not kind:
        return f"has choices of the type {type(choices).__name__}, its choices_type is {kind and kind.__name__}"
    try:
        json.dumps(choices.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"has choices that are no JSON: {error}"
    again = trial.replayed
    if again.content != trial.plain.content:
        return f"gives another model from its choices: it differs in {difference(trial.plain.proto, again.proto)}"
    return "" if again.result.changes == trial.plain.result.changes else "counts other changes from its choices"


def rests(trial: Trial) -> str:
    """An exact pass finds nothing to do on its own output."""
    if not trial.tried.exact or trial.plain.refusal is not None:
        return ""
    again = trial.run(trial.plain.result.model)
    if again.result.changes:
        return f"changes its own output: {dict(again.result.changes)}"
    path = difference(trial.plain.proto, again.proto)
    return f"changes its own output in {path}" if path else ""


def leaves_foreign_nodes_alone(trial: Trial) -> str:
    """A model of operators that no pass can know stays as it is."""
    if trial.subject.name != FOREIGN or trial.plain.content == trial.before.content:
        return ""
    return f"changed {difference(trial.before.proto, trial.plain.proto)}"


def gives_a_model_that_runs(trial: Trial) -> str:
    """ONNX Runtime loads the result and its outputs have the reference's types and shapes; an exact pass' are equal."""
    return next(filter(None, (_wrong_outputs(trial, run) for run in trial.runs)), "")


def _wrong_outputs(trial: Trial, run: Run) -> str:
    setup = trial.subject.setup
    if setup is None or run.content == trial.before.content:
        return ""
    if trial.tried.exact:
        return setup.judge.validator.check_exact(run.result.model).reason
    try:
        feed = setup.split.validation[0]
        outputs, expected = session(run.result.model).run(feed), session(trial.reference).run(feed)
    except ReferenceRunError as error:
        return f"the result: {error}"
    changed = [name for name in expected if _kind(outputs.get(name)) != _kind(expected[name])]
    return f"changed type or shape of the output {changed[0]!r}" if changed else ""


PROMISES: tuple[Promise, ...] = (
    is_a_value,
    works_or_refuses,
    keeps_the_reference,
    keeps_the_interface,
    keeps_names_unique,
    counts_changes,
    asks_for_permission,
    is_deterministic,
    repeats_its_choices,
    rests,
    leaves_foreign_nodes_alone,
    gives_a_model_that_runs,
)


def _is_frozen(kind: type[object]) -> bool:
    """Whether ``kind`` itself, and not only a class above it, is a frozen dataclass."""
    parameters: Any = kind.__dict__.get("__dataclass_params__")
    return parameters is not None and bool(parameters.frozen)


def _structure(trial: Trial, run: Run) -> str:
    """Why the result is not well formed, as far as the reference is."""
    try:
        check_structure(run.result.model)
        if complaint_of_checker(trial.reference) is None and not _has_foreign(trial.reference):
            onnx.checker.check_model(run.proto, full_check=True)
    except (ModelError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return f"broke the model: {' '.join(str(error).split())}"
    return ""


def _has_foreign(model: ir.Model) -> bool:
    own = {function.domain for function in model.functions.values()}
    return any(not queries.is_standard(node) and node.domain not in own for node in traversal.nodes(model))


def _lost_text(before: ir.Model, after: ir.Model) -> str:
    """A node that stayed, with its operator and outputs, but lost its name, doc string or metadata."""
    stayed = {_identity(node): node for node in traversal.nodes(after)}
    names = {node.name for node in traversal.nodes(before)}
    for node in traversal.nodes(before):
        now = stayed.get(_identity(node))
        # An equal node that was there before may have taken the outputs over, under its own name
        if now is None or (now.name != node.name and now.name in names):
            continue
        for text in ("name", "doc_string"):
            if getattr(node, text) and getattr(now, text) != getattr(node, text):
                return f"changed the {text} of {queries.site(node)} from {getattr(node, text)!r}"
        if lost := node.metadata_props.items() - now.metadata_props.items():
            return f"lost the metadata {dict(lost)} of {queries.site(node)}"
    return ""


def _identity(node: ir.Node) -> tuple[Any, ...]:
    owner = None if node.graph is None else node.graph.name
    return node.domain, node.op_type, owner, tuple(value.name for value in node.outputs)


def _lost_domain(before: Run, after: Run) -> str:
    used = {node.domain for node in traversal.nodes(after.result.model)}
    lost = used & before.result.model.opset_imports.keys() - after.result.model.opset_imports.keys()
    return f"lost the operator set of {min(lost)!r}, which is in use" if lost else ""


def _node_names(model: ir.Model) -> Iterator[tuple[int, str]]:
    return ((0, node.name) for node in traversal.nodes(model) if node.name)


def _value_names(model: ir.Model) -> Iterator[tuple[int, str]]:
    """Names of values, told apart by the graph or function that holds them."""
    for number, root in enumerate(traversal.roots(model)):
        for graph in traversal.with_subgraphs(root):
            values = dict.fromkeys((*graph.inputs, *graph.initializers.values()))
            values.update(dict.fromkeys(value for node in graph for value in node.outputs))
            yield from ((number, value.name) for value in values if value.name)


def _kind(value: Any) -> Any:
    """Type and shape of an array; of a sequence, those of each of its elements."""
    return [_kind(element) for element in value] if isinstance(value, list) else (value.dtype, value.shape)
