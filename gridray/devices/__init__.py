"""Devices in time and their imperfections: pure functions over arrays [item, environment], for any task.

N items, E environments, the environment axis last, float64. A parameter of shape [N, 1] holds in all environments, one
of shape [N, E] differs between them. Powers have generator sign: positive injects into the grid. A function takes the
state and returns the next one; nothing is kept elsewhere, and nothing draws random numbers but from `EnvStreams`.
"""
