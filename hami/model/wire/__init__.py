"""Texts other programs read and write, byte for byte: annotations, extender bodies, reviews, grant files."""
