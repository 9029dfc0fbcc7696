"""The node service: announce the devices, serve the kubelet, settle grants, watch what containers do."""
