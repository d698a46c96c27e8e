"""Where runs execute: this process, a local pool of processes with device slots, or SLURM."""
