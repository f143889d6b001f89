// Package kubeshim is as much of the Kubernetes API as CSI drivers ask of it that want to run below Kubernetes and nowhere
// else: their own Node and CSINode, Secrets and ConfigMaps, Leases, the version, and the discovery of these. It is no cluster:
// there is one node, this host, and nothing is scheduled.
//
//	s, err := kubeshim.Start(ctx, kubeshim.Config{Options: options, Dir: …, Node: "host-1", Read: …})
//	s.Env()      // KUBERNETES_SERVICE_HOST and its like
//	s.Account()  // a directory for /var/run/secrets/kubernetes.io/serviceaccount
//
// It listens on the loopback interface, with TLS, a certificate of its own and a token. Port, certificate and token are kept,
// so that a driver that lives on while the daemon is away finds it again.
//
// What a driver writes to Node, CSINode and Lease is kept in memory. Secrets and ConfigMaps are those that the pool has; what is in
// their files is read when it is asked for.
package kubeshim
