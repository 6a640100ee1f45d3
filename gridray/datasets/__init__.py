"""Offline datasets: written, checked, described and recorded."""
