"""Runs on SLURM: submitted and left alone, resumed after preemption, time limits and dead nodes, collected from files.

`resources` says what jobs request, `arrays` turns runs into job arrays, `submit` hands them to the scheduler through
a `ledger` that is written first, `settle` compares it with what the scheduler knows, `job` is what happens on the
nodes, `queue_watch` is what can be said from outside, `commands` calls SLURM's programs. Only `submitit_adapter`
imports submitit, nothing here imports torch.
"""
