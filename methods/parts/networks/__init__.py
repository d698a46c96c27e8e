"""Backbones, heads, pooling, initialisation, batch norm."""
