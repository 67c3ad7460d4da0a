"""TF32 and cuDNN's search are set on a GPU, where asked for, and nowhere else."""

import pytest
import torch

from backbones.training.arithmetic import choose_arithmetic, steady_algorithms
from backbones.training.launch import require_deterministic

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(autouse=True)
def _restored():
    """Leave torch's settings as they were."""
    before = settings()
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


def settings() -> tuple[str, bool, bool]:
    """Precision of matrix products, TF32 in convolutions, cuDNN's search; torch's functions warn where they clash."""
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize(("tf32", "expected"), [(True, ("high", True, True)), (False, ("highest", False, True))])
def test_a_gpu_computes_products_and_convolutions_as_asked(tf32, expected):
    choose_arithmetic(CUDA, tf32=tf32)
    assert settings() == expected
    assert torch.backends.cuda.matmul.allow_tf32 is tf32


def test_torchs_own_choice_stays_where_nothing_is_asked():
    before = settings()
    choose_arithmetic(CUDA, tf32=None)
    assert settings() == (*before[:2], True)


def test_a_cpu_is_left_as_it_is():
    before = settings()
    choose_arithmetic(CPU, tf32=True)
    assert settings() == before


def test_a_deterministic_run_may_use_tf32_but_measures_no_algorithms():
    require_deterministic()
    choose_arithmetic(CUDA, tf32=True)
    assert settings() == ("high", True, False)


def test_an_evaluation_measures_no_algorithms_and_training_goes_on_to():
    torch.backends.cudnn.benchmark = True
    with steady_algorithms():
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


@pytest.mark.gpu
def test_tf32_has_ten_bits_of_mantissa():
    errors = {}
    for tf32 in (True, False):
        choose_arithmetic(CUDA, tf32=tf32)
        one = torch.full((64, 64), 1 + 2**-12, device="cuda")
        errors[tf32] = ((one @ torch.eye(64, device="cuda")) - one).abs().max().item()
    assert errors[False] == 0
    assert errors[True] == pytest.approx(2**-12)
