"""The preset ``int8`` on fp32 models with real inputs and task metrics, beside other quantizers, in one run.

    python benchmarks/int8_corpus.py --bench DIR [--tools ort_static_prepped ...] [--models ID ...] [--make-only]

``DIR`` is a bench: its ``run.py`` makes each tool's model from the calibration inputs alone, measures all of them on
the validation inputs that no tool sees (paired times, relative L2, task metric, size), and writes a table. onnxhone
runs through its command line. What is made and measured is kept, so an interrupted run goes on; ``--again onnxhone``
makes ours anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from simplify_corpus import HERE, commit

LIBRARIES = ("onnxhone", "numpy", "onnx", "onnx-ir", "onnxruntime")
PEERS = ("ort_static_default", "ort_static_prepped", "ort_dynamic", "onnxsim_static")
OPTIONS = "--preset int8 --data {calib} --report {out}.report.json --quiet"
SECONDS = 900


def command(options: argparse.Namespace, table: Path) -> list[str]:
    """The bench's command line."""
    ours = Path(sys.executable).with_name("onnxhone")
    template = (
        f"{ours} optimize {{model}} -o {{out}} --preset int8 --data {{calib}} --report {{out}}.report.json --quiet"
    )
    wanted = [sys.executable, str(options.bench / "run.py"), "--suite", "quant", "--jobs", "1"]
    wanted += ["--tools", ",".join([*options.tools, "onnxhone"]), "--cmd", f"onnxhone={template}"]
    wanted += ["--timeout", str(SECONDS), "--out", str(options.out.with_suffix(".json")), "--md", str(table)]
    wanted += ["--models", ",".join(options.models)] if options.models else []
    wanted += ["--force", ",".join(options.again)] if options.again else []
    return [*wanted, "--make-only"] if options.make_only else wanted


def main() -> int:
    """Run the bench and put commit and versions above its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tools", nargs="*", default=list(PEERS), metavar="TOOL")
    parser.add_argument("--models", nargs="*", default=[], metavar="ID")
    parser.add_argument("--again", nargs="*", default=[], metavar="TOOL", help="tools whose models are made anew")
    parser.add_argument("--make-only", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results/int8_corpus.md")
    options = parser.parse_args()
    table = options.out.with_suffix(".table.md")
    done = subprocess.run(command(options, table), check=False)
    if done.returncode or options.make_only:
        return done.returncode
    head = [
        "# The preset `int8` on real models",
        "",
        f"`python benchmarks/int8_corpus.py` at commit {commit()};",
        f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}.",
        "",
    ]
    body = table.read_text().partition("\n")[2].lstrip()  # without the bench's own title
    options.out.write_text("\n".join(head) + "\n" + body, encoding="utf-8")
    table.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
