// Package catalog is what a driver tells the daemon about itself: its name, one
// line of text, the keys of its pools and the options of its volumes, and how a
// pool is opened.
//
// Keys and options describe themselves by the tags of a struct, see [Describe].
// From the same tags come the strict decoders, the text of their errors, the tables
// in the drivers' README files, and the reference.
//
// The package holds no list of drivers: that is drivers/all. It decodes values and
// not files: that is internal/config.
package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/remora-plugins/remora/sdk/volume"
)

// Env is what the daemon gives to a pool when it opens it. Nothing else is ambient.
type Env struct {
	// PoolName is the name of the pool, which is the name of its volume driver too.
	PoolName string
	// StateDir is the daemon's directory for what outlives a reboot, such as
	// /var/lib/remora. The default place of a pool's data is below it.
	StateDir string
	// RunDir is the daemon's directory for what a reboot ends, such as /run/remora.
	RunDir string
	// Logger is nil to discard. Drivers use [Env.Log].
	Logger *slog.Logger
}

// Log returns the logger, one that discards if there is none. It is never nil.
func (e Env) Log() *slog.Logger {
	if e.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Logger
}

// Volume describes one driver of volumes. It is made by [NewVolume], does not change,
// and is safe for concurrent use.
type Volume struct {
	name, doc string
	keys      []Key
	options   []Key
	variables []Variable
	examples  func() []Example
	check     func(table map[string]any) error
	open      func(ctx context.Context, table map[string]any, env Env) (volume.Driver, error)
}

// NewVolume describes a driver whose pools are configured by a C, a struct with tags
// as [Describe] reads them. doc is one line without a full stop. open gets a C that
// was decoded, with its defaults filled in; what tags cannot say it checks itself.
//
// A C with wrong tags is a programmer's error and panics.
func NewVolume[C any](name, doc string, open func(context.Context, C, Env) (volume.Driver, error)) Volume {
	return Volume{
		name: name,
		doc:  doc,
		keys: Describe[C](),
		check: func(table map[string]any) error {
			c, err := DecodeTable[C](table)
			if checker, ok := any(&c).(Checker); ok && err == nil {
				err = checker.Check()
			}
			return err
		},
		open: func(ctx context.Context, table map[string]any, env Env) (volume.Driver, error) {
			c, err := DecodeTable[C](table)
			if err != nil {
				return nil, err
			}
			d, err := open(ctx, c, env)
			if err != nil {
				return nil, fmt.Errorf("pool %q: %w", env.PoolName, err)
			}
			return d, nil
		},
	}
}

// WithOptions returns v with the description of the options that its volumes take,
// from [Describe].
func (v Volume) WithOptions(options []Key) Volume {
	v.options = slices.Clone(options)
	return v
}

// Variable is one of the daemon's environment that a driver reads besides those of the keys
// of its pools, such as one that other tools for the same storage have.
type Variable struct{ Name, Help string }

// WithVariables returns v with the variables that its pools read by themselves.
func (v Volume) WithVariables(variables ...Variable) Volume {
	v.variables = slices.Clone(variables)
	return v
}

// Variables returns the variables that a pool reads by itself.
func (v Volume) Variables() []Variable { return slices.Clone(v.variables) }

// Name returns the word for the driver in the configuration, such as "dir".
func (v Volume) Name() string { return v.name }

// Doc returns one line on what the driver is.
func (v Volume) Doc() string { return v.doc }

// Keys returns what may stand in the table of a pool.
func (v Volume) Keys() []Key { return slices.Clone(v.keys) }

// Options returns what may be given to a volume by "-o".
func (v Volume) Options() []Key { return slices.Clone(v.options) }

// Check decodes the table of a pool and says what is wrong with it, as
// [Volume.Open] would, and opens nothing.
func (v Volume) Check(table map[string]any) error { return v.check(table) }

// Open decodes the table of a pool and opens it. table holds what TOML makes of the
// driver's own keys; a text stands for a value of any type, so that a value from the
// environment needs no conversion. A wrong table is ErrInvalid.
//
// The driver belongs to the caller, who closes it if it is an [io.Closer].
func (v Volume) Open(ctx context.Context, table map[string]any, env Env) (volume.Driver, error) {
	return v.open(ctx, table, env)
}

// Checker is implemented by the configuration of a driver that can be wrong in ways that its tags do not tell.
type Checker interface {
	// Check says what is wrong, as `key "path": …`, by the values alone: it looks at no storage.
	Check() error
}

// Describer is implemented by a driver whose storage is served by a program that has a name and
// a version of its own.
type Describer interface {
	// About says in a few words which it is, from memory; it is "" as long as that is not known.
	About() string
}

// Adviser is implemented by a driver that knows what could be better about the host for one of
// its pools.
type Adviser interface {
	// Advice answers from memory or from the kernel's tables, never from storage.
	Advice() Advice
}

// Advice is how something is, and what to do for it to be better.
type Advice struct{ Text, Mend string }
