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
import subnetbench.harness.execution.run
import subnetbench.harness.training.loop
from subnetbench.harness.core import environment
from subnetbench.harness.runs.code import harness_modules

# A signal to the whole process group is for the driver and the runs; a server that died of it could not tell how
# they ended.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

# Asked once here, remembered in every forked process.
environment.git_state()
environment.versions()
# The sources of what was imported just now, not those of a later moment.
harness_modules()

__all__ = ["accelerate", "flop_counter", "pandas", "pyarrow", "subnetbench", "tensorboard", "torch", "torchvision"]
