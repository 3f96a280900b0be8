"""Helpers that several packages share: argument checks, numerics, random seeds, warnings and deprecations."""
