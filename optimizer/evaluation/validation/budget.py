"""What a lossy stage may lose: limits, and the parts of an output that they hold for one by one.

One number over an output hides a lot, so the default budget looks at four things, with r the reference, c the
candidate, m the reference's mean over the feeds, all sums over all feeds of one shape::

    (a) |c - r| / |r|                      at most 0.1
    (b) |c - r| / |r - m|                  at most 0.25: a constant answer passes (a) where outputs vary little
    (c) (a) and (b) of every part of a final Concat: boxes of 0..320 hide scores of 0..1
    (d) (a) and (b) before a final Softmax or Sigmoid, and 99 % of its arg-max the same
    elements that are not floats           99 % equal

The logits of (d) are computed back from the probabilities, so nothing is added to the candidate; what is below 1e-6
counts as 1e-6. An output that does not vary over the feeds has no (b). The limit of (a) is a choice of this project.
That of (b) lies between two int8 models of the corpus, on validation inputs: a ResNet-50 with 0.24 loses 0.4 points of
its task, a YOLOv8n with 0.29 more than one. Of 48 mixed ones of eight nets within all limits none loses more than one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optimizer.errors import UsageError
from optimizer.graph import queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from optimizer.evaluation.validation.output_error import Difference
    from optimizer.evaluation.validation.task_metric import TaskMetric

Link = Literal["", "Softmax", "LogSoftmax", "Sigmoid"]
_PROBABILITY_FLOOR = 1e-6
_LINKS: tuple[Link, ...] = ("Softmax", "LogSoftmax", "Sigmoid")
_PASS_THROUGH = ("Identity", "Cast")
_NO_LIMITS = ("parts", "metric")
_LEAST_RELATIVE_STD = 1e-6  # an output whose |r - m| / |r| is below this does not vary over the feeds


@dataclass(frozen=True)
class Budget:
    """Limits on the error of each output; ``None`` where there is no limit.

    Attributes:
        rel_l2: Most relative L2.
        centered: Most relative L2 after the reference's mean over the feeds is subtracted.
        sqnr: Least signal to noise ratio, in dB.
        cosine: Least cosine.
        max_abs: Largest difference of an element.
        agreement: Least share of equal arg-max of a Softmax, and of equal elements that are not floats.
        parts: Whether the limits hold for parts of a Concat, and before Softmax and Sigmoid, one by one.
        metric: The user's measure of the task. With one, it alone is the limit; the others only guide searches.
    """

    rel_l2: float | None = 0.1
    centered: float | None = 0.25
    sqnr: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    agreement: float | None = 0.99
    parts: bool = True
    metric: TaskMetric | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse ``default``, ``none``, or limits such as ``sqnr=30`` or ``rel_l2=0.05,agreement=0.99``.

        Raises:
            UsageError: Naming what is wrong and what there is.
        """
        text = text.strip()
        if text == "default":
            return cls()
        no_limits: dict[str, Any] = {field.name: None for field in fields(cls)} | {"parts": False}
        if text == "none":
            return cls(**no_limits)
        limits = dict(_limits(text, [name for name in no_limits if name not in _NO_LIMITS]))
        return cls(**(no_limits | limits))

    def __str__(self) -> str:
        if self == Budget():
            return "default"
        if self.metric is not None:
            return f"{self.metric.name}, at most {self.metric.max_drop:g} lower"
        limits = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name not in _NO_LIMITS]
        return ",".join(f"{name}={value:g}" for name, value in limits if value is not None) or "none"

    def failure(self, difference: Difference, relative_std: float | None = None, *, arg_max: bool = False) -> str:
        """The measure that ``difference`` fails by and its limit; empty if it holds.

        Args:
            difference: Of an output, or of a part of it.
            relative_std: |r - m| / |r|, if it is known.
            arg_max: Whether an arg-max has a meaning here.
        """
        uses = self.uses(difference, relative_std, arg_max=arg_max)
        return next((use.text for use in uses if use.share > 1), "")

    def uses(
        self, difference: Difference, relative_std: float | None = None, *, arg_max: bool = False
    ) -> Iterator[Use]:
        """What ``difference`` uses of each limit; the arguments are those of ``failure``."""
        # What cannot be compared, or is not a number where it should be, is beyond any limit.
        if difference.failure:
            yield Use(difference.failure, float("inf"))
            return
        sums, agreement = difference.floats, self.agreement
        if agreement is not None and difference.discrete.elements:
            yield _agreement_use(difference.discrete.agreement, agreement, "agrees in {:.2%} of its elements")
        if not sums.elements or self == Budget.parse("none"):
            return
        if sums.misplaced:
            yield Use(f"has NaN or infinity at {sums.misplaced} other places than the reference", float("inf"))
        if agreement is not None and arg_max:
            yield _agreement_use(sums.agreement, agreement, "has the same arg-max in {:.2%} of rows")
        # (b) is (a) divided by |r - m| / |r|.
        centered = (
            sums.rel_l2 / relative_std if relative_std is not None and relative_std > _LEAST_RELATIVE_STD else None
        )
        most = (("relative L2", sums.rel_l2, self.rel_l2), ("relative L2 around its mean", centered, self.centered),
                ("largest difference", sums.max_abs, self.max_abs))  # fmt: skip
        # Limits from above: the share is the error divided by its limit.
        for title, value, limit in most:
            if value is not None and limit is not None:
                yield Use(f"has {title} {value:.3g}, the limit is {limit:g}", _ratio(value, limit))
        # Limits from below, as the errors that they stand for: 20 dB are a factor of ten, and 1 - cosine is an error.
        if self.sqnr is not None:
            yield Use(f"has SQNR {sums.sqnr:.4g}, the limit is {self.sqnr:g}", 10 ** ((self.sqnr - sums.sqnr) / 20))
        if self.cosine is not None:
            share = _ratio(1 - sums.cosine, 1 - self.cosine)
            yield Use(f"has cosine {sums.cosine:.4g}, the limit is {self.cosine:g}", share)


@dataclass(frozen=True)
class Use:
    """What a difference uses of one limit: in words, and as a share of it; more than 1 is too much."""

    text: str
    share: float


def _agreement_use(value: float, limit: float, words: str) -> Use:
    return Use(f"{words.format(value)}, the limit is {limit:.2%}", _ratio(1 - value, 1 - limit))


def _ratio(value: float, limit: float) -> float:
    """``value`` as a share of ``limit``, which may be zero."""
    if np.isnan(value):
        return float("inf")
    return float(value / limit) if limit > 0 else float("inf") if value > 0 else 0.0


def _limits(text: str, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    for entry in text.split(","):
        name, equals, value = entry.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in names:
            raise UsageError(
                f"--budget {text!r}: {name or entry!r} is not a measure; there are default, none, {', '.join(names)}"
            )
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not np.isfinite(number):
            raise UsageError(f"--budget {text!r}: {value!r} is not a number; write it as {name}=0.05")
        yield name, number


@dataclass(frozen=True)
class Part:
    """A part of an output that limits hold for: a slice along ``axis``, before the ``link`` that made it.

    Attributes:
        label: What messages add to the output's name; empty for the whole output.
        axis: Axis of the slice, and of Softmax.
        start: Where the slice begins.
        stop: Where it ends; ``None`` at the end.
        link: The activation that is undone.
    """

    label: str = ""
    axis: int = 0
    start: int = 0
    stop: int | None = None
    link: Link = ""

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """This part of ``array``, in double precision where a link is undone."""
        sliced = array
        if self.start or self.stop is not None:
            window = [slice(None)] * array.ndim
            window[self.axis] = slice(self.start, self.stop)
            sliced = array[tuple(window)]
        return _logits(sliced, self.link, self.axis)


def parts(model: ir.Model) -> Mapping[str, tuple[Part, ...]]:
    """The parts of each output, by name, read off the graph; the whole output is not among them."""
    return {value.name: tuple(_parts_of(value)) for value in model.graph.outputs if value.name}


def _parts_of(output: ir.Value) -> Iterator[Part]:
    node = _producer(output)
    if node is None:
        return
    if queries.is_standard(node, *_LINKS):
        yield _linked(node, f"before {node.op_type}")
    elif queries.is_standard(node, "Concat"):
        yield from _concat_parts(node)


def _concat_parts(node: ir.Node) -> Iterator[Part]:
    """The inputs of a Concat, up to the first whose size along the axis is unknown: where the next begins is too."""
    axis = node.attributes.get_int("axis", 0)
    position = 0
    for number, value in enumerate(node.inputs):
        size = None if value is None or value.shape is None else value.shape[axis]
        if value is None or not isinstance(size, int):
            return
        producer = _producer(value)
        link: Link = "Sigmoid" if producer is not None and queries.is_standard(producer, "Sigmoid") else ""
        yield Part(f"part {number} of Concat", axis, position, position + size, link)
        position += size


def _linked(node: ir.Node, label: str) -> Part:
    link: Link = next(name for name in _LINKS if name == node.op_type)
    return Part(label, node.attributes.get_int("axis", -1), link=link)


def _producer(value: ir.Value) -> ir.Node | None:
    """The node that computes ``value``, behind Identity and Cast."""
    node = value.producer()
    while node is not None and queries.is_standard(node, *_PASS_THROUGH) and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _logits(array: NDArray[Any], link: Link, axis: int) -> NDArray[Any]:
    """Logits; those of a softmax up to a constant, so with their mean along ``axis`` at zero."""
    if not link:
        return array
    logits = array.astype(np.float64)
    # Sigmoid: log(p / (1 - p)).
    if link == "Sigmoid":
        logits = np.clip(logits, _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
        return np.asarray(np.log(logits) - np.log1p(-logits))
    # Softmax and LogSoftmax: log p, which is the logit less a constant of the row; the mean takes its place.
    if link == "Softmax":
        logits = np.log(np.maximum(logits, _PROBABILITY_FLOOR))
    logits = np.maximum(logits, np.log(_PROBABILITY_FLOOR))
    centered = logits - logits.mean(axis=axis, keepdims=True)
    return np.moveaxis(centered, axis, -1)  # the arg-max of interest is along the classes
