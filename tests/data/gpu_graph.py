"""Graphs that DALI gets for a GPU, as text: a line for each operator. DALI describes them without a GPU.

python -m tests.data.gpu_graph writes them to tests/fixtures/dali_gpu_graphs.txt.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nvidia.dali

from backbones.data import pipeline
from backbones.data.augment.view import View
from backbones.recipe import Augment, InceptionAugment, Loading, Preprocess

SNAPSHOT = Path(__file__).parents[1] / "fixtures" / "dali_gpu_graphs.txt"

AUTO = View(224, Preprocess(), Augment("inception", inception=InceptionAugment(auto="trivialaugment")))
VIEWS = {
    "crop": View(224, Preprocess(), Augment("inception")),
    "warp": View(224, Preprocess(), Augment("darknet")),
    "evaluation": View(224, Preprocess("timm", 0.9, "bicubic")),
}
LOADING = Loading(preallocate=(5980, 6430))

DROPPED = ("_", "preserve_name")
"""Beginnings of the names of arguments that say nothing of the graph: where it was written, and DALI's own notes."""


def describe_graphs() -> str:
    """Return the version of DALI, then every graph; of TrivialAugment's, which is long, the number of its operators."""
    parts = [f"DALI {nvidia.dali.__version__}"]
    parts += ["\n".join([f"[{name}]", *_describe(_operators(view))]) for name, view in VIEWS.items()]
    counts = Counter(f"{kind} on {values['device']}" for kind, _, _, values in _operators(AUTO))
    parts += ["\n".join(["[trivialaugment]", *(f"{count} {name}" for name, count in sorted(counts.items()))])]
    return "\n\n".join(parts) + "\n"


Operator = tuple[str, list[str], list[str], dict[str, str]]
"""Kind, inputs, outputs and arguments of an operator."""


def _operators(view: View) -> list[Operator]:
    # Without a device DALI does not ask for a GPU; the graph is the one with "mixed" decoding all the same.
    with mock.patch.object(pipeline, "_decoder_device", return_value="mixed"):
        pipe = pipeline._describe_images(
            iter(()), view, LOADING, batch_size=8, num_threads=1, device_id=None, enable_conditionals=view.is_auto
        )
        pipe.serialize()  # DALI refuses a graph here that does not fit together
    return [_parse(operator) for operator in pipe._ops]


def _parse(operator: Any) -> Operator:
    match = re.fullmatch(
        r"OpSpec for (\w+):\n  Inputs:\n(.*)  Outputs:\n(.*)  Arguments:\n(.*)", str(operator.spec), re.DOTALL
    )
    assert match, str(operator.spec)
    kind, inputs, outputs, arguments = match.groups()
    values = dict(line.strip().split(": ", 1) for line in arguments.splitlines() if ": " in line)
    kept = {name: value for name, value in values.items() if not name.startswith(DROPPED)}
    if kind == "ExternalSource":
        kept["number"] = str(operator._output_index)
    return kind, inputs.split(), outputs.split(), kept


def _describe(operators: list[Operator]) -> Iterator[str]:
    """Yield one line for each operator. Its outputs are numbered, since DALI's names count the graphs of a process."""
    numbers: dict[str, str] = {}
    for kind, inputs, outputs, arguments in operators:
        for output in outputs:
            numbers[output] = f"%{len(numbers)}"
        made = ", ".join(f"{numbers[output]} {output.rpartition('_')[2]}" for output in outputs)
        given = ", ".join(numbers[name] for name in inputs)
        yield f"{made} = {kind}({given}) {' '.join(f'{name}={value}' for name, value in sorted(arguments.items()))}"


if __name__ == "__main__":
    SNAPSHOT.write_text(describe_graphs())
