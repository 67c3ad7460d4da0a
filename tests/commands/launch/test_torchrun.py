"""torchrun itself understands the words that are printed."""

import signal

from torch.distributed.run import config_from_args, get_args_parser

from backbones.commands.launch.request import Request
from backbones.commands.launch.torchrun import torchrun_options
from backbones.training.control import SIGNALS

REQUEST = Request("slurm", nodes=2, gpus=4, join_timeout=77)
WHERE = ["--nnodes", "2", "--node-rank", "1", "--master-addr", "10.0.0.1", "--master-port", "29500"]


def test_torchrun_starts_the_processes_and_waits_as_long_as_asked():
    args = get_args_parser().parse_args([*WHERE, *torchrun_options(REQUEST), "x.py"])
    config = config_from_args(args)[0]
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (2, 2, 4)
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", "10.0.0.1:29500")
    assert config.rdzv_configs == {"timeout": 77, "rank": 1} or int(config.rdzv_configs["timeout"]) == 77


def test_torchrun_passes_on_every_signal_that_the_trainer_understands():
    args = get_args_parser().parse_args([*torchrun_options(REQUEST), "x.py"])
    assert {signal.Signals(number).name for number in SIGNALS} <= set(args.signals_to_handle.split(","))
