"""Per-channel mean and standard deviation of images in memory."""

import numpy as np

from subnetbench.harness.data import Images


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel for pixels in [0, 1], from exact integer counts."""
    assert images.tensor is not None, "statistics of files are constants, not computed at every start"
    values = np.arange(256)
    means, stds = [], []
    for channel in images.tensor.unbind(1):
        counts = np.bincount(channel.numpy().ravel(), minlength=256)
        mean = counts @ values / counts.sum()
        means.append(round(float(mean) / 255, 4))
        stds.append(round(float(np.sqrt(counts @ values**2 / counts.sum() - mean**2)) / 255, 4))
    return tuple(means), tuple(stds)
