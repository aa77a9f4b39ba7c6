"""Feeds from folders and iterables: fitting ones are split, others are named."""

from __future__ import annotations

import gc

import ml_dtypes
import numpy as np
import onnx
import pytest

from optimizer.errors import DataError, UsageError
from optimizer.evaluation.feeds.loading import load_feeds, parse_shapes
from optimizer.evaluation.runtime.session import Slot

X = Slot("x", "tensor(float)", ("N", 2))
SEQUENCE = Slot("s", "seq(tensor(float))", ())


def feed(number=0):
    return {"x": np.full((1, 2), number, np.float32)}


def saved(folder, count=6, **arrays):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        np.savez(folder / f"{number}.npz", **(arrays or feed(number)))
    return folder


def numbers(feeds):
    return [int(item["x"][0, 0]) for item in feeds]


def test_every_third_feed_validates(tmp_path):
    split = load_feeds(saved(tmp_path), [X])
    assert numbers(split.validation) == [0, 3]
    assert numbers(split.calibration) == [1, 2, 4, 5]
    assert numbers(split.selection) == [1, 5]
    assert numbers(split.fitting) == [2, 4]
    assert split.origin == "files"


def test_what_weights_are_fitted_to_and_what_judges_them_are_blocks_of_neighbours(tmp_path):
    for number in range(48):
        for part in ("calib", "valid"):
            saved(tmp_path / part, 0)
            np.savez(tmp_path / part / f"{number:02d}.npz", **feed(number))
    split = load_feeds(tmp_path, [X])
    selected = [at for block in range(0, 12, 3) for at in range(4 * block, 4 * block + 4)]
    assert numbers(split.selection) == selected
    assert numbers(split.fitting) == [at for at in range(48) if at not in selected]
    assert numbers(split.selection.spread(4)) == [0, 12, 24, 36]
    assert numbers(split.selection.spread(16)) == selected


def test_calib_and_valid_are_the_two_sets(tmp_path):
    saved(tmp_path / "calib", 3)
    saved(tmp_path / "valid", 2)
    split = load_feeds(tmp_path, [X])
    assert (len(split.calibration), len(split.validation)) == (3, 2)


def test_one_feed_does_both(tmp_path):
    split = load_feeds(saved(tmp_path, 1), [X])
    assert [len(part) for part in (split.calibration, split.fitting, split.selection, split.validation)] == [1] * 4
    assert split.notes


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.ones((1, 2), np.float32)}, "no input 'x'"),
        ({"x": np.ones((1, 2))}, "dtype float64"),
        ({"x": np.ones((1, 3), np.float32)}, r"shape \[1, 3\].* takes \[N, 2\]"),
        ({"x": np.ones(2, np.float32)}, "rank 1"),
        ({"x": np.ones((1, 2), np.float32), "y": np.ones(1)}, "'y' is not an input"),
        ({"x": np.array([{}])}, "pickled"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        load_feeds(saved(tmp_path, 1, **arrays), [X])
    assert "0.npz" in str(caught.value)


def test_broken_and_missing_files(tmp_path):
    with pytest.raises(DataError, match="no feeds"):
        load_feeds(tmp_path, [X])
    with pytest.raises(DataError, match="no such folder"):
        load_feeds(tmp_path / "nowhere", [X])
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match=r"a\.npz: cannot be read"):
        load_feeds(tmp_path, [X])


def test_sequences_are_saved_by_number(tmp_path):
    items = {f"s[{number}]": np.full(1, number, np.float32) for number in range(11)}
    split = load_feeds(saved(tmp_path, 1, **items), [SEQUENCE])
    assert [int(item[0]) for item in split.validation[0]["s"]] == list(range(11))


def test_onnx_test_data(tmp_path):
    for number in range(3):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        tensor = onnx.numpy_helper.from_array(feed(number)["x"], "x")
        (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    split = load_feeds(tmp_path, [X])
    assert (numbers(split.validation), numbers(split.calibration)) == ([0], [1, 2])


def test_a_list_and_a_generator_give_the_same():
    for data in ([feed(number) for number in range(6)], (feed(number) for number in range(6))):
        split = load_feeds(data, [X])
        assert split.origin == "iterable"
        assert numbers(split.validation) == [0, 3]
        assert numbers(split.validation) == [0, 3]  # as often as wanted


def test_temporary_files_vanish(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    split = load_feeds(iter([feed()]), [X])
    assert list(tmp_path.iterdir())
    del split
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_generator_of_odd_types_is_kept():
    slots = [
        Slot("b", "tensor(bfloat16)", (2,)), Slot("t", "tensor(string)", (2,)), SEQUENCE,
        Slot("o", "optional(tensor(float))", ()),
    ]  # fmt: skip
    given = {
        "b": np.array([1, 2], ml_dtypes.bfloat16), "t": np.array(["a", "ß"], object),
        "s": [np.ones(1, np.float32)], "o": None,
    }  # fmt: skip
    (back,) = load_feeds(iter([given]), slots).validation
    assert back["b"].dtype == ml_dtypes.bfloat16
    assert list(back["t"]) == ["a", "ß"]
    assert len(back["s"]) == 1


@pytest.mark.parametrize("data", [[], iter([]), {"x": 1}, 3, [1], [{"x": None}], [{"x": "text"}]])
def test_what_is_no_feed_is_refused(data):
    with pytest.raises(DataError):
        load_feeds(data, [X])


def test_plain_numbers_take_the_inputs_type():
    assert load_feeds([{"x": [[1, 2]]}], [X]).validation[0]["x"].dtype == np.float32


def test_shapes():
    assert parse_shapes(["x:1,3,224,224", "a:b:2", "s:"]) == {"x": (1, 3, 224, 224), "a:b": (2,), "s": ()}
    for text in ("x", "x:a", ":1", "x:-1", "x:1.5"):
        with pytest.raises(UsageError, match="--shape"):
            parse_shapes([text])
    with pytest.raises(UsageError, match="twice"):
        parse_shapes(["x:1", "x:2"])
