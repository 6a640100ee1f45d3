"""Batched three-phase power flow."""
