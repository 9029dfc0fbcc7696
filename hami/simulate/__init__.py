"""Where would these pods land? The production engine over a described or recorded cluster, without one."""
