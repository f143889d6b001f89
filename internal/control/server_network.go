package control

import "context"

// handleNetworks adds the methods about the network across hosts.
func handleNetworks(s *Server, n Networks) {
	handle(s, MethodNetworkLaunch, n.Launch)
	handle(s, MethodNetworkConnect, nothing(n.Connect))
	handle(s, MethodNetworkForget, nothing(n.Forget))
	handle(s, MethodNetworkStatus, func(ctx context.Context, _ struct{}) (NetworkStatus, error) { return n.Status(ctx) })
	handle(s, MethodNetworkStop, func(ctx context.Context, _ struct{}) (struct{}, error) { return struct{}{}, n.Stop(ctx) })
	handle(s, MethodNetworkReset, nothing(n.Reset))
	handle(s, MethodNetworkRemovePeer, n.RemovePeer)
	handle(s, MethodNetworkCreate, n.Create)
	handle(s, MethodNetworkRemove, nothing(n.Remove))
	handle(s, MethodNetworkExpose, n.Expose)
	handle(s, MethodNetworkHide, nothing(n.Hide))
	handle(s, MethodNetworkAttach, n.Attach)
	handle(s, MethodNetworkDetach, nothing(n.Detach))
	handle(s, MethodNetworkAddName, nothing(n.AddName))
	handle(s, MethodNetworkRemoveName, nothing(n.RemoveName))
	handle(s, MethodNetworkLookup, func(ctx context.Context, r NetworkNameRequest) (NetworkNames, error) {
		names, err := n.Lookup(ctx, r)
		if names.Names == nil {
			names.Names = []NetworkName{}
		}
		return names, err
	})
	handle(s, MethodNetworkPodmanCreate, n.PodmanCreate)
	handle(s, MethodNetworkPodmanSetup, n.PodmanSetup)
	handle(s, MethodNetworkPodmanTeardown, nothing(n.PodmanTeardown))
	handle(s, MethodNetworkInstallPodman, n.InstallPodman)
	handle(s, MethodNetworkInstallDNS, n.InstallDNS)
	handle(s, MethodNetworkDNS, func(ctx context.Context, _ struct{}) (NetworkDNS, error) { return n.DNS(ctx) })
}
