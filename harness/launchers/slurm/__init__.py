"""Runs on SLURM: submitted and left alone, resumed after preemption, time limits and dead nodes, collected from files.

`resources` says what jobs ask for, `grouping` turns runs into job arrays, `submitting` hands them to the scheduler
through a `ledger` that is written first, `job` is what happens on the nodes, `states` is what can be said from
outside, `clients` calls SLURM's programs. Only `submitting` and `job` import submitit, nothing here imports torch.
"""
