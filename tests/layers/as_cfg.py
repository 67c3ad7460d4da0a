"""A neck written down as darknet's cfg, with the neck's weights."""

from torch import nn

from backbones.darknet.cfg import parse_cfg
from backbones.darknet.network import DarknetNetwork
from backbones.layers import ConvNormAct


def conv(filters: int, size: int, stride: int = 1) -> str:
    shape = f"filters={filters}\nsize={size}\nstride={stride}\npad=1"
    return f"[convolutional]\nbatch_normalize=1\n{shape}\nactivation=leaky\n"


def build(layers: str, neck: nn.Module, *, channels: int, height: int, width: int) -> DarknetNetwork:
    """Build the network of ``layers``. Its convolutions get the weights of those of ``neck``, in the same order."""
    net = f"[net]\nheight={height}\nwidth={width}\nchannels={channels}\n"
    network = DarknetNetwork(parse_cfg(net + layers)).eval()
    theirs = [module for module in network.layers if hasattr(module, "conv") and hasattr(module, "bn")]
    ours = [module for module in neck.modules() if isinstance(module, ConvNormAct)]
    for target, source in zip(theirs, ours, strict=True):
        target.load_state_dict(source.state_dict())
    return network


def randomize(neck: nn.Module) -> nn.Module:
    """Give each normalization other numbers than those of a fresh layer."""
    for module in neck.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    return neck.eval()
