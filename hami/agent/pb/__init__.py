"""The kubelet's gRPC interfaces, generated from the .proto files beside this (see generate.py); never edited."""
