"""Constants that a rewrite wants: in the place of a constant that goes by the rewrite, or new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.graph.constants import constant_tensor, is_only_read_by

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray


def constants_only_read_by(nodes: Collection[ir.Node]) -> list[ir.Value]:
    """The constants that have no uses any more once ``nodes`` are gone.

    They come shortest name first, so that what takes one over is small, and the same whatever order ``nodes`` are in.
    """
    read = {value: None for node in nodes for value in node.inputs if value is not None}
    dying = [value for value in read if constant_tensor(value) is not None and is_only_read_by(value, nodes)]
    return sorted(dying, key=lambda value: (len(value.name or ""), value.name or ""))


@dataclass(frozen=True, eq=False)
class ReplacementConstant:
    """A constant that a rewrite wants: new data, in the place of a dying constant where there is one.

    Attributes:
        array: The data.
        hint: The name of a new initializer, if no constant can be taken over.
        reusable: A dying constant that is taken over, name and all.
    """

    array: NDArray[np.generic]
    hint: str
    reusable: ir.Value | None = None


def replacement_for(array: NDArray[np.generic], hint: str, spares: Iterable[ir.Value]) -> ReplacementConstant:
    """A constant with the data ``array`` that takes over the first initializer among the dying ``spares``."""
    return ReplacementConstant(array, hint, next((value for value in spares if value.is_initializer()), None))


def replacements_for(
    arrays: Iterable[tuple[NDArray[np.generic], str]], spares: Iterable[ir.Value]
) -> list[ReplacementConstant]:
    """A constant for each pair of data and hint; no two take over the same of ``spares``."""
    unused, replacements = list(spares), []
    for array, hint in arrays:
        replacements.append(replacement_for(array, hint, unused))
        unused = [value for value in unused if value is not replacements[-1].reusable]
    return replacements
