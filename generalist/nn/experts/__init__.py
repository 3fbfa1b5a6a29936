"""Mixtures of experts: routers, experts, where they stand, how much they are used."""
