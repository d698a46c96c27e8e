"""Subnetworks of several capacities in one set of weights: PrunNet, SwitchNet and what they share."""
