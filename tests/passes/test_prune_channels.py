"""prune-channels: what is pruned answers like the reference with those channels masked, and repair makes up for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.algorithms.channels.pruning.importance import IMPORTANCES
from optimizer.algorithms.channels.pruning.pruner import Pruning
from optimizer.algorithms.channels.pruning.repair import repairable_consumers
from optimizer.analysis import shape_inference
from optimizer.contract.passes import Context, Sites
from optimizer.engine.evaluator import RuntimeEvaluator
from optimizer.errors import PreconditionError, UsageError
from optimizer.evaluation.feeds.sets import FeedSet, Split
from optimizer.evaluation.validation.budget import Budget
from optimizer.graph import linear_nodes
from optimizer.graph.constants import constant_array, set_array
from optimizer.io.model import clone, load, to_proto
from optimizer.recipes.spec import parse_pass
from passes.prune_channels import PruneChannels
from planted_nets import Planter
from rewriting import built, feeds_for, outputs


def pruning_of(proto, multiple=1):
    model = load(proto)
    shape_inference.infer(model)
    return Pruning(model, multiple)


def masked(pruning, gone):
    """The model, whose kernels multiply the channels of ``gone`` by 0."""
    copy = Pruning(clone(pruning.model), pruning.multiple)
    for reader in repairable_consumers(copy.groups):
        array = np.moveaxis(constant_array(reader.weight).copy(), reader.consumers[0].axis, 0)
        array[np.isin(reader.roots, gone)] = 0
        set_array(reader.weight, np.moveaxis(array, 0, reader.consumers[0].axis))
    for node, atoms in copy.groups.hidden_units.items():  # a unit that nobody hears, its own node neither
        array = constant_array(node.inputs[2]).copy()
        array[:, :, np.isin(copy.groups.roots(atoms), gone)] = 0
        set_array(node.inputs[2], array)
    return to_proto(copy.model)


def hold_mask(proto, gone_of, multiple=1, tolerance=4e-6):
    """Hold that the pruned net is valid, and answers like the masked one; its widths are returned."""
    pruning = pruning_of(proto, multiple)
    before = to_proto(pruning.model)
    gone = gone_of(pruning)
    made = pruning.build(gone)
    assert to_proto(pruning.model) == before
    after = to_proto(made)
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.output) == list(before.graph.output)
    feeds = feeds_for(proto, {})
    want_all = outputs(masked(pruning, gone), feeds, optimize=False)
    for optimize in (False, True):
        for want, got in zip(want_all, outputs(after, feeds, optimize=optimize), strict=True):
            scale = max(np.abs(want.astype(np.float64)).max(), 1)
            assert np.abs(want.astype(np.float64) - got).max() <= tolerance * scale
    return widths(made)


def widths(model):
    found = {node.name or node.outputs[0].name: linear_nodes.as_linear(node) for node in model.graph}
    return {name: kernel.outputs for name, kernel in found.items() if kernel is not None}


@st.composite
def random_nets(draw):
    """Nets with adds, concats, splits, depthwise and transposed convolutions, normalizations and pools."""
    planter = Planter(
        draw(st.integers(0, 10**6)),
        opset=draw(st.sampled_from([9, 11, 13, 17, 21])),
        dims=draw(st.integers(1, 2)),
        padded=draw(st.booleans()),
    )
    value, source = planter.source(draw(st.integers(1, 4)))
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(2, 6))
        kind = draw(st.sampled_from(["conv", "residual", "branches", "transposed"]))
        if kind == "residual":
            channels = planter.plant(width)
            value = planter.sum(*(planter.conv(value, width, channels, taps=1) for _ in range(2)))
        elif kind == "branches":
            value = planter.parts(planter.concat(planter.conv(value, width, taps=1), planter.conv(value, 3, taps=1)))
            width += 1000
        else:
            value = planter.conv(value, width, transposed=kind == "transposed")
        for _ in range(draw(st.integers(0, 2))):
            step = draw(st.sampled_from(["unary", "depthwise", "norm", "pool"]))
            if step == "unary":
                value = planter.unary(value, draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "LeakyRelu"])))
            elif step == "pool":
                value = planter.pool(value, draw(st.sampled_from(["AveragePool", "MaxPool"])))
            elif width < 1000 and step == "depthwise":
                value = planter.depthwise(value, width)
            elif width < 1000:
                value = planter.batch_norm(value, width)
    return planter.model(source, planter.head(value))


@settings(max_examples=100, deadline=None)
@given(random_nets(), st.integers(1, 3), st.data())
def test_any_choice_of_units_is_a_mask(proto, multiple, data):
    kept = {}

    def choose(pruning):
        gone = []
        for number, group in enumerate(pruning.width_groups.members):
            end = data.draw(st.sampled_from([0, *group.ends()]))
            gone += data.draw(st.permutations(group.units.tolist()))[:end]
            kept[number] = end
        return gone

    before = widths(load(proto))
    found = [item for node in load(proto).graph if (item := linear_nodes.as_linear(node)) is not None]
    read = [item.inputs for item in found if not item.node.inputs[0].is_graph_input()]
    after = hold_mask(proto, choose, multiple)
    assert any(kept.values()) == (after != before)
    if not any(width % multiple for width in (*before.values(), *read)):
        assert not any(width % multiple for width in after.values())


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def net(text, opset=17, **constants):
    return built(f'<ir_version: 8, opset_import: ["" : {opset}]> g {text}', constants)


def half(pruning):
    """Half of each group, the last units."""
    return [
        unit
        for group in pruning.width_groups.members
        for unit in group.units[-max(end for end in [0, *group.ends()] if end <= group.units.size // 2) :].tolist()
    ]


def test_heads_and_hidden_units():
    proto = net(
        """(float[2,5,8] x, float[8,16] q, float[8,16] k, float[8,16] v, float[16,8] o, int64[4] parts, int64[3] whole,
        float[8,12] up, float[12] bias, float[12,3] down) => (float[2,5,3] y)
        { a = MatMul(x, q)  b = MatMul(x, k)  c = MatMul(x, v)
          d = Reshape(a, parts)  e = Reshape(b, parts)  f = Reshape(c, parts)
          g = Transpose<perm = [0, 2, 1, 3]>(d)  h = Transpose<perm = [0, 2, 3, 1]>(e)
          i = Transpose<perm = [0, 2, 1, 3]>(f)  j = MatMul(g, h)  l = Softmax(j)  m = MatMul(l, i)
          n = Transpose<perm = [0, 2, 1, 3]>(m)  p = Reshape(n, whole)  r = MatMul(p, o)  s = Add(r, x)
          t = MatMul(s, up)  u = Add(bias, t)  w = Gelu(u)  y = MatMul(w, down) }""",
        20,
        q=numbers(8, 16),
        k=numbers(8, 16, seed=1),
        v=numbers(8, 16, seed=2),
        o=numbers(16, 8, seed=3),
        parts=[0, 0, 4, 4],
        whole=[0, 0, 16],
        up=numbers(8, 12, seed=4),
        bias=numbers(12, seed=5),
        down=numbers(12, 3, seed=6),
    )
    assert [group.units.size for group in pruning_of(proto).width_groups.members] == [4, 12]
    found = hold_mask(proto, half, 4)
    assert found == {"a": 8, "b": 8, "c": 8, "r": 8, "t": 8, "y": 3}


@pytest.mark.parametrize("kind", ["float16", "float"])
def test_constant_nodes_shared_kernels_and_no_names(kind):
    proto = net(
        f"""({kind}[1,2,7,7] x, {kind}[1,2,7,7] z, {kind}[8,2,3,3] w1, {kind}[8] b1, {kind}[4,8,3,3] w2)
        => ({kind}[1,4,3,3] y)
        {{ a = Conv(x, w1, b1)  b = Conv(z, w1, b1)  c = Relu(a)  d = Relu(b)
           e = Conv(c, w2)  f = Conv(d, w2)  y = Sub(e, f) }}""",
        w1=numbers(8, 2, 3, 3),
        b1=numbers(8, seed=1),
        w2=numbers(4, 8, 3, 3, seed=2) / 8,
    )
    for tensor in list(proto.graph.initializer):
        proto.graph.initializer.remove(tensor)
        proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    tolerance = 4e-6 if kind == "float" else 8e-3
    found = hold_mask(proto, half, 2, tolerance)
    assert found == {"a": 4, "b": 4, "e": 4, "f": 4}


def test_groups_go_whole():
    proto = net(
        """(float[1,3,5,5] x, float[12,3,1,1] w1, float[8,3,3,3] w2, float[2,8,1,1] w3) => (float[1,2,3,3] y)
        { a = Conv(x, w1)  c = Conv<group = 4>(a, w2)  d = Relu(c)  y = Conv(d, w3) }""",
        w1=numbers(12, 3, 1, 1),
        w2=numbers(8, 3, 3, 3, seed=1),
        w3=numbers(2, 8, 1, 1, seed=2),
    )
    assert hold_mask(proto, half) == {"a": 6, "c": 4, "y": 2}


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(kind, directions, reader, units=6, seed=0):
    """A net with hidden units in all that depends on them, and the widths behind ``half``."""
    gates, direction = RECURRENT[kind], "bidirectional" if directions == 2 else "reverse"
    states = {"h0": numbers(directions, 2, units, seed=seed + 1)}
    if kind == "LSTM":
        states |= {
            "c0": numbers(directions, 2, units, seed=seed + 2),
            "p": numbers(directions, 3 * units, seed=seed + 3),
        }
    constants = {
        "w0": numbers(4, 5, seed=seed + 4),
        "w": numbers(directions, gates * units, 5, seed=seed + 5),
        "r": numbers(directions, gates * units, units, seed=seed + 6),
        "b": numbers(directions, 2 * gates * units, seed=seed + 7),
        **states,
        "v": numbers(directions * units if reader != "state" else units, 3, seed=seed + 8),
        "flat": np.array([7, 2, -1]),
    }
    behind = {
        "sequence": "t = Transpose<perm = [0, 2, 1, 3]>(s)  f = Reshape(t, flat)  out = MatMul(f, v)",
        "state": "out = MatMul(h, v)",
    }[reader]
    size = {"sequence": "7,2,3", "state": f"{directions},2,3"}[reader]
    declared = ", ".join(
        f"{'int64' if name == 'flat' else 'float'}[{','.join(map(str, array.shape))}] {name}"
        for name, array in constants.items()
    )
    given = ", ".join(["q", "w", "r", "b", "", *states])
    attributes = f'<hidden_size = {units}, direction = "{direction}">'
    return net(
        f"""(float[7,2,4] x, {declared}) => (float[{size}] out)
        {{ q = MatMul(x, w0)  s, h = {kind}{attributes}({given})  {behind} }}""",
        **constants,
    )


@pytest.mark.parametrize("reader", ["sequence", "state"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", RECURRENT)
def test_hidden_units_of_recurrent_nodes(kind, directions, reader):
    proto = recurrent(kind, directions, reader)
    pruning = pruning_of(proto)
    assert sorted(group.units.size for group in pruning.width_groups.members) == [5, 6]
    hold_mask(proto, half)
    made = pruning.build(half(pruning))
    (node,) = (node for node in made.graph if node.op_type == kind)
    gates = RECURRENT[kind]
    assert node.attributes["hidden_size"].value == 3
    assert constant_array(node.inputs[1]).shape == (directions, gates * 3, 3)
    assert constant_array(node.inputs[2]).shape == (directions, gates * 3, 3)
    assert pruning.macs().total(pruning.full()) == 14 * (4 * 5 + directions * gates * 6 * 11) + (
        14 * directions * 6 * 3 if reader == "sequence" else directions * 2 * 6 * 3
    )


SPREAD = "h0 = ConstantOfShape(size)"
EXPANDED = "h0 = Expand(zero, size)"
ELSEWHERE = "h0 = ConstantOfShape(size)  other = Expand(zero, size)"


@pytest.mark.parametrize(("state", "members"), [(SPREAD, [6]), (EXPANDED, [6]), (ELSEWHERE, [])])
def test_a_state_spread_to_the_size_of_a_batch_is_counted_with_the_units(state, members):
    proto = net(
        f"""(float[7,2,4] x, float[1,18,4] w, float[1,18,6] r, float[6,3] v, int64[1] one, int64[1] six,
             int64[1] at, float[1] zero) => (float[1,2,3] out{", float[1,2,6] other" if "other" in state else ""})
        {{ shape = Shape(x)  batch = Gather(shape, at)  size = Concat<axis = 0>(one, batch, six)  {state}
           s, h = GRU<hidden_size = 6>(x, w, r, , , h0)  out = MatMul(h, v) }}""",
        w=numbers(1, 18, 4),
        r=numbers(1, 18, 6),
        v=numbers(6, 3),
        one=np.array([1]),
        six=np.array([6]),
        at=np.array([1]),
        zero=np.zeros(1, np.float32),
    )
    assert [group.units.size for group in pruning_of(proto).width_groups.members] == members
    if members:
        hold_mask(proto, half)


def test_units_whose_state_is_given_stay():
    proto = net(
        """(float[7,2,4] x, float[1,2,6] h0, float[1,18,4] w, float[1,18,6] r, float[6,3] v) => (float[1,2,3] out)
        { s, h = GRU<hidden_size = 6>(x, w, r, , , h0)  out = MatMul(h, v) }""",
        w=numbers(1, 18, 4),
        r=numbers(1, 18, 6),
        v=numbers(6, 3),
    )
    assert not pruning_of(proto).width_groups.members


def test_units_are_pruned_and_what_reads_them_repaired():
    proto = recurrent("LSTM", 2, "sequence", units=32)
    feeds = [{"x": numbers(7, 2, 4, seed=seed)} for seed in range(8)]
    errors = []
    for repair in (False, True):
        result = run(proto, PruneChannels(params=0.7, repair=repair, multiple=1), lab_of(proto, feeds, "none"))
        after, total = to_proto(result.model), 0.0
        for feed in feeds:
            ((want,), (got,)) = (outputs(one, feed, optimize=True) for one in (proto, after))
            total += np.linalg.norm(got - want)
        errors.append(total)
    assert errors[1] < 0.7 * errors[0]


def lab_of(proto, feeds, budget="default"):
    several = FeedSet(lambda number: feeds[number], tuple(range(len(feeds))))
    split = Split(several, several, several, several, "iterable")
    return RuntimeEvaluator(load(proto), split, Budget.parse(budget), is_timed=False)


def test_what_the_same_weights_read_is_summed_up_once():
    proto = net(
        """(float[8,6] x, float[3,5] w1, float[5,2] w2) => (float[8,2] y)
        { a, b = Split<axis = 1>(x)  c = MatMul(a, w1)  d = MatMul(b, w1)
        e = Relu(c)  f = Relu(d)  g = MatMul(e, w2)  h = MatMul(f, w2)  y = Add(g, h) }""",
        w1=numbers(3, 5),
        w2=numbers(5, 2, seed=1),
    )
    feeds = [{"x": numbers(8, 6, seed=seed)} for seed in range(3)]
    pruning = pruning_of(proto)
    found = pruning.observe(lab_of(proto, feeds))
    assert found["e"] is found["f"]
    rows = np.concatenate([np.maximum(half @ numbers(3, 5), 0) for one in feeds for half in np.split(one["x"], 2, 1)])
    assert found["e"].rows == len(rows)
    np.testing.assert_allclose(found["e"].sums[0], rows.T @ rows, rtol=1e-5)
    (reader,) = (one for one in repairable_consumers(pruning.groups) if one.weight.name == "w2")
    np.testing.assert_allclose(reader.moments(found)[1], rows.mean(axis=0), rtol=1e-5)


def redundant(seed, padded):
    """A net in which some channels of each layer are the same or parallel, and the widths without them."""
    planter = Planter(seed, padded=padded)
    value, source = planter.source(3)
    value = planter.unary(planter.conv(value, 4), "Relu")
    value = planter.unary(planter.conv(value, 5), "Relu")
    value = planter.pool(planter.conv(value, 3), "MaxPool")
    return planter.model(source, planter.head(value)), planter.widths


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_repair_of_planted_redundancy_is_exact(seed, padded):
    proto, compact = redundant(seed, padded)
    feeds = [feeds_for(proto, {}, number) for number in range(1000)]  # behind the Flatten a feed is two rows
    evaluator = lab_of(proto, feeds)
    model = load(proto)
    result = PruneChannels(multiple=1).run(clone(model), Context(model, evaluator=evaluator, budget_limit=0.05))
    left, before = widths(result.model), widths(model)
    assert all(left[name] <= width for name, width in compact.items())
    assert left != before or before == compact
    want, got = (outputs(made, feeds[0], optimize=False)[0] for made in (proto, to_proto(result.model)))
    assert np.linalg.norm(want - got) <= 0.005 * np.linalg.norm(want)


def chain(seed=0, rank=16):
    return net(
        """(float[1,3,9,9] x, float[16,3,3,3] w1, float[16] b1, float[24,16,3,3] w2, float[4,24,1,1] w3)
        => (float[1,4,5,5] y)
        { a = Conv(x, w1, b1)  c = Relu(a)  d = Conv(c, w2)  e = Relu(d)  y = Conv(e, w3) }""",
        w1=np.tensordot(numbers(16, rank), numbers(rank, 3, 3, 3, seed=seed), 1) / rank,
        b1=numbers(16, seed=seed + 1) + (0 if rank == 16 else 9),  # what is mostly positive stays linear
        w2=numbers(24, 16, 3, 3, seed=seed + 2),
        w3=numbers(4, 24, 1, 1, seed=seed + 3),
    )


def run(proto, member, evaluator=None, **options):
    model = load(proto)
    return member.run(clone(model), Context(model, evaluator=evaluator, **options))


def left(proto, result, costs):
    """The share of the costs that is left."""
    before, after = pruning_of(proto), pruning_of(to_proto(result.model))
    return costs(after).total(after.full()) / costs(before).total(before.full())


def test_repair_at_least_halves_the_error():
    proto = chain(rank=6)
    feeds = [feeds_for(proto, {}, number) for number in range(24)]
    evaluator = lab_of(proto, feeds, "none")
    want = outputs(proto, feeds[0], optimize=False)[0]
    errors = {}
    for repair in (True, False):
        made = run(proto, PruneChannels(macs=0.6, repair=repair), evaluator).model
        errors[repair] = np.linalg.norm(outputs(to_proto(made), feeds[0], optimize=False)[0] - want)
    assert errors[True] <= errors[False] / 2


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_goal_of_macs_is_met_by_every_importance(importance):
    proto = chain()
    evaluator = lab_of(proto, [feeds_for(proto, {}, number) for number in range(6)], "none")
    result = run(proto, PruneChannels(macs=0.7, importance=importance), evaluator)
    assert 0.45 <= left(proto, result, Pruning.macs) <= 0.7
    assert all(width % 4 == 0 for width in widths(result.model).values())
    assert any(note.reason.endswith("channels") and not note.skipped for note in result.notes)


def test_budget_stops_a_goal_and_says_so():
    proto = chain()
    evaluator = lab_of(proto, [feeds_for(proto, {}, number) for number in range(6)])
    result = run(proto, PruneChannels(macs=0.1), evaluator)
    assert evaluator.budget_used(result.model) <= 1
    assert any("budget" in note.reason and note.skipped for note in result.notes)


def test_params_and_latency_are_goals():
    proto = chain()
    evaluator = lab_of(proto, [feeds_for(proto, {}, number) for number in range(6)], "none")
    result = run(proto, PruneChannels(params=0.5), evaluator)
    assert 0.3 <= left(proto, result, Pruning.parameters) <= 0.5
    evaluator.is_timed = True
    evaluator.seconds = lambda model: float(sum(value.const_value.size for value in model.graph.initializers.values()))
    evaluator.profile = lambda model: {node.name or node.outputs[0].name: 1.0 for node in model.graph}
    result = run(proto, PruneChannels(latency=0.6), evaluator)
    assert evaluator.seconds(result.model) <= 0.6 * evaluator.seconds(load(proto))


def test_choices_are_repeated():
    proto = chain()
    evaluator = lab_of(proto, [feeds_for(proto, {}, number) for number in range(6)], "none")
    member = PruneChannels(macs=0.6)
    result = run(proto, member, evaluator)
    again = run(
        proto, member, lab_of(proto, [feeds_for(proto, {}, number) for number in range(6)]), choices=result.choices
    )
    assert to_proto(again.model) == to_proto(result.model)


def test_excluded_kernels_keep_their_channels():
    proto = chain()
    result = run(proto, PruneChannels(macs=0.3, exclude=("a",)))
    assert widths(result.model)["a"] == 16
    assert widths(result.model)["d"] < 24
    assert any("exclude" in note.reason for note in result.notes)


def test_sites_are_asked():
    proto = chain()
    sites = Sites()
    run(proto, PruneChannels(macs=0.2), sites=sites)
    assert len(sites.permitted) == 2
    denied = next(iter(sites.permitted))
    result = run(proto, PruneChannels(macs=0.2), sites=Sites(denied=frozenset({denied})))
    kept = [name for name, width in widths(result.model).items() if width == widths(load(proto))[name]]
    assert len(kept) == 2  # the one that was denied, and the last


def test_what_may_not_go_is_told():
    proto = net(
        """(float[1,3,4,4] x, float[8,3,1,1] w1, float[4,8,1,1] w2) => (float[1,8,4,4] a, float[1,4,4,4] y)
        { a = Conv(x, w1)  y = Conv(a, w2) }""",
        w1=numbers(8, 3, 1, 1),
        w2=numbers(4, 8, 1, 1),
    )
    result = run(proto, PruneChannels(macs=0.5))
    assert not result.changes
    assert any("output of the graph" in note.reason for note in result.notes)


@pytest.mark.parametrize(
    "options", [{"macs": 0.0}, {"macs": 1.5}, {"macs": 0.5, "params": 0.5}, {"importance": "size"}, {"multiple": 0}]
)
def test_options_are_checked(options):
    with pytest.raises(UsageError):
        PruneChannels(**options)


@pytest.mark.parametrize("options", [{}, {"latency": 0.5}, {"macs": 0.5, "repair": True}, {"importance": "error"}])
def test_what_needs_runs_or_data_says_so(options):
    model = load(chain())
    with pytest.raises(PreconditionError):
        PruneChannels(**options).requires(model, Context(model))


def test_spec():
    assert parse_pass("prune-channels:macs=0.7,multiple=8,repair=false") == PruneChannels(
        macs=0.7, multiple=8, repair=False
    )
