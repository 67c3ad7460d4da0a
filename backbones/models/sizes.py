"""Recorded size and cost of the backbones, so that none is built to list them. A test compares them with networks."""

from typing import NamedTuple


class Size(NamedTuple):
    """Size and cost of a network with 1000 classes."""

    parameters: int
    """Number of all parameters."""
    bflops: float
    """Billions of operations for an image of 256x256, as darknet counts them."""


SIZES = {
    "csdarknet53": Size(27_642_184, 13.070582),
    "csdarknet53_ws": Size(27_642_230, 13.073858),
    "csdarknet53_omega_mi": Size(27_642_248, 13.077332),
    "csdarknet53_omega_mi_db": Size(27_642_248, 13.077332),
    "csdarknet53_omega_mi_ip": Size(27_648_392, 13.096271),
    "csdarknet53_omega_mi_db_ip": Size(27_648_392, 13.096271),
    "csresnext50": Size(20_557_480, 7.933427),
    "csresnext50_ws": Size(20_557_506, 7.936573),
    "csresnext50_ws_mi2": Size(20_557_515, 7.940899),
    "csresnext50_morelayers": Size(23_707_816, 8.852439),
    "csresnext50sub": Size(23_309_992, 8.740569),
    "csresnext50sub_mi2": Size(23_310_027, 8.74804),
    "csresnext50sub_mo": Size(23_309_992, 8.743452),
}
"""Backbone -> its size. A backbone that is missing here is measured."""
