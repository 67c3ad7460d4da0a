"""Print as JSON whether a resumed run equals a straight one to the bit, with --deterministic.

python -m benchmarks.gpu.resumed DEVICE [--quick]
"""

import json
import sys
import tempfile
from pathlib import Path

from backbones.assembly.preflight.trial import Trial, check_resume
from backbones.assembly.run import splits
from backbones.training.launch import create_accelerator, require_deterministic
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.trained import recipe_of, small


def main(device: str, *, quick: bool) -> None:
    require_deterministic()
    plan = Plan(device, quick, batch=16, size=64)
    options = {"deterministic": True, "model_ema": True}
    recipe = small(plan, **options) if quick else recipe_of(plan, "csresnext50_ws_mi2", **options)
    accelerator = create_accelerator(precision=recipe.precision, device=recipe.device)
    train, val = splits(recipe)
    with tempfile.TemporaryDirectory() as folder:
        (found,) = check_resume(Trial(recipe, accelerator, train, val, Path(folder)))
    print(json.dumps({"passed": found.passed, "found": found.found}))


if __name__ == "__main__":
    main(sys.argv[1], quick="--quick" in sys.argv)
