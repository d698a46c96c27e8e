"""Losses on embeddings: triplet, margins, neighbours, distillation."""
