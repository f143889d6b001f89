package control

import "context"

// Networks returns the methods about the network across hosts.
func (c *Client) Networks() Networks { return clientNetworks{c} }

type clientNetworks struct{ c *Client }

// Launch implements [Networks].
func (n clientNetworks) Launch(ctx context.Context, req NetworkLaunchRequest) (NetworkLaunched, error) {
	return call[NetworkLaunched](ctx, n.c, MethodNetworkLaunch, req)
}

// Connect implements [Networks].
func (n clientNetworks) Connect(ctx context.Context, req NetworkConnectRequest) error {
	return n.do(ctx, MethodNetworkConnect, req)
}

// Forget implements [Networks].
func (n clientNetworks) Forget(ctx context.Context, req NetworkPeersRequest) error {
	return n.do(ctx, MethodNetworkForget, req)
}

// Status implements [Networks].
func (n clientNetworks) Status(ctx context.Context) (NetworkStatus, error) {
	return call[NetworkStatus](ctx, n.c, MethodNetworkStatus, struct{}{})
}

// Stop implements [Networks].
func (n clientNetworks) Stop(ctx context.Context) error {
	return n.do(ctx, MethodNetworkStop, struct{}{})
}

// Reset implements [Networks].
func (n clientNetworks) Reset(ctx context.Context, req NetworkResetRequest) error {
	return n.do(ctx, MethodNetworkReset, req)
}

// RemovePeer implements [Networks].
func (n clientNetworks) RemovePeer(ctx context.Context, req NetworkPeersRequest) (NetworkRemoved, error) {
	return call[NetworkRemoved](ctx, n.c, MethodNetworkRemovePeer, req)
}

// Create implements [Networks].
func (n clientNetworks) Create(ctx context.Context, req NetworkCreateRequest) (NetworkInfo, error) {
	return call[NetworkInfo](ctx, n.c, MethodNetworkCreate, req)
}

// Remove implements [Networks].
func (n clientNetworks) Remove(ctx context.Context, req NetworkRequest) error {
	return n.do(ctx, MethodNetworkRemove, req)
}

// Expose implements [Networks].
func (n clientNetworks) Expose(ctx context.Context, req NetworkExposeRequest) (NetworkExposed, error) {
	return call[NetworkExposed](ctx, n.c, MethodNetworkExpose, req)
}

// Hide implements [Networks].
func (n clientNetworks) Hide(ctx context.Context, req NetworkRequest) error {
	return n.do(ctx, MethodNetworkHide, req)
}

// Attach implements [Networks].
func (n clientNetworks) Attach(ctx context.Context, req NetworkAttachRequest) (NetworkAttached, error) {
	return call[NetworkAttached](ctx, n.c, MethodNetworkAttach, req)
}

// Detach implements [Networks].
func (n clientNetworks) Detach(ctx context.Context, req NetworkAttachRequest) error {
	return n.do(ctx, MethodNetworkDetach, req)
}

// AddName implements [Networks].
func (n clientNetworks) AddName(ctx context.Context, req NetworkNameRequest) error {
	return n.do(ctx, MethodNetworkAddName, req)
}

// RemoveName implements [Networks].
func (n clientNetworks) RemoveName(ctx context.Context, req NetworkNameRequest) error {
	return n.do(ctx, MethodNetworkRemoveName, req)
}

// Lookup implements [Networks].
func (n clientNetworks) Lookup(ctx context.Context, req NetworkNameRequest) (NetworkNames, error) {
	return call[NetworkNames](ctx, n.c, MethodNetworkLookup, req)
}

// DNS implements [Networks].
func (n clientNetworks) DNS(ctx context.Context) (NetworkDNS, error) {
	return call[NetworkDNS](ctx, n.c, MethodNetworkDNS, struct{}{})
}

// InstallDNS implements [Networks].
func (n clientNetworks) InstallDNS(ctx context.Context, req NetworkInstallDNSRequest) (NetworkInstalledDNS, error) {
	return call[NetworkInstalledDNS](ctx, n.c, MethodNetworkInstallDNS, req)
}

func (n clientNetworks) do(ctx context.Context, method string, req any) error {
	_, err := call[struct{}](ctx, n.c, method, req)
	return err
}

// PodmanCreate implements [Networks].
func (n clientNetworks) PodmanCreate(ctx context.Context, req NetworkPodmanCreateRequest) (NetworkPodmanCreated, error) {
	return call[NetworkPodmanCreated](ctx, n.c, MethodNetworkPodmanCreate, req)
}

// PodmanSetup implements [Networks].
func (n clientNetworks) PodmanSetup(ctx context.Context, req NetworkPodmanRequest) (NetworkPodmanConnected, error) {
	return call[NetworkPodmanConnected](ctx, n.c, MethodNetworkPodmanSetup, req)
}

// PodmanTeardown implements [Networks].
func (n clientNetworks) PodmanTeardown(ctx context.Context, req NetworkPodmanRequest) error {
	return n.do(ctx, MethodNetworkPodmanTeardown, req)
}

// InstallPodman implements [Networks].
func (n clientNetworks) InstallPodman(ctx context.Context, req NetworkInstallPodmanRequest) (NetworkInstalledPodman, error) {
	return call[NetworkInstalledPodman](ctx, n.c, MethodNetworkInstallPodman, req)
}
