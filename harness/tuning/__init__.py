"""Tuning: studies whose trials are runs, proposed by Optuna, carried out by launchers, selected on validation data.

    tuning_file -> search (one study: propose, tell) -> driver (slots) -> launching (runs) -> selection -> final runs

Only this package imports Optuna.
"""
