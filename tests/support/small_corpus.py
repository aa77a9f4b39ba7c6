"""The models of the corpus that tests run on: those that ``python models/fetch.py --small`` fetches."""

from __future__ import annotations

import json
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("ONNXHONE_CORPUS") or ROOT / "models/corpus")
SMALL = {
    entry["id"]: FOLDER / entry["id"] / entry["files"][0]["name"]
    for entry in json.loads((ROOT / "models/corpus.json").read_text())["models"]
    if entry.get("small")
}
