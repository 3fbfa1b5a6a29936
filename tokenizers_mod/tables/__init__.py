"""Rows of tables and their schemas."""
