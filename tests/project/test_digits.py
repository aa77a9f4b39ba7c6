"""The committed digit model: as accurate as said, as naive as said, and made by the script beside it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

MODELS = Path(__file__).parents[2] / "models"
WRITTEN = [
    "digits.onnx",
    "digits_data/labels.json",
    *(f"digits_data/calib/{number:03}.npz" for number in range(16)),
    *(f"digits_data/valid/{number:03}.npz" for number in range(15)),
]


def test_model_is_right_on_more_than_97_percent_of_the_digits_it_never_saw():
    session = onnxruntime.InferenceSession(MODELS / "digits.onnx", providers=["CPUExecutionProvider"])
    right = []
    for name, labels in json.loads((MODELS / "digits_data/labels.json").read_text()).items():
        if name.startswith("valid/"):
            with np.load(MODELS / "digits_data" / name) as feeds:
                (scores,) = session.run(None, dict(feeds))
            right += (scores.argmax(axis=1) == labels).tolist()
    assert len(right) == 450
    assert np.mean(right) > 0.97


def test_model_has_the_habits_of_a_naive_exporter():
    model = onnx.load(MODELS / "digits.onnx")
    ops = Counter(node.op_type for node in model.graph.node)
    weights = Counter(tensor.raw_data for tensor in model.graph.initializer)
    assert ops["BatchNormalization"] == 2
    assert min(ops[op] for op in ("Constant", "Identity", "Dropout", "Shape", "Div")) > 0
    assert [count for data, count in weights.items() if len(data) == 64 * 64 * 4] == [2]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_model_and_data_stay_small():
    assert (MODELS / "digits.onnx").stat().st_size < 200_000
    assert sum(path.stat().st_size for path in (MODELS / "digits_data").rglob("*.*")) < 250_000


def test_training_again_gives_the_same_bytes(tmp_path):
    pytest.importorskip("sklearn", reason="training needs scikit-learn (pip install '.[dev]')")
    subprocess.run([sys.executable, MODELS / "train_digits.py", "--out", tmp_path], check=True)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")) == sorted(WRITTEN)
    assert [name for name in WRITTEN if (tmp_path / name).read_bytes() != (MODELS / name).read_bytes()] == []
