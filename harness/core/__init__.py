"""What every other package may use: errors, configs, files, hashing, random streams, metrics, statistics, the registry."""
