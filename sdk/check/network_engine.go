package check

import (
	"sync"

	"github.com/remora-plugins/remora/sdk/network"
)

func endpointCases() []Case {
	return ofKind(Network, []Case{
		{
			ID: "network/leave-before-join", run: leaveBeforeJoin,
			Asserts: "Leave of what has not joined does no harm: the endpoint can join after it.",
			Source:  mobyEndpoint + ", sbJoin (roll-back); " + mobyRemote + ", Leave",
		},
		{
			ID: "network/delete-while-joined", run: deleteWhileJoined,
			Asserts: "DeleteEndpoint of what has not left, and Leave after it, are answered, and the network can be removed.",
			Source:  mobyEndpoint + ", sbJoin (20.10 rolls back a Join that it could not use so)",
		},
		{
			ID: "network/two-networks", run: twoNetworks,
			Asserts: "Networks are apart: the end of one is not the end of the other.",
			Source:  mobyNetwork + ", delete",
		},
		{
			ID: "network/containers-at-once", run: containersAtOnce,
			Asserts: "16 containers that start and stop at once are all connected, each with an interface of its own.",
			Source:  mobyEndpoint + ", Join (no lock is held for other sandboxes)",
		},
	})
}

func networkReplays() []Case {
	cases := ofKind(Network, []Case{
		{
			ID: "network/engine-run", run: networkRun,
			Asserts: "docker network create, run, stop, start, stop, network rm: each start has an endpoint of its own.",
			Source:  "moby daemon/container_operations.go, connectToNetwork and releaseNetwork; " + mobyEndpoint,
		},
		{
			ID: "network/engine-restart", run: networkRestart,
			Asserts: "docker restart, three times.",
			Source:  "moby daemon/restart.go, containerRestart",
		},
		{
			ID: "network/engine-connect", run: networkConnect,
			Asserts: "docker network connect and disconnect of a running container, with the way out moving from one network to the other and back.",
			Source:  "moby daemon/libnetwork/sandbox_linux.go, updateGateway; " + mobyEndpoint + ", sbLeave",
		},
		{
			ID: "network/engine-crash", run: networkCrash,
			Asserts: "The engine is killed below three containers: it revokes, leaves and deletes what they had, creates no network again, and starts containers on the one that it remembers.",
			Source:  "moby daemon/libnetwork/sandbox_store.go, sandboxRestore; daemon/libnetwork/controller.go, New",
		},
		{
			ID: "network/engine-failed-start", run: networkFailedStart,
			Asserts: "A start that fails behind Join is undone, in both of the orders that engines have, and the next one works.",
			Source:  mobyEndpoint + ", sbJoin; " + mobyRemote + ", CreateEndpoint",
		},
	})
	for i := range cases {
		cases[i].Engine = true
	}
	return cases
}

func leaveBeforeJoin(t *T) {
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	_, err := t.tryEndpoint(n, ep)
	t.must("CreateEndpoint", err)
	for range 2 {
		if err := t.c.Network().Leave(t.ctx, n.ID, ep.ID); unanswered(err) {
			t.Fatalf("Leave of what has not joined: %w", err)
		}
	}
	t.admissible(n, ep, t.join(n, ep, 1))
	t.info(n, ep)
	t.disconnect(n, ep)
	t.deleteNetwork(n)
}

func deleteWhileJoined(t *T) {
	n := t.createNetwork(1)
	ep := t.endpoint(n, 1)
	t.connect(n, ep, 1)
	if err := t.tryDeleteEndpoint(n, ep); unanswered(err) {
		t.Fatalf("DeleteEndpoint of what has not left: %w", err)
	}
	if err := t.c.Network().Leave(t.ctx, n.ID, ep.ID); unanswered(err) {
		t.Fatalf("Leave after DeleteEndpoint: %w", err)
	}
	other := t.endpoint(n, 2)
	t.connect(n, other, 2)
	t.disconnect(n, other)
	t.deleteNetwork(n)
}

func twoNetworks(t *T) {
	a, b := t.createNetwork(1), t.createNetwork(2)
	one, two := t.endpoint(a, 1), t.endpoint(b, 1)
	t.connect(a, one, 1)
	t.connect(b, two, 1)
	t.disconnect(a, one)
	t.deleteNetwork(a)
	t.info(b, two)
	three := t.endpoint(b, 2)
	t.connect(b, three, 2)
	t.disconnect(b, three)
	t.disconnect(b, two)
	t.deleteNetwork(b)
}

func containersAtOnce(t *T) {
	n := t.createNetwork(1)
	var all sync.WaitGroup
	var mu sync.Mutex
	interfaces := map[string]int{}
	c := t.c.Network()
	for i := range 16 {
		all.Go(func() {
			ep := t.endpoint(n, i)
			if _, err := t.tryEndpoint(n, ep); err != nil {
				t.Errorf("CreateEndpoint of one of 16 containers: %w", err)
				return
			}
			a, err := c.Join(t.ctx, n.ID, ep.ID, t.sandbox(i))
			if err != nil {
				t.Errorf("Join of one of 16 containers: %w", err)
				return
			}
			mu.Lock()
			interfaces[a.Interface]++
			mu.Unlock()
			if _, err := c.Info(t.ctx, n.ID, ep.ID); err != nil {
				t.Errorf("EndpointOperInfo of one of 16 containers: %w", err)
			}
		})
	}
	all.Wait()
	for name, times := range interfaces {
		if name != "" && times > 1 {
			t.Errorf("interface %q was given to %d containers", name, times)
		}
	}
	for i := range 16 {
		ep := t.endpoint(n, i)
		all.Go(func() {
			if err := c.Leave(t.ctx, n.ID, ep.ID); err != nil {
				t.Errorf("Leave of one of 16 containers: %w", err)
			}
			if err := t.tryDeleteEndpoint(n, ep); err != nil {
				t.Errorf("DeleteEndpoint of one of 16 containers: %w", err)
			}
		})
	}
	all.Wait()
	t.deleteNetwork(n)
}

// run is what an engine asks for when a container starts that has its way out here.
func (t *T) runOn(n network.Network, i int) network.Endpoint {
	ep := t.endpoint(n, i)
	t.connect(n, ep, i)
	t.program(n, ep)
	t.info(n, ep)
	t.info(n, ep)
	return ep
}

// halt is what it asks for when that container ends.
func (t *T) halt(n network.Network, ep network.Endpoint) {
	t.revoke(n, ep)
	t.disconnect(n, ep)
}

func networkRun(t *T) {
	t.networkStarts()
	n := t.createNetwork(1)
	for i := range 2 {
		t.halt(n, t.runOn(n, i))
	}
	t.deleteNetwork(n)
}

// networkStarts is what an engine asks for once in its life.
func (t *T) networkStarts() {
	t.activates()
	_, err := t.c.Network().Capabilities(t.ctx)
	t.must("GetCapabilities", err)
}

func networkRestart(t *T) {
	n := t.createNetwork(1)
	ep := t.runOn(n, 0)
	for i := range 3 {
		t.halt(n, ep)
		ep = t.runOn(n, i+1)
	}
	t.halt(n, ep)
	t.deleteNetwork(n)
}

func networkConnect(t *T) {
	a, b := t.createNetwork(1), t.createNetwork(2)
	one, two := t.runOn(a, 1), t.endpoint(b, 1)
	t.info(a, one)
	t.connect(b, two, 1)
	t.revoke(a, one)
	t.program(b, two)
	for _, e := range []struct {
		n  network.Network
		ep network.Endpoint
	}{{b, two}, {a, one}, {b, two}} {
		t.info(e.n, e.ep)
	}
	t.revoke(b, two)
	t.program(a, one)
	t.leave(b, two)
	t.info(a, one)
	t.deleteEndpoint(b, two)
	t.halt(a, one)
	t.deleteNetwork(b)
	t.deleteNetwork(a)
}

func networkCrash(t *T) {
	t.networkStarts()
	n := t.createNetwork(1)
	var had []network.Endpoint
	for i := range 3 {
		had = append(had, t.runOn(n, i))
	}
	t.networkStarts()
	for _, ep := range had {
		t.halt(n, ep)
	}
	t.halt(n, t.runOn(n, 4))
	t.deleteNetwork(n)
}

func networkFailedStart(t *T) {
	n := t.createNetwork(1)
	for i := range 2 {
		ep := t.endpoint(n, i)
		t.connect(n, ep, 1)
		if i == 0 { // since 29
			t.leave(n, ep)
		}
		if err := t.tryDeleteEndpoint(n, ep); unanswered(err) {
			t.Fatalf("DeleteEndpoint: %w", err)
		}
	}
	t.halt(n, t.runOn(n, 3))
	t.deleteNetwork(n)
}
