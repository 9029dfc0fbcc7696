"""The cluster service: scheduler extender, admission and metrics in one process beside kube-scheduler."""
