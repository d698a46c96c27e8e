"""Base classes of methods by task: classifiers, embedders, distillers."""
