"""Perfect-foresight optimisation of whole days: a ceiling for every score, and a plan that comes near it."""
