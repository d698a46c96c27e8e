"""Imported once by the fork server, so that each run starts with everything heavy already there.

Nothing here may start threads or touch a GPU: forked processes inherit neither.
"""

import signal

import accelerate
import pandas
import pyarrow.compute
import pyarrow.parquet
import torch
import torchvision.transforms.v2
from torch.utils import flop_counter, tensorboard

import subnetbench.harness.evaluation.protocols
import subnetbench.harness.execution
import subnetbench.harness.training.loop
from subnetbench.harness import environment

# A signal to the whole process group is for the driver and the runs; a server that died of it could not tell how
# they ended.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

# Asked once here, remembered in every forked process.
environment.git_state()
environment.versions()

__all__ = ["accelerate", "flop_counter", "pandas", "pyarrow", "subnetbench", "tensorboard", "torch", "torchvision"]
