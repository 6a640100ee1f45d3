"""Offline learners, their training, and the bundles that hold what they learnt."""
