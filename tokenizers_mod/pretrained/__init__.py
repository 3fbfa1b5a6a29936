"""Modalities whose tokens come out of a pretrained encoder: pictures, sounds, films, series and texts."""
