"""The verdicts of benchmarks/simplify_table.py, on records made up here."""

import importlib.util
from pathlib import Path

path = Path(__file__).parents[2] / "benchmarks/simplify_table.py"
spec = importlib.util.spec_from_file_location("simplify_table", path)
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)


def record(nodes, size=100, *, seconds=1.0, difference=0.0, error=None, low=0.9, **changes):
    measured = {
        "loads": True,
        "difference": difference,
        "allowed": 1e-4,
        "equal": difference <= 1e-4,
        "before": {"nodes": 100, "bytes": 100},
        "after": {"nodes": nodes, "bytes": size},
        "signature_same": True,
        "metadata_same": True,
        "latency": {"ratio": low, "low": low, "high": low},
    }
    made = {"error": error, "seconds": seconds, "spent": {"gates": 2.0}, "version": "1"}
    return {"made": made, "measured": measured | changes}


def verdicts(ours, **peers):
    lines = table.findings({"m": {"onnxhone": ours, **peers}})
    return {line[7:].split(":")[0]: line[:5] for line in lines if line[:5].strip()}


def test_all_holds():
    found = verdicts(record(50), onnxslim=record(50, seconds=2.0), onnxsim=record(60))
    assert len(found) == 9
    assert set(found.values()) == {"holds"}


def test_a_peer_that_is_wrong_larger_invalid_or_crashed_does_not_count():
    peers = {
        "onnxslim": record(10, difference=1.0),
        "onnxsim": record(10, size=101),
        "onnxscript": record(10, loads=False, error="bad"),
        "ort_basic": record(10, error="crashed"),
    }
    assert table.best_peer({"onnxhone": record(50), **peers}) is None
    assert table.best_peer({"onnxhone": record(50), **peers, "other": record(70)}) == (70, "other")


def test_each_promise_can_fail():
    assert verdicts(record(50, difference=1.0))["loads and equals the original"] == "FAILS"
    assert verdicts(record(50, size=101))["the file does not grow"] == "FAILS"
    assert verdicts(record(50, low=1.03))["not slower"] == "FAILS"
    assert verdicts(record(50, metadata_same=False))["signature and metadata unchanged"] == "FAILS"
    found = verdicts(record(53, seconds=2.0), onnxslim=record(50))
    assert found["nodes not above the best peer on three of four"] == "FAILS"
    assert found["nodes at most 5 % above the best peer"] == "FAILS"
    assert found["CPU of load, rewriting and save below onnxslim's, all models"] == "FAILS"


def test_the_text_has_a_row_for_each_model_and_no_verdict_is_lost():
    results = {"m": {"onnxhone": record(50), "onnxslim": record(60, seconds=3.0)}}
    machine = {"system": "S", "architecture": "A", "cores": 2, "features": ["f"], "python": "3"}
    text = table.text({"commit": "c", "machine": machine, "versions": {"v": "1"}, "results": results})
    assert "| m | 100 | **50, 1.000, 1.00 s** | 60, 1.000, 3.00 s |" in text
    assert all(line in text for line in table.findings(results))
