"""This machine: its devices, the grants it keeps on disk, the installed library.

Used by the agent and by local mode. Everything here touches the machine; what to do is decided elsewhere.
"""
