"""Run command lines one after another in this process; print what each printed and which heavy modules it loaded."""

import io
import json
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout

HEAVY = ("torch", "timm", "torchvision", "wandb", "accelerate", "nvidia.dali")


def run(words: list[str]) -> dict[str, object]:
    """Run ``SCRIPT.py ARGUMENTS`` or ``-m MODULE ARGUMENTS`` as the interpreter does."""
    before = set(sys.modules)
    out, status = io.StringIO(), 0
    sys.argv = words[1:] if words[0] == "-m" else words
    with redirect_stdout(out), redirect_stderr(out):
        try:
            if words[0] == "-m":
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(words[0], run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
    return {"status": status, "output": out.getvalue(), "loaded": sorted(set(HEAVY) & (set(sys.modules) - before))}


if __name__ == "__main__":
    sys.stdout.write(json.dumps([run(words) for words in json.loads(sys.stdin.read())]))
