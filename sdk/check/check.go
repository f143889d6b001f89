// Package check holds a running plugin, written by anyone in any language, to what engines
// ask of it. It needs nothing of the plugin but its socket or its address:
//
//	ep, err := client.Dirs{}.Find("sshfs")
//	…
//	report, err := check.Run(ctx, ep, check.Options{Create: map[string]string{"sshcmd": "u@h:/"}})
//	…
//	fmt.Println(report.Verdict, report.Failed())
//
// The cases are data, see [Cases]: each has a stable ID, says what it asserts, and names the
// page or the file of an engine that asks for it. What a case makes has a name that begins
// with a prefix of the run's own, and is removed when the case is over, also when it failed
// or the context ended. Nothing else that the plugin has is touched.
//
// A plugin conforms, or it deviates: it does something else than a case asserts; or it is
// broken: it gives no answer, or one that no engine can read, or fails a basic case, without
// which an engine can do nothing with it.
package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The kinds of plugins, as they answer Plugin.Activate.
const (
	Volume  = "VolumeDriver"
	Network = "NetworkDriver"
	IPAM    = "IpamDriver"
	AuthZ   = "authz"
	Log     = "LogDriver"
	Metrics = "MetricsCollector"
)

// Case is one thing that is asserted of a plugin.
type Case struct {
	// ID names the case for ever, such as "volume/create-twice".
	ID string
	// Kind is the kind of plugin that is held to it; empty is every kind.
	Kind string
	// Asserts is what must be so, one sentence.
	Asserts string
	// Source is the page, or the file and function of an engine, that asks for it.
	Source string
	// Basic: without it an engine can do nothing with the plugin.
	Basic bool
	// Engine: the case replays an order of calls of a real engine. It runs if
	// [Options].Engine is set.
	Engine bool

	run func(*T)
}

// Cases returns all cases, in the order in which they run.
func Cases() []Case {
	return slices.Concat(pluginCases(), volumeCases(), mountCases(), removeCases(), requestCases(), volumeReplays(),
		networkCases(), endpointCases(), networkReplays(), ipamCases(), addressCases(), ipamReplays(), authzCases(), bodyCases(), otherCases())
}

// Request is a request to the API of an engine, for authorization plugins.
type Request struct {
	// User is the name in the client's certificate, empty for one on the unix socket.
	User string
	// Method is an HTTP method.
	Method string
	// Target is the path, without a version, and perhaps a query.
	Target string
	// Body is the JSON body, empty for none.
	Body string
}

// String returns the request line without the version.
func (r Request) String() string { return r.Method + " " + r.Target }

// ParseRequest reads "METHOD TARGET" or "METHOD TARGET BODY".
func ParseRequest(s string) (Request, error) {
	method, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	target, body, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if method == "" || method != strings.ToUpper(method) || !strings.HasPrefix(target, "/") {
		return Request{}, fmt.Errorf("%q: want METHOD /PATH, or METHOD /PATH BODY", s)
	}
	return Request{Method: method, Target: target, Body: strings.TrimSpace(body)}, nil
}

// Options say what is checked and how. The zero value checks all that the plugin says it is.
type Options struct {
	// Kinds are checked; nil is what the plugin answers to Plugin.Activate. With kinds it is
	// not activated, as engines do not activate managed plugins.
	Kinds []string
	// Only runs these cases: IDs, or beginnings of IDs such as "volume/"; nil is all.
	Only []string
	// Skip has the IDs of cases that the plugin is known to fail, each with the reason. They
	// do not run, and the report says so.
	Skip map[string]string
	// Engine runs the cases that replay an engine, too.
	Engine bool
	// Create are the options with which volumes and networks are made. "{name}" in a value
	// stands for the name of the volume or the ID of the network.
	Create map[string]string
	// Away: the plugin's files, interfaces and mounts cannot be seen from here, as of a
	// plugin on another host. Cases that look at them are left out. It is so for every
	// address that is no unix socket.
	Away bool
	// Subnet is an IPv4 prefix of 24 bits or less for networks and pools that are asked for
	// by name; empty is 198.18.0.0/16, which is for tests alone (RFC 2544).
	Subnet string
	// Allow and Deny are requests that an authorization plugin allows and denies. Without
	// them some that most plugins decide about are tried, and what it says is held against
	// what it says of the same request in other spellings.
	Allow, Deny []Request
	// Timeout bounds one case; 0 is 3 minutes. A call has the limit that an engine gives it
	// besides, and one minute where an engine has none.
	Timeout time.Duration
	// Grace is how long the case that runs may go on when the context has ended, so that no
	// call is given up of which nobody knows what comes of it; 0 is 10 seconds, negative is
	// none.
	Grace time.Duration
	// Done is told of each result as it comes; nil is nobody.
	Done func(Result)
}

// defaults fills in what is zero.
func (o Options) defaults() Options {
	o.Timeout = cmp.Or(o.Timeout, 3*time.Minute)
	o.Grace = max(0, cmp.Or(o.Grace, 10*time.Second))
	o.Subnet = cmp.Or(o.Subnet, "198.18.0.0/16")
	return o
}

// Select returns the cases that would run against a plugin of some kinds. A name in Only or
// Skip that is no case's, or a Skip without a reason, is an error.
func (o Options) Select(kinds []string) ([]Case, error) {
	all := Cases()
	for _, only := range o.Only {
		if !slices.ContainsFunc(all, func(c Case) bool { return c.matches(only) }) {
			return nil, fmt.Errorf("case %q: there is none; \"--list\" shows them", only)
		}
	}
	for id, reason := range o.Skip {
		if !slices.ContainsFunc(all, func(c Case) bool { return c.ID == id }) {
			return nil, fmt.Errorf("case %q: there is none; \"--list\" shows them", id)
		}
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("case %q: it is skipped, and no reason is given", id)
		}
	}
	return slices.DeleteFunc(all, func(c Case) bool {
		named := len(o.Only) == 0 || slices.ContainsFunc(o.Only, c.matches)
		exact := slices.Contains(o.Only, c.ID)
		return !named || c.Kind != "" && !slices.Contains(kinds, c.Kind) || c.Engine && !o.Engine && !exact
	}), nil
}

// matches tells whether only is the case's ID or the beginning of it.
func (c Case) matches(only string) bool {
	return c.ID == only || strings.HasSuffix(only, "/") && strings.HasPrefix(c.ID, only)
}
