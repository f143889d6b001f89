package network

import (
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/names"
)

// namePrefix begins the records of the names of Podman's containers.
const namePrefix = "netavark/"

func nameKey(space, container string) string { return namePrefix + container + "/" + space }

const (
	maxPodmanNames = 64 // of one record, as for containers of other engines
	shortID        = 12 // digits, by which an engine calls a container
)

// tell gives a container its names.
func (p *podman) tell(space address.Space, r control.NetworkPodmanRequest, at []netip.Prefix) error {
	body := record.Name{Network: space.ID, Container: r.Container}
	for _, ip := range at {
		body.Addresses = append(body.Addresses, ip.Addr())
	}
	all := append([]string{r.Name}, r.Aliases...)
	if len(r.Container) >= shortID {
		all = append(all, r.Container[:shortID])
	}
	for _, name := range all {
		rel, ok := names.Relative(name, []string{p.in.u.conf.Domain})
		if ok && len(body.Names) < maxPodmanNames && !slices.Contains(body.Names, rel) {
			body.Names = append(body.Names, rel)
		}
	}
	if len(body.Names) == 0 {
		return nil
	}
	return p.in.records.Put(record.KindName, nameKey(space.ID, r.Container), body)
}

// untell takes them back.
func (p *podman) untell(space, container string) error {
	key := nameKey(space, container)
	for _, r := range p.in.records.Records(record.KindName) {
		if r.Name == key && r.Writer == p.in.records.Self() {
			return p.in.records.Delete(record.KindName, key)
		}
	}
	return nil
}
