"""Feeders as people write them."""
