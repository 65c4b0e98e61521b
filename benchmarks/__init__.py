"""What `make bench` measures, one concern per module; docs/benchmarks.md tells how."""
