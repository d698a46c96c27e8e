"""Tuning: studies whose trials are runs, proposed by Optuna, carried out by launchers, selected on validation data.

    tune -> describe (a tuning file) -> studies -> driver (slots) -> search (one study: proposals, results)
                                        -> trial_launchers, slurm (runs) -> final (runs on the test set) -> result

Only this package imports Optuna, and only `optuna_adapter` its private and experimental parts.
"""
