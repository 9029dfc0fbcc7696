"""A real one-node Kubernetes on loopback, for tests and for `make demo-cluster`.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd with runc, and a kubelet, each the upstream
program, started as ordinary processes by root and stopped without a trace. Nothing outside the Go module proxy and
Debian's archive is needed: no registry, no container engine.

One module a subject: `layout` (where everything lies), `binaries` (found or built), `pki`, `processes`,
`controlplane`, `images`, `runtime` (containerd), `cgroups`, `kubelet`, `sweep` (leave nothing behind), `cluster` (all
of it), `services` (hami itself), `api` (plain HTTPS and JSON), `waiting` (conditions with deadlines).
"""
