"""Processes and devices: the compute settings of a run, its world of ranks, the memory allocator."""
