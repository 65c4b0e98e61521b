"""
The simulation of a consumer: many histories of reports and faults, and the shortest one that shows a mistake.

Not here: a bus, a clock and runs for tests without a simulation (in_memory_bus, fixed, sample_runs).
"""

from dkist_processing_core.testing.simulation.simulate import SimulationFailedError, effects_of, simulate
from dkist_processing_core.testing.simulation.world import RefusedError, World

__all__ = ["RefusedError", "SimulationFailedError", "World", "effects_of", "simulate"]
