"""Regions of a picture, found by a proposer."""
