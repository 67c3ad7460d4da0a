"""Run by tests/training/test_checkpoint.py: kill a process while it saves, many times.

Arguments: folder, trials. Each trial forks a process that saves checkpoints one after the other and is killed with -9
at a random moment. Prints a JSON list of (last step that was reported as saved, newest sound step) of each trial.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from backbones.training.checkpoint import find_resumable, load_state, save_checkpoint

WEIGHTS = {f"layer{number}.weight": torch.full((50_000,), float(number)) for number in range(10)}
MAX_SECONDS = 0.3


def save_without_end(folder: Path, step: int, report: int) -> None:
    while True:
        step += 1
        state = {"step": step, "momenta": list(WEIGHTS.values())}
        save_checkpoint(folder / "last", WEIGHTS, {"step": step}, ema=WEIGHTS, state=state, kept=2)
        os.write(report, step.to_bytes(4))


def newest(folder: Path) -> int:
    found, _ = find_resumable(folder)
    return load_state(found)["step"] if found else 0


def kill_once(folder: Path, randomness: random.Random) -> tuple[int, int]:
    before = newest(folder)
    reader, report = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        save_without_end(folder, before, report)
    os.close(report)
    first = b"" if before else os.read(reader, 4)  # a run that has saved nothing has nothing to come up with
    time.sleep(randomness.uniform(0, MAX_SECONDS))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as reported:
        steps = first + reported.read()
    complete = int.from_bytes(steps[-4:]) if steps else before
    return complete, newest(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    randomness = random.Random(0)
    outcomes = [kill_once(Path(sys.argv[1]), randomness) for _ in range(int(sys.argv[2]))]
    sys.stdout.write(json.dumps(outcomes))
