"""Schedules, parameter groups and clipping."""
