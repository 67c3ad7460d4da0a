"""Triton kernels of the recomputing operators for NHWC maps on a GPU. Nothing here is imported without one."""
