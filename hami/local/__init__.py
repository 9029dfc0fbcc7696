"""Sharing one machine's devices between programs, without Kubernetes."""
