"""Bytes decoded: pictures, sounds, arrays, JSON, within what one sample may cost."""
