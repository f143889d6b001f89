// Package check looks at a CSI driver before it is configured: what it is, what can be done with it here and what
// cannot, what is known against it, and whether the host fits. It asks the driver nothing but what every
// orchestrator asks when it meets one, so it changes nothing and calls nothing that is seldom called.
package check

import (
	"context"
	"errors"
	"strings"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Options say what to look at.
type Options struct {
	// Endpoint is the driver's socket, Controller that of its controller where it has one of its own.
	Endpoint, Controller string
	// Quirks are what a pool would say: see [quirk.Parse].
	Quirks []string
	// Dir is below what volumes would be mounted.
	Dir string
}

// Report is what was found.
type Report struct {
	Driver       Driver       `json:"Driver"`
	Node         Node         `json:"Node"`
	Capabilities Capabilities `json:"Capabilities"`
	// Can is what the bridge can do with the driver and what not.
	Can    []Ability `json:"Can"`
	Quirks []Quirk   `json:"Quirks"`
	// Host is how the host fits.
	Host []Finding `json:"Host"`
}

// Driver is who the driver is.
type Driver struct {
	Name       string `json:"Name"`
	Version    string `json:"Version"`
	Endpoint   string `json:"Endpoint"`
	Controller string `json:"Controller,omitempty"`
	// Process is the process that listens, 0 if that cannot be told.
	Process int `json:"Process,omitempty"`
}

// Node is what the driver calls this host.
type Node struct {
	ID         string            `json:"ID"`
	MaxVolumes int64             `json:"MaxVolumes,omitempty"`
	Topology   map[string]string `json:"Topology,omitempty"`
}

// Capabilities are in the words of the specification.
type Capabilities struct {
	Plugin     []string `json:"Plugin"`
	Expansion  []string `json:"Expansion"`
	Controller []string `json:"Controller"`
	Node       []string `json:"Node"`
	Group      []string `json:"Group"`
}

// Quirk is one that applies.
type Quirk struct {
	Name   quirk.ID `json:"Name"`
	Means  string   `json:"Means"`
	Note   string   `json:"Note,omitempty"`
	Needs  []string `json:"Needs,omitempty"`
	Source string   `json:"Source"`
}

// Ability is something that can be done, or cannot.
type Ability struct {
	What string `json:"What"`
	Can  bool   `json:"Can"`
	Text string `json:"Text"`
}

// The results of a finding.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "fail"
)

// Finding is one thing that was looked at.
type Finding struct {
	Check  string `json:"Check"`
	Result string `json:"Result"`
	Text   string `json:"Text"`
	Mend   string `json:"Mend,omitempty"`
}

// Usable reports whether nothing was found that keeps the driver from being used.
func (r *Report) Usable() bool {
	for _, f := range r.Host {
		if f.Result == Fail {
			return false
		}
	}
	return true
}

func (r *Report) add(check, result, text, mend string) {
	r.Host = append(r.Host, Finding{check, result, text, mend})
}

// Run looks at a driver. The error is that of one that does not even say who it is.
func Run(ctx context.Context, o Options) (*Report, error) {
	for _, path := range []string{o.Endpoint, o.Controller} {
		if path == "" {
			continue
		}
		if err := conn.CheckSocket(path); err != nil {
			return nil, err
		}
	}
	quirks, err := quirk.Parse(o.Quirks)
	if err != nil {
		return nil, err
	}
	d := conn.Open(conn.Config{Node: o.Endpoint, Controller: o.Controller, Quirks: quirks})
	facts, err := d.Facts(ctx)
	if err = errors.Join(err, d.Close()); err != nil && facts.Name == "" {
		return nil, err
	}
	return report(ctx, o, facts, err), nil
}

// report puts together what is known. failed is why the driver did not say all.
func report(ctx context.Context, o Options, f conn.Facts, failed error) *Report {
	r := &Report{
		Driver: Driver{Name: f.Name, Version: f.Version, Endpoint: conn.SocketPath(o.Endpoint), Controller: conn.SocketPath(o.Controller)},
		Node:   Node{f.NodeID, f.MaxVolumes, f.Topology},
		Capabilities: Capabilities{
			Plugin: f.Plugin.Names(), Expansion: f.Expansion.Names(), Controller: f.Controller.Names(), Node: f.Node.Names(), Group: f.Group.Names(),
		},
		Can: []Ability{}, Quirks: []Quirk{}, Host: []Finding{},
	}
	for _, e := range f.Quirks.Entries() {
		r.Quirks = append(r.Quirks, Quirk{e.ID, e.Means(), e.Note, e.Needs, e.Source})
	}
	if failed != nil {
		mend := strings.Join(errdefs.Hints(failed), "; ")
		r.add("driver", Fail, strings.TrimPrefix(failed.Error(), f.Name+": "), mend)
	} else {
		r.add("driver", OK, "it is ready", "")
		r.Can = abilities(f)
	}
	r.host(ctx, o, f)
	return r
}
