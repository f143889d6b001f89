package names

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Writer is how this host writes records of its own.
type Writer interface {
	Self() record.Host
	Records(kind string) []record.Record
	Put(kind, name string, body any) error
	Delete(kind, name string) error
}

// HandKey begins the keys of records of names that a person gave.
const HandKey = "hand"

const byHand = HandKey + "/"

// maxByHand bounds the addresses of one such name: its record has to stay within the limits of records.
const maxByHand = 200

// Hand keeps the names that people give. They are records of the host where they were given, and last until they
// are removed there.
type Hand struct {
	store   Writer
	domains []string
	mu      sync.Mutex
}

// NewHand returns the names given by hand at this host. Domains are those of the cluster.
func NewHand(store Writer, domains []string) *Hand {
	if len(domains) == 0 {
		domains = []string{DefaultDomain}
	}
	return &Hand{store: store, domains: domains}
}

// Add gives a name addresses beside those that it has. In every network it is found, under the name as it is
// and below each domain.
func (h *Hand) Add(name string, addresses []netip.Addr) error {
	rel, err := h.relative(name)
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "name %q: no address", name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Clone(h.own(rel))
	for _, a := range addresses {
		if a = a.Unmap(); !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return errdefs.Errorf(errdefs.ErrInvalid, "name %q: %s is no address of one host", name, a)
		}
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	if len(all) > maxByHand {
		return errdefs.Errorf(errdefs.ErrInvalid, "name %q: %d addresses, it may have %d", name, len(all), maxByHand)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return h.store.Put(record.KindName, byHand+rel, record.Name{Names: []string{rel}, Addresses: all})
}

// Remove takes addresses from a name that was given at this host; none is all of them. One that it does not have
// is passed over, a name that was not given here is ErrNotFound.
func (h *Hand) Remove(name string, addresses ...netip.Addr) error {
	rel, err := h.relative(name)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.own(rel)
	if len(all) == 0 {
		return h.elsewhere(rel)
	}
	left := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool {
		return len(addresses) == 0 || slices.ContainsFunc(addresses, func(o netip.Addr) bool { return o.Unmap() == a })
	})
	if len(left) == 0 {
		return h.store.Delete(record.KindName, byHand+rel)
	}
	return h.store.Put(record.KindName, byHand+rel, record.Name{Names: []string{rel}, Addresses: left})
}

func (h *Hand) relative(name string) (string, error) {
	rel, ok := Relative(name, h.domains)
	if !ok {
		return "", errdefs.Hint(
			errdefs.Errorf(errdefs.ErrInvalid, "name %q: not one that DNS can carry", name),
			"letters, digits, - and _, with dots between, and no more than 63 of them without a dot")
	}
	return rel, nil
}

// own returns the addresses of a name that was given here.
func (h *Hand) own(rel string) []netip.Addr {
	for _, r := range h.store.Records(record.KindName) {
		if r.Writer == h.store.Self() && r.Name == byHand+rel {
			var body record.Name
			if json.Unmarshal(r.Body, &body) == nil {
				return body.Addresses
			}
		}
	}
	return nil
}

// elsewhere says why there is nothing to remove.
func (h *Hand) elsewhere(rel string) error {
	for _, r := range h.store.Records(record.KindName) {
		if r.Name == byHand+rel {
			return errdefs.Hint(
				errdefs.Errorf(errdefs.ErrNotFound, "name %q: was given at another host", rel),
				"remove it at host "+r.Writer.Short()+", where it was added")
		}
	}
	return errdefs.Errorf(errdefs.ErrNotFound, "name %q: was not given by hand", rel)
}

// Known is a name as it is shown to people.
type Known struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Network   string       `json:"network,omitempty"` // its ID
	Host      record.Host  `json:"host"`              // that wrote it
	Container string       `json:"container,omitempty"`
	ByHand    bool         `json:"byHand,omitempty"`
}

// List returns all that records tell, by name and host.
func List(records []record.Record) ([]Known, error) {
	var all []Known
	var errs []error
	for _, r := range records {
		var body record.Name
		if err := json.Unmarshal(r.Body, &body); err != nil {
			errs = append(errs, errdefs.Errorf(errdefs.ErrInvalid, "names of host %s, %q: %s", r.Writer.Short(), r.Name, err))
			continue
		}
		for _, n := range body.Names {
			all = append(all, Known{n, body.Addresses, body.Network, r.Writer, body.Container, strings.HasPrefix(r.Name, byHand)})
		}
	}
	slices.SortStableFunc(all, func(a, b Known) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.Host.Compare(b.Host)
	})
	return all, errors.Join(errs...)
}

// DNSArgs are what a container has to be run with to ask these servers and to look in these domains.
func DNSArgs(servers []netip.Addr, search []string) []string {
	var args []string
	for _, s := range servers {
		args = append(args, "--dns="+s.String())
	}
	for _, d := range search {
		args = append(args, "--dns-search="+d)
	}
	return args
}
