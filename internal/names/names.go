// Package names answers what a name's addresses are, out of the records that the hosts of a cluster write. A
// [Zone] is what can be looked up at one moment: it never changes, so any number of readers ask it without a
// lock. [Zones] makes the next one whenever a record, a network or what can be reached has changed.
//
// Who asks matters: an asker in a network hears of addresses in that network, whose hosts can be reached. A name
// is found as it is and below each domain of the cluster.
//
// The server that speaks DNS is package server, what goes to other servers package forward; package
// watch writes the records of an engine's containers, and [Hand] those that a person gave.
package names

import (
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// DefaultDomain is the domain of a cluster that was told no other.
const DefaultDomain = "remora.local"

// The times to live of answers, in whole seconds: how long others may go on believing one.
const (
	DefaultTTL      = 2 * time.Second
	DefaultNegative = time.Second
)

// Limits of names. DNS itself allows 63 bytes between two dots, and 253 in all with the domain.
const (
	maxLabel = 63
	maxName  = 190
)

// Config says how names are answered.
type Config struct {
	// Domains are those below which names are found too; the first is the one that names are told
	// with. None is DefaultDomain.
	Domains []string
	// TTL and Negative are for how long an answer, and that there is none, may be remembered. Zero is the default.
	TTL, Negative time.Duration
}

// Clean returns the domain in lower case and without dots at its ends. One that DNS cannot carry is ErrInvalid.
func Clean(domain string) (string, error) {
	d := strings.ToLower(strings.Trim(domain, "."))
	if !valid(d) || len(d) > maxName/2 {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "domain %q: not letters, digits, - and _ between dots, at most %d of them", domain, maxName/2)
	}
	return d, nil
}

// Relative returns a name as records have it: in lower case, and without the domain of the cluster that it may be
// given with. ok is false for one that DNS cannot carry.
func Relative(name string, domains []string) (rel string, ok bool) {
	rel = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, d := range domains {
		if under, found := strings.CutSuffix(rel, "."+d); found {
			rel = under
			break
		}
	}
	return rel, valid(rel)
}

// valid reports whether name is made of labels as hosts have them. The underscore is in names of containers.
func valid(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// Search returns the list of domains in which a container should look: that of the cluster, then those in which its
// host looks, which a list of one's own would hide.
func Search(domain string, host []string) []string {
	all := []string{domain}
	for _, d := range host {
		d, err := Clean(d)
		if err == nil && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}
