#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-0%1
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=6
#SBATCH --dependency=afterok:101_0
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --job-name=test-TOKEN
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=END
#SBATCH --mem=16384M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/RESULTS/slurm/jobs/TOKEN/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=240

# setup
export PYTHONSAFEPATH=1
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /RESULTS/slurm/jobs/TOKEN/%A_%a_%t_log.out --cpus-per-task=6 --kill-on-bad-exit=0 apptainer exec image.sif python -u -m subnetbench.harness.execution.slurm.start /RESULTS/slurm/jobs/TOKEN
