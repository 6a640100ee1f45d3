"""Controllers that are not trained."""
