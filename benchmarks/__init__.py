"""The measurements of `make bench`, one concern per module; docs/benchmarks.md describes the method."""
