"""What the published implementations compute and the package has no use for: parity code of the golden tests."""
