"""Gymnasium environments over a batch of feeders."""
