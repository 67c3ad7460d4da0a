"""What a run folder says about its run."""

import hashlib
import json
from pathlib import Path

from safetensors.torch import load_file


def fingerprint(run: Path) -> dict[str, str]:
    """Return the hashes of weights and average."""

    def digest(name: str) -> str:
        tensors = sorted(load_file(run / "last" / name).items())
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in tensors)).hexdigest()

    return {name: digest(name) for name in ("model.safetensors", "ema.safetensors")}


def rows(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def state(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"]
