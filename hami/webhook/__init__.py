"""Admission: pods before they are stored."""
