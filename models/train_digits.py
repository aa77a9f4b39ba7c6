#!/usr/bin/env python3
"""Train a digit classifier and write it as a naive exporter would: digits.onnx and its test data, byte for byte.

    python models/train_digits.py [--out DIR]       needs scikit-learn; about ten seconds

Data: the 1,797 handwritten digits of 8x8 pixels that ship with scikit-learn (from the UCI repository's "Optical
Recognition of Handwritten Digits"), of which a seeded quarter is held out. Written are

    digits.onnx                 the model, deliberately not optimized (see digits_onnx.py)
    digits_data/calib/NNN.npz   16 feeds of 16 training digits
    digits_data/valid/NNN.npz   15 feeds of 30 digits, all 450 that were held out
    digits_data/labels.json     what they are: {"valid/000.npz": [3, 7, ...], ...}
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import digits_net as net
import digits_onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from digits_net import Array, Layer

    Labels = NDArray[np.int64]

SEED = 20
HELD_OUT = 450
EPOCHS = 20
BATCH = 32
RATE = 2.0**-8


@dataclass(frozen=True)
class Digits:
    """Images (N, 8, 8, 1) with pixels 0 to 16, and what they are."""

    images: Array
    labels: Labels


def load(rng: np.random.Generator) -> tuple[Digits, Digits]:
    """The digits for training and those held out."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - only training needs it

    data = load_digits()
    order = rng.random(len(data.target)).argsort(kind="stable")
    images, labels = data.images[order, :, :, None], data.target[order]
    return Digits(images[HELD_OUT:], labels[HELD_OUT:]), Digits(images[:HELD_OUT], labels[:HELD_OUT])


def hinge_gradient(scores: Array, labels: Labels) -> Array:
    """Gradient of the mean over the batch of sum(max(0, 1 - sign * score) ** 2), sign = 1 for the label, else -1."""
    sign = np.where(np.arange(10) == labels[:, None], 1.0, -1.0)
    return -2.0 * sign * np.maximum(0.0, 1.0 - sign * scores) / len(labels)


def adam(parameters: list[net.Parameter], rate: float, decay: tuple[float, float]) -> None:
    """One step of Adam (Kingma and Ba, 2015) with betas 0.9 and 0.99; ``decay`` holds the betas' powers."""
    for parameter in parameters:
        gradient = parameter.gradient
        parameter.first = 0.9 * parameter.first + 0.1 * gradient
        parameter.second = 0.99 * parameter.second + 0.01 * gradient * gradient
        first, second = parameter.first / (1 - decay[0]), parameter.second / (1 - decay[1])
        parameter.value = parameter.value - rate * first / (np.sqrt(second) + 2.0**-26)
        parameter.gradient = np.zeros_like(gradient)


def train(data: Digits, rng: np.random.Generator) -> list[Layer]:
    """Train for EPOCHS passes over the data, the rate falling linearly to zero."""
    layers = net.build(rng)
    parameters = list({id(p): p for layer in layers for p in layer.parameters}.values())
    batches = len(data.labels) // BATCH
    steps, decay = EPOCHS * batches, (1.0, 1.0)
    for step in range(steps):
        if step % batches == 0:
            order = rng.random(len(data.labels)).argsort(kind="stable")
        chosen = order[step % batches * BATCH :][:BATCH]
        gradient = hinge_gradient(net.forward(layers, data.images[chosen], training=True), data.labels[chosen])
        for layer in reversed(layers):
            gradient = layer.backward(gradient)
        decay = decay[0] * 0.9, decay[1] * 0.99
        adam(parameters, RATE * (1.0 - step / steps), decay)
    return layers


def accuracy(layers: list[Layer], data: Digits) -> float:
    """Share of digits whose highest score is the right one."""
    return float((net.forward(layers, data.images).argmax(axis=1) == data.labels).mean())


def write_feeds(folder: Path, data: Digits, size: int, count: int) -> dict[str, list[int]]:
    """Write ``count`` feeds of ``size`` images and return their labels by file."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    for number in range(count):
        part = slice(number * size, (number + 1) * size)
        images = data.images[part].transpose(0, 3, 1, 2).astype(np.float32)
        np.savez(folder / f"{number:03}.npz", image=images)
        labels[f"{folder.name}/{number:03}.npz"] = data.labels[part].tolist()
    return labels


def main() -> int:
    """Train, write, and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="default: beside this script")
    out: Path = parser.parse_args().out
    rng = np.random.default_rng(SEED)
    training, held_out = load(rng)
    layers = train(training, rng)
    data = out / "digits_data"
    labels = write_feeds(data / "calib", training, 16, 16) | write_feeds(data / "valid", held_out, 30, 15)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in labels.items())
    (data / "labels.json").write_text(f"{{\n{lines}\n}}\n")
    (out / "digits.onnx").write_bytes(digits_onnx.export(layers).SerializeToString(deterministic=True))
    print(f"accuracy: {accuracy(layers, training):.4f} in training, {accuracy(layers, held_out):.4f} held out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
