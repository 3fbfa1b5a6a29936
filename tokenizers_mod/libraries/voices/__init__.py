"""Voices: Resemblyzer's network and what it makes of a sound first."""
