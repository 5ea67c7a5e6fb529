"""Programs that `make` calls; each has `--help`."""
