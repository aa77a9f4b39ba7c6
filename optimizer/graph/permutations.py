"""Axes and permutations of axes.

A permutation is the ``perm`` of a Transpose: axis ``i`` of the result is axis ``perm[i]`` of what is transposed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.graph import constants, queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir


def axes_of(node: ir.Node) -> list[int] | None:
    """The axes that ``node`` is given as an attribute or as a constant second input."""
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes", ()))
    return constants.constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None


def permutation(node: ir.Node) -> tuple[int, ...] | None:
    """The permutation of the Transpose ``node``, if its rank is known."""
    if not queries.is_standard(node, "Transpose") or queries.has_references(node):
        return None
    if "perm" in node.attributes:
        return tuple(node.attributes.get_ints("perm", ()))
    rank = queries.rank(node.inputs[0]) or queries.rank(node.outputs[0])
    return None if rank is None else tuple(reversed(range(rank)))


def then(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The permutation that is ``first`` and then ``second``."""
    return tuple(first[axis] for axis in second)


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes ``perm``."""
    result = [0] * len(perm)
    for to, axis in enumerate(perm):
        result[axis] = to
    return tuple(result)


def is_identity(perm: Sequence[int]) -> bool:
    """Whether ``perm`` moves nothing."""
    return list(perm) == list(range(len(perm)))


def reduced(perm: Sequence[int], gone: Sequence[int]) -> tuple[int, ...]:
    """The permutation of what is left of the axes when those of ``gone``, counted before ``perm``, are dropped."""
    remaining = [axis for axis in perm if axis not in gone]
    order = {axis: place for place, axis in enumerate(sorted(remaining))}
    return tuple(order[axis] for axis in remaining)
