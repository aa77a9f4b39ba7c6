"""By how many bytes an edit makes the file smaller, before it is done.

    bytes saved = what the nodes and constants that it touches take now - what they will take
                + what the nodes and initializers take that have no uses afterwards

Each message counts as protobuf writes it (``optimizer.graph.file_size``), with the names that new constants will get.
Where this is not exact the file gets smaller than it says: value infos of what goes do not count, nor what is in
subgraphs of nodes that go, nor more than ``MAX_NODES`` of them, nor what data in files takes besides its bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from optimizer.algorithms.rewriting.planned_constants import PlannedConstants
from optimizer.algorithms.rewriting.replacement import ReplacementConstant
from optimizer.algorithms.rewriting.rewriter import owner
from optimizer.graph import constants, file_size, queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from optimizer.algorithms.rewriting.edit import Edit, NodeForm
    from optimizer.algorithms.rewriting.rewriter import Rewriter

MAX_NODES = 64
_LEVELS = 3  # messages that a subgraph is in and the graph around it is not: its graph, attribute and node


@dataclass
class _Account:
    """What an edit does, collected step by step.

    Attributes:
        saved: Bytes saved by graph.
        uses: How many uses a value has more.
        stand_ins: What is read instead of a value: another one, or a new constant by its name.
        names: New names of values.
        outputs: Graph outputs that give their place and name to another value.
    """

    saved: Counter[ir.Graph] = field(default_factory=Counter)
    uses: Counter[ir.Value] = field(default_factory=Counter)
    stand_ins: dict[ir.Value, ir.Value | str] = field(default_factory=dict)
    names: dict[ir.Value, str] = field(default_factory=dict)
    outputs: set[ir.Value] = field(default_factory=set)

    def use_count(self, value: ir.Value) -> int:
        """How many uses ``value`` has afterwards."""
        return queries.use_count(value) + self.uses[value]

    def is_unused(self, value: ir.Value) -> bool:
        """Whether ``value`` has no uses afterwards, and no graph gives it out."""
        is_output = value in self.names or (value.is_graph_output() and value not in self.outputs)
        return not is_output and self.use_count(value) == 0

    def name(self, value: ir.Value | str | None) -> str:
        """What an input that reads ``value`` says afterwards."""
        if isinstance(value, ir.Value):
            value = self.stand_ins.get(value, value)
        return self.names.get(value, value.name or "") if isinstance(value, ir.Value) else value or ""

    def node_bytes(self, node: ir.Node, op_type: str, inputs: Iterable[str], attributes: Iterable[ir.Attr]) -> int:
        """What ``node`` takes afterwards."""
        outputs = [self.names.get(value, value.name or "") for value in node.outputs]
        return file_size.node_bytes_as(node, op_type, inputs, outputs, attributes)


def grows(edit: Edit, rewriter: Rewriter) -> bool:
    """Whether the file would be larger after ``edit``."""
    is_bypass = not (edit.forms or edit.computed or edit.data)
    if is_bypass and all(_is_no_longer(source, target) for target, source in edit.bypassed.items()):
        return False  # names get shorter, nodes go: that need not be counted
    return bytes_saved(edit, rewriter) < 0


def _is_no_longer(source: ir.Value, target: ir.Value) -> bool:
    return not target.is_graph_output() and len(source.name or "") <= len(target.name or "")


def bytes_saved(edit: Edit, rewriter: Rewriter) -> int:
    """By how many bytes the file shrinks with ``edit``, and with what has no uses any more; negative if it grows."""
    account, planned = _Account(), PlannedConstants(rewriter, edit.all_data())
    # 1. Data that is replaced, then new constants in the order in which they are made.
    _count_data(edit, account)
    inputs = {node: _inputs(node, new, account, planned) for node, new in edit.forms.items()}
    # 2. Values whose users read something else; what takes over the name of a graph output is called otherwise.
    users = {*_bypass(edit, account), *_compute(edit, account, planned)}
    # 3. What has no uses then.
    gone = _nodes_removed(edit, account)
    for value in [value for value, more in account.uses.items() if more < 0 and value.is_initializer()]:
        if not value.is_graph_input() and account.is_unused(value):
            account.saved[value.graph or rewriter.model.graph] += constants.constant_bytes(value)
    # 4. The nodes that are touched, before and after.
    for node in {*edit.forms, *users, *gone}:
        account.saved[owner(node)] += file_size.node_bytes(node)
    for node, new in edit.forms.items():
        names = [account.name(value) for value in inputs[node]]
        account.saved[owner(node)] -= account.node_bytes(node, new.op_type, names, new.attributes.values())
    for node in users - gone.keys() - edit.forms.keys():
        names = [account.name(value) for value in node.inputs]
        account.saved[owner(node)] -= account.node_bytes(node, node.op_type, names, node.attributes.values())
    # 5. A subgraph that grows may need a longer length in each message around it.
    lengths = sum(_LEVELS * rewriter.depth(graph) for graph, saved in account.saved.items() if saved < 0)
    return account.saved.total() - lengths


def nodes_removed(edit: Edit) -> list[ir.Node]:
    """The nodes that have no uses after ``edit``; at most ``MAX_NODES``."""
    account = _Account()
    for node, new in edit.forms.items():
        account.uses.subtract(value for value in node.inputs if value is not None)
        account.uses.update(value for value in new.inputs if isinstance(value, ir.Value))
    _bypass(edit, account)
    return list(_nodes_removed(edit, account))


def _count_data(edit: Edit, account: _Account) -> None:
    for value, array in edit.all_data().items():
        producer, tensor = value.producer(), constants.tensor_to_store(value, array)
        after = file_size.tensor_bytes(tensor, value.name)
        if producer is not None:
            attribute = ir.AttrTensor("value", tensor)
            after = account.node_bytes(producer, producer.op_type, [], [attribute])
        if value.graph is not None:
            account.saved[value.graph] += constants.constant_bytes(value) - after


def _inputs(node: ir.Node, new: NodeForm, account: _Account, planned: PlannedConstants) -> list[ir.Value | str | None]:
    """What ``node`` reads afterwards: values, and new constants by their names."""
    account.uses.subtract(value for value in node.inputs if value is not None)
    inputs: list[ir.Value | str | None] = []
    for wanted in new.inputs:
        if not isinstance(wanted, ReplacementConstant):
            inputs.append(wanted)
        elif wanted.reusable is not None:
            inputs.append(wanted.reusable)
        else:
            constant = planned.constant(node, wanted.array, wanted.hint)
            account.saved[planned.rewriter.home_of_constants(node)] -= constant.bytes
            inputs.append(constant.value or constant.name)
    account.uses.update(value for value in inputs if isinstance(value, ir.Value))
    return inputs


def _bypass(edit: Edit, account: _Account) -> set[ir.Node]:
    """Move the users of the bypassed values; returns the nodes in which a name changes."""
    nodes: set[ir.Node] = set()
    for target, source in edit.bypassed.items():
        _move_users(target, source, account)
        nodes.update(target.consumers())
        if target.is_graph_output():
            account.outputs.add(target)
            account.names[source] = target.name or ""
            producer = source.producer()
            nodes.update(source.consumers(), () if producer is None else (producer,))
    return nodes


def _compute(edit: Edit, account: _Account, planned: PlannedConstants) -> set[ir.Node]:
    """Make constants of computed values; returns the nodes in which a name changes."""
    nodes: set[ir.Node] = set()
    for value, array in edit.computed.items():
        node = value.producer()
        if node is None:
            raise ValueError(f"{value.name} is not computed by a node")
        stored = planned.rewriter.cheaper_constant(value, array)
        constant = planned.new(node, array, value.name or "") if stored is None else planned.known(stored)
        account.saved[owner(node)] -= constant.bytes
        nodes.update(() if stored is None else value.consumers())
        _move_users(value, constant.value or constant.name, account)
    return nodes


def _move_users(value: ir.Value, stand_in: ir.Value | str, account: _Account) -> None:
    moved = account.use_count(value)
    account.uses[value] -= moved
    account.stand_ins[value] = stand_in
    if isinstance(stand_in, ir.Value):
        account.uses[stand_in] += moved


def _nodes_removed(edit: Edit, account: _Account) -> Mapping[ir.Node, None]:
    """The nodes that have no uses afterwards; their own uses of others are taken off the account."""
    gone: dict[ir.Node, None] = {}
    waiting = [value.producer() for value, more in account.uses.items() if more <= 0]
    while waiting and len(gone) < MAX_NODES:
        node = waiting.pop()
        if node is None or node in gone or node in edit.forms or not all(map(account.is_unused, node.outputs)):
            continue
        gone[node] = None
        account.uses.subtract(value for value in node.inputs if value is not None)
        waiting += [value.producer() for value in node.inputs if value is not None]
    return gone
