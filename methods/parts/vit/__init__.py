"""Vision transformers that can be pruned: model, conversion, cost, masks, Fisher information."""
