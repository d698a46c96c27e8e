"""Masks on the weights of any network: functions, search, pruning, statistics."""
