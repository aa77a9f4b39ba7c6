"""Sizes for dynamic dimensions: what the user says, what the graph demands, and sensible ones to try.

Dimensions of one name have one size. A *plan* gives each free dimension a size; ``plans`` yields them from the most
sensible one on: the default of each role, then the same rank of every role's list, then one dimension varied at a
time, then combinations.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Literal, TypeVar

from optimizer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_T = TypeVar("_T")
Key = str | tuple[str, int]
Plan = dict[Key, int]
Role = Literal["batch", "image", "sequence", "signal"]

_NAMELESS = re.compile(r"\??|none|-1|unk(nown)?(_*\d+)?", re.IGNORECASE)
_SIZES: Mapping[Role, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8, 3),
    "image": (224, 320, 64, 32, 48, 256, 640, 128, 28, 512),
    "sequence": (16, 32, 8, 64, 128, 1, 4, 100, 256, 512),
    "signal": (16000, 512, 4096, 1024, 256, 128, 64, 16, 100, 32000),
}
_OTHER: Mapping[Role, tuple[float, ...]] = {  # factors of a second size, to be tried in this order
    "batch": (2, 3),
    "image": (8 / 7, 10 / 7, 2, 0.5),  # 224 -> 256, 320
    "sequence": (1.5, 2, 0.5),
    "signal": (1.5, 2, 0.5),
}
_MOST_PLANS = 80
_GRAIN = 32  # what networks that halve five times need


@dataclass(frozen=True)
class Port:
    """An input of the model and its dimensions.

    Attributes:
        name: The input's name.
        dims: Fixed sizes are ints; free dimensions are keys, equal where the size has to be.
        discrete: Whether its elements are not floats.
    """

    name: str
    dims: tuple[int | Key, ...]
    discrete: bool = False


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Parse ``["name:1,3,224,224"]``; ``"name:"`` is a scalar.

    Raises:
        UsageError: Naming the text that is wrong.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, sizes = text.rpartition(":")
        digits = [text_of_size.strip() for text_of_size in sizes.split(",")] if sizes.strip() else []
        if (
            not colon
            or not name
            or not all(text_of_size.isascii() and text_of_size.isdigit() for text_of_size in digits)
        ):
            raise UsageError(f"--shape {text!r} is not a shape; write it as name:1,3,224,224")
        if name in shapes:
            raise UsageError(f"--shape names input {name!r} twice")
        shapes[name] = tuple(int(text_of_size) for text_of_size in digits)
    return shapes


def check_shapes(shapes: Mapping[str, Sequence[int]], ports: Sequence[Port]) -> None:
    """Check that ``shapes`` name inputs and fit what the model fixes.

    Raises:
        UsageError: Naming the input, what was expected and what was found.
    """
    by_name = {port.name: port for port in ports}
    for name, shape in shapes.items():
        port = by_name.get(name)
        if port is None:
            raise UsageError(
                f"--shape names {name!r}, which is not an input; the model has {', '.join(by_name) or 'none'}"
            )
        declared = [dim if isinstance(dim, int) else "?" for dim in port.dims]
        fits = len(shape) == len(declared) and all(
            declared_size in {"?", size} for declared_size, size in zip(declared, shape, strict=True)
        )
        if not fits:
            raise UsageError(f"--shape {name}:{_listed(shape)} does not fit the model, which takes {_listed(declared)}")


def declared_port(name: str, shape: Sequence[int | str | None], *, discrete: bool = False) -> Port:
    """An input as the model declares it; a dimension with a real name is shared by that name."""
    dims: list[int | Key] = []
    for axis, size in enumerate(shape):
        if (isinstance(size, int) and size >= 0) or (isinstance(size, str) and not _NAMELESS.fullmatch(size)):
            dims.append(size)
        else:
            dims.append((name, axis))
    return Port(name, tuple(dims), discrete)


def pinned(ports: Sequence[Port], shapes: Mapping[str, Sequence[int]]) -> Plan:
    """The sizes that the user's ``shapes`` give to free dimensions, also of other inputs if they share a name."""
    plan: Plan = {}
    for port in ports:
        for dim, size in zip(port.dims, shapes.get(port.name, port.dims), strict=True):
            if not isinstance(dim, int) and isinstance(size, int):
                plan[dim] = size
    return plan


def shape_of(port: Port, plan: Mapping[Key, int]) -> tuple[int, ...]:
    """The shape of an input under ``plan``."""
    return tuple(dim if isinstance(dim, int) else plan[dim] for dim in port.dims)


def roles(ports: Sequence[Port]) -> dict[Key, Role]:
    """The role of each free dimension; where inputs disagree, batch wins, then the role in a float input."""
    role_by_key: dict[Key, Role] = {}
    for port in sorted(ports, key=lambda port: port.discrete):
        for axis, dim in enumerate(port.dims):
            if isinstance(dim, int):
                continue
            role = _role(port, axis)
            if dim not in role_by_key or role == "batch":
                role_by_key[dim] = role
    return role_by_key


def plans(free: Mapping[Key, Role]) -> Iterator[Plan]:
    """Plans to try, the most sensible first, each once; at most 80."""
    seen: set[tuple[int, ...]] = set()
    for sizes in _candidates(list(free.values())):
        if sizes not in seen:
            seen.add(sizes)
            yield dict(zip(free, sizes, strict=True))
        if len(seen) >= _MOST_PLANS:
            return


def other_plans(plan: Plan, free: Mapping[Key, Role]) -> Iterator[Plan]:
    """Plans that differ from one that runs: in all free dimensions, in all but the batch, in the batch alone.

    Dimensions that were equal first become different, so that a rewrite which mixes them up is caught.
    """
    # For each set of dimensions: the factors of each role in order, first another one for each dimension, then all the
    # same.
    keys = [list(free), [key for key in free if free[key] != "batch"], [key for key in free if free[key] == "batch"]]
    tried: list[Plan] = [plan]
    for subset in keys:
        ranks = max((len(_OTHER[free[key]]) for key in subset), default=0)
        for rank, step in itertools.product(range(ranks), (1, 0)):
            varied = [key for key in subset if free[key] != "batch"]
            factor_indices = {key: rank + step * varied.index(key) if key in varied else rank for key in subset}
            changed = {
                key: _scaled(plan[key], _at(_OTHER[free[key]], factor_index), free[key])
                for key, factor_index in factor_indices.items()
            }
            candidate = {**plan, **changed}
            if candidate not in tried:
                tried.append(candidate)
                yield candidate


def _scaled(size: int, factor: float, role: Role) -> int:
    """``size`` times ``factor``; sides of an image stay as divisible by two as they were, up to 32."""
    grain = gcd(size, _GRAIN) if role == "image" else 1
    return max(1, round(size * factor / grain)) * grain


def _candidates(roles: Sequence[Role]) -> Iterator[tuple[int, ...]]:
    """Sizes for dimensions of ``roles``, in the order of the module's docstring."""
    sizes_by_dim = [_SIZES[role] for role in roles]
    longest = max((len(sizes) for sizes in sizes_by_dim), default=1)
    is_batch = [role == "batch" for role in roles]  # the batch is varied last: it seldom is what is wrong
    # 1. The same rank of every list, the defaults first.
    for rank in range(longest):
        yield tuple(
            sizes[0] if fixed else _at(sizes, rank) for sizes, fixed in zip(sizes_by_dim, is_batch, strict=True)
        )
    # 2. One dimension varied, the others at their default.
    for index, sizes in sorted(enumerate(sizes_by_dim), key=lambda indexed: is_batch[indexed[0]]):
        for size in sizes:
            yield tuple(
                size if position == index else sizes_of_dim[0] for position, sizes_of_dim in enumerate(sizes_by_dim)
            )
    # 3. The same rank again, batches too; then all combinations of the first four.
    for rank in range(longest):
        yield tuple(_at(sizes, rank) for sizes in sizes_by_dim)
    yield from itertools.product(*(sizes[:4] for sizes in sizes_by_dim))


def _role(port: Port, axis: int) -> Role:
    rank = len(port.dims)
    name = str(port.dims[axis]).lower()
    if "batch" in name or (axis == 0 and rank >= 2) or (rank == 1 and port.discrete):
        return "batch"
    if rank == 4 and not port.discrete:
        return "image"
    if not port.discrete and (rank <= 2 or (rank == 3 and 1 in port.dims[1:])):
        return "signal"
    return "sequence"


def _at(values: Sequence[_T], index: int) -> _T:
    return values[min(index, len(values) - 1)]


def _listed(shape: Sequence[object]) -> str:
    return ",".join(map(str, shape))
