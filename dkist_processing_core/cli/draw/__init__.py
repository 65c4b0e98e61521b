"""Drawings of runs, events and graphs for the terminal."""
