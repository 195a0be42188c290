"""Simulators that put a theorem beside the simulation of its setting."""
