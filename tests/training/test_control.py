"""Signals end a run after its step, and checkpoints come in time."""

import os
import signal
import time

import pytest
from accelerate import Accelerator

from backbones.errors import UserError
from backbones.recipe import Saving
from backbones.training import control as module
from backbones.training.control import Control, Decision, StoppedError

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
NEVER = Saving(ckpt_minutes=None)


def make_control(saving: Saving = NEVER) -> Control:
    return Control(Accelerator(cpu=True), saving)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_ends_the_run_after_the_step(number, status):
    control = make_control()
    with control.listening():
        assert control.decide(1) == Decision(save=False, signal=0)
        os.kill(os.getpid(), number)
        assert control.decide(2) == Decision(save=True, signal=number)
    error = StoppedError(number, 2)
    assert error.exit_status == status
    assert f"stopped by {signal.Signals(number).name} after step 2, which is saved" in str(error)


def test_the_first_signal_counts():
    control = make_control()
    with control.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert control.decide(1).signal == signal.SIGUSR1


def test_a_second_ctrl_c_does_not_wait_for_the_step():
    control = make_control()
    with control.listening():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_do_what_they_did():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with make_control().listening():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


def test_a_validation_ends_at_once():
    control = make_control()
    start = time.monotonic()
    with control.listening(), pytest.raises(StoppedError), control.interruptible():
        long_validation()
    assert time.monotonic() - start < 4


def long_validation() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


def test_a_signal_from_before_a_validation_ends_it_too():
    control = make_control()
    with control.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError), control.interruptible():
            pytest.fail("the validation began")


def test_checkpoints_come_every_so_many_steps():
    control = make_control(Saving(ckpt_minutes=None, ckpt_every=3))
    assert [step for step in range(1, 10) if control.decide(step).save] == [3, 6, 9]


def test_checkpoints_come_every_so_many_minutes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    control = make_control(Saving(ckpt_minutes=2))
    saved = []
    for step in range(1, 10):
        now[0] += 50.0
        if control.decide(step).save:
            saved.append(step)
            control.note_save()
    assert saved == [3, 6, 9]


@pytest.mark.parametrize("text", ["Timed out waiting 5000ms for recv", "Connection closed by peer [::1]:5"])
def test_an_answer_that_never_comes_is_explained(text):
    control = make_control()
    control.group, control.step, control.is_first_step = object(), 7, False
    control.watchdog.beat("step 8")
    with (
        pytest.raises(UserError, match=r"process 0 on \S+: after step 7, in step 8, another process .* within 120 s"),
        control.explaining_hangs(),
    ):
        raise RuntimeError(text)


def test_other_errors_are_left_alone():
    control = make_control()
    control.group = object()
    with pytest.raises(RuntimeError, match="shape"), control.explaining_hangs():
        raise RuntimeError("shape mismatch")
