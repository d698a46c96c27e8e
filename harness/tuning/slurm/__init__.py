"""Studies on a cluster: trials and their driver as SLURM jobs."""
