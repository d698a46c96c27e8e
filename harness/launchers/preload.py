"""Imported once by the fork server, so that each run starts with everything heavy already there.

Nothing here may start threads or touch a GPU: forked processes inherit neither.
"""

import accelerate
import pyarrow.parquet
import torch
import torchvision.transforms.v2
from torch.utils import flop_counter, tensorboard

import subnetbench.harness.evaluation.protocols
import subnetbench.harness.run
import subnetbench.harness.training.loop

__all__ = ["accelerate", "flop_counter", "pyarrow", "subnetbench", "tensorboard", "torch", "torchvision"]
