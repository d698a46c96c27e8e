"""Text-to-image search: encoders, their reductions, cascades and what these cost."""
