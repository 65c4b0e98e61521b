"""Tests of the package's own testing tools."""
