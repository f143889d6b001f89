// Package quirk knows what to distrust of a CSI driver: a table by the driver's name and version, each entry
// with its source. A pool may add to what the table says of its driver, and take away from it.
package quirk

import (
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// ID names a quirk, as the key "quirks" of a pool spells it.
type ID string

// Entry says that a driver has a quirk.
type Entry struct {
	// Driver is the name that the driver gives in GetPluginInfo; "*" in it stands for any letters.
	Driver string `json:"Driver"`
	// Versions is a range such as ">=2.0.0 <2.23.0"; empty is every version.
	Versions string `json:"Versions,omitempty"`
	ID       ID     `json:"Quirk"`
	// Needs are the programs or the kernel modules of NeedsTools and NeedsModules.
	Needs []string `json:"Needs,omitempty"`
	// Note says what is particular about this driver.
	Note string `json:"Note,omitempty"`
	// Source is how it is known: the page or the code that says so, or "seen" with when and how.
	Source string `json:"Source"`

	codes []correction
}

// Means says what the quirk is, in one sentence without a full stop.
func (e Entry) Means() string { return kinds[e.ID].means }

// correction is an answer whose code is wrong.
type correction struct {
	rpcs []string     // empty is every RPC
	from []codes.Code // what the driver says
	text []string     // one of these is in its text, in any case of letters
	to   codes.Code
}

func (c correction) fits(rpc string, code codes.Code, text string) bool {
	if len(c.rpcs) > 0 && !slices.Contains(c.rpcs, rpc) || !slices.Contains(c.from, code) {
		return false
	}
	text = strings.ToLower(text)
	return slices.ContainsFunc(c.text, func(part string) bool { return strings.Contains(text, strings.ToLower(part)) })
}

// Set is the quirks of one driver. The zero Set has none.
type Set struct {
	entries []Entry
	without map[ID]bool
	as      []string
}

// For returns what the table says of a driver. A version that cannot be read, such as "canary", is in every
// range: what may be wrong with it is distrusted.
func For(driver, version string) Set {
	var s Set
	for _, e := range Table() {
		if ok, err := path.Match(e.Driver, driver); err == nil && ok && within(version, e.Versions) {
			s.entries = append(s.entries, e)
		}
	}
	return s
}

// With returns s changed by what a pool says, which is a Set made by [Parse].
func (s Set) With(pool Set) Set {
	all := slices.Clone(s.entries)
	for _, driver := range pool.as {
		all = append(all, For(driver, "").entries...)
	}
	all = append(all, pool.entries...)
	all = slices.DeleteFunc(all, func(e Entry) bool { return pool.without[e.ID] })
	return Set{entries: all}
}

// Has reports whether the driver has the quirk.
func (s Set) Has(id ID) bool {
	return slices.ContainsFunc(s.entries, func(e Entry) bool { return e.ID == id })
}

// Entries returns what is known, in the order of the table.
func (s Set) Entries() []Entry { return slices.Clone(s.entries) }

// Needs returns the programs that must be in the driver's PATH (of [NeedsTools]), or the kernel modules
// (of [NeedsModules]).
func (s Set) Needs(id ID) []string {
	var all []string
	for _, e := range s.entries {
		if e.ID == id {
			all = append(all, e.Needs...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Code returns the code that an answer should have had, which is code itself for most.
func (s Set) Code(rpc string, code codes.Code, text string) codes.Code {
	for _, e := range s.entries {
		fix := e.codes
		if len(fix) == 0 {
			fix = kinds[e.ID].codes
		}
		for _, c := range fix {
			if c.fits(rpc, code, text) {
				return c.to
			}
		}
	}
	return code
}
