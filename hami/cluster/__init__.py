"""The picture of the cluster: watch events folded into the ledger that decisions read."""
