"""Datasets and their transformations."""
