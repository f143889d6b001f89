package watch

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/names"
)

// Labels of containers that say more about names.
const (
	LabelNames    = "remora.dns.names"    // more names, with commas between
	LabelServices = "remora.dns.services" // ports, for SRV: "_http._tcp 80, _metrics._tcp 9090"

	composeService = "com.docker.compose.service"
	composeProject = "com.docker.compose.project"
	composeOneOff  = "com.docker.compose.oneoff"
	swarmService   = "com.docker.swarm.service.name"
)

// shortID is how many digits of its ID an engine calls a container by.
const shortID = 12

// The limits of one record, which has to stay within those of all records.
const (
	maxNames    = 64
	maxServices = 1000
)

// describe returns what is told of a container in one network.
func describe(c engine.Attached, ep engine.Endpoint, network string, domains []string) record.Name {
	body := record.Name{Network: network, Container: c.ID}
	for _, text := range []string{ep.IPAddress, ep.GlobalIPv6Address} {
		if a, err := netip.ParseAddr(text); err == nil {
			body.Addresses = append(body.Addresses, a.Unmap())
		}
	}
	add := func(name string) {
		rel, ok := names.Relative(strings.TrimSpace(name), domains)
		if ok && len(body.Names) < maxNames && !slices.Contains(body.Names, rel) {
			body.Names = append(body.Names, rel)
		}
	}
	add(c.Name) // first: services and addresses are told by it
	for _, name := range slices.Concat(ep.Aliases, ep.DNSNames) {
		add(name)
	}
	add(hostname(c, domains))
	if service := c.Labels[composeService]; service != "" && !strings.EqualFold(c.Labels[composeOneOff], "true") {
		add(service)
		add(service + "." + c.Labels[composeProject]) // two projects may have a service of one name
	}
	if service := c.Labels[swarmService]; service != "" {
		add(service)
		add("tasks." + service)
	}
	for name := range strings.SplitSeq(c.Labels[LabelNames], ",") {
		add(name)
	}
	if len(c.ID) >= shortID {
		add(c.ID[:shortID])
	}
	if text := c.Labels[LabelServices]; len(text) <= maxServices {
		var told []string
		for _, s := range names.Services(text) {
			told = append(told, fmt.Sprintf("%s %d", s.Name, s.Port))
		}
		body.Service = strings.Join(told, ", ")
	}
	return body
}

// hostname returns what a container calls itself, without a domain of the cluster. One with dots beside that, such as
// www.example.org, is found in the container's network alone; the engine has it so, too.
func hostname(c engine.Attached, domains []string) string {
	full := c.Hostname + "." + c.Domain
	if rel, _ := names.Relative(full, domains); c.Domain != "" && rel != strings.ToLower(full) {
		return rel
	}
	return c.Hostname
}
