"""The 40 faults: what we expect, and what became of each elsewhere.

The peer is timm's train.py of August 2026 with its model test_resnet, or another program where the row names it.
"silent": it ended with status 0 and a wrong result.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """One row of the table."""

    name: str
    expected: str
    peer: str


FAULTS: dict[int, Fault] = {
    1: Fault("truncated JPEG", "path named; stop, or skip and count", "dies, no path"),
    2: Fault("zero-byte file", "the same", "silent: takes the next image"),
    3: Fault("zero-byte file in val", "stop, never replace", "silent: counts a neighbour twice"),
    4: Fault("HTML page named .jpg", "stop, or skip and count", "silent but for a warning: replaced"),
    5: Fault("flipped byte in a JPEG", "decodes; documented", "the same"),
    6: Fault("empty class in train only", "stop: classes differ", "silent: labels shift"),
    7: Fault("val folder missing", "stop", "silent: validates on the training images"),
    8: Fault("extra class in val", "stop with names", "traceback after an epoch"),
    9: Fault("symlink loop, duplicate links", "walked once; said", "silent: 64 images become 2,624"),
    10: Fault("val not divisible by ranks", "exact count", "silent: 27.27 % for 23.81 %"),
    11: Fault("batch > data set; a tail", "stop; tail printed", "silent: no update, best written"),
    12: Fault("checkpoint minus a byte", "found; the one before used", "found, nothing to fall back on"),
    13: Fault("zero-byte checkpoint", "the same", "bare EOFError"),
    14: Fault("one bit flipped", "found", "silent"),
    15: Fault("other network; lost state", "stop, naming the part", "good; accelerate: silent for lost RNG"),
    16: Fault("NaN in loss or gradient", "stop before the update", "silent: best is NaN"),
    17: Fault("SIGTERM in mid-epoch", "save, status file, < 25 s", "the epoch is lost"),
    18: Fault("SIGINT, SIGUSR1", "save, never status 0", "SIGINT: status 0 and a result"),
    19: Fault("SIGTERM to the launcher", "workers save and end", "an orphan trains on"),
    20: Fault("kill -9 during a save", "the newest good one loads", "1 of 15 lost"),
    21: Fault("disk full", "warn, keep the old, try again", "dies, disk not mentioned"),
    22: Fault("two launches, one folder", "the second one refused", "silent: files of both mixed"),
    23: Fault("resume at an epoch's edge", "equal to the bit", "differs"),
    24: Fault("resume in mid-epoch", "equal to the bit", "silent: 6 of 8 updates skipped"),
    25: Fault("other processes, lr, data", "a rule for each: refuse or log", "silent"),
    26: Fault("SIGKILL of one rank", "all gone in 10 s", "3.1 s (torchrun)"),
    27: Fault("SIGSTOP of one rank", "ended by the timeout + 40 s", "hangs"),
    28: Fault("unknown YAML key", "error", "silent"),
    29: Fault("misspelt value", "error with the nearest", "AttributeError on None"),
    30: Fault("YAML: twice a key, 1e-4, 010", "error, or the number", "safe_load: silent"),
    31: Fault("read-only output", "error before the network", "after 22 s"),
    32: Fault("W&B unreachable", "goes on, <= 5 s", "dies after 116 s"),
    33: Fault("wandb-core killed", "goes on", "dies"),
    34: Fault("steps go backwards", "every row kept", "silent: dropped by W&B"),
    35: Fault("clock jumps back an hour", "rates right", "not run"),
    36: Fault("pickle as a checkpoint", "refused", "refused"),
    37: Fault("20000 x 20000 PNG, JPEG bomb", "refused before decoding", "dies"),
    38: Fault("view of 2^34 numbers", "refused by shape", "torch loads it"),
    39: Fault(".weights cut, doubled, NaN", "refused", "darknet: silent, 8 of 8"),
    40: Fault(".cfg: absurd values", "error with its line", "darknet: crashes in 5 of 8"),
}
