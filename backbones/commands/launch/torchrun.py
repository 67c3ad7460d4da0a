"""Words of torchrun that are the same on every scheduler."""

from backbones.commands.launch.request import Request

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""Signals that torchrun passes on to the training. SIGUSR1 would end torchrun itself at once, and with it the save."""

MODULE = ("-m", "torch.distributed.run")
"""What the interpreter runs: torchrun, also where no such script is on the PATH."""


def torchrun_options(request: Request) -> list[str]:
    """Return the options that need no variable of the scheduler."""
    limit = ["--rdzv-conf", f"timeout={request.join_timeout}"]
    return ["--nproc-per-node", str(request.processes_per_node), *limit, "--signals-to-handle", SIGNALS]
