"""Filters on what should not be trained on."""
