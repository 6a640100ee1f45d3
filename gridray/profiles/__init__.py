"""Load and PV time series."""
