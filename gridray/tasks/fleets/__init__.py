"""Devices of one kind that a task commands and observes."""
