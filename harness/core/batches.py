"""Cutting samples into batches."""


def batch_slices(length: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` of `length` samples, none of a single sample where that can be avoided.

    Batch normalisation cannot train on one sample: where the last slice would hold one, it takes another from the slice
    before, which keeps at least two. Sizes of 2 and less are cut as they are.
    """
    starts = list(range(0, length, size))
    if not starts:
        return []
    if len(starts) > 1 and length - starts[-1] == 1 and size > 2:
        starts[-1] -= 1
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], length], strict=True)]
