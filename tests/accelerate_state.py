"""Accelerate keeps its state for the whole process; a test that makes an Accelerator forgets it first."""

from accelerate.state import AcceleratorState, GradientState


def reset() -> None:
    """Let the next Accelerator start afresh."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
